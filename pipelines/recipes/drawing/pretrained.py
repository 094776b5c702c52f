"""Recipe `pretrained`: a pipeline of diffusers, of classes or of text to image, is measured and served as it is."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass

from contracts.engines.diffusers import FOLDER, SPEC, DiffusersSpec, bad_weights, open_pipeline, takes_text
from contracts.errors import PlatformError
from pipelines.recipes.drawing.base import TOLERANCE, DrawingRecipe
from pipelines.task import STRICT, Progress, Task


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PipelineModel:
    """Where the pipeline is: a folder as diffusers saves it.

    numbers: class of the data -> the pipeline's number of it, where its own names (``id2label``) do not say.
    prompt: what a pipeline that takes text is asked with for a class, in the place of {}; requests may say any text.
    """

    weights: str = ""
    numbers: Mapping[str, int] = field(default_factory=dict)
    prompt: str = "a drawing of a {}"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PretrainedDrawing(DrawingRecipe):
    """No training: the data set is what the pipeline's images are measured by. On a GPU it is served in bf16."""

    model: PipelineModel = field(default_factory=PipelineModel)

    def train(self, task: Task, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """Copy the folder, once it has drawn an image of the size that `image` says."""
        import pandas as pd

        if not self.model.weights:
            raise PlatformError(
                "recipe pretrained needs the folder of a pipeline", fix="--set model.weights=FOLDER", code="no_weights"
            )
        folder = Path(self.model.weights).expanduser()
        try:
            pipeline = open_pipeline(folder)
        except ImportError as err:
            raise PlatformError(
                "recipe pretrained needs diffusers", fix="pip install 'fairlead[diffusion]'", code="missing_package"
            ) from err
        labels = sorted(set(pd.read_parquet(dataset / "train.parquet", columns=["label"])["label"]))
        asked, spec = self._by_text(labels) if (text := takes_text(pipeline)) else self._by_class(pipeline, labels)
        image = pipeline(**asked, num_inference_steps=1, output_type="np").images[0]
        wanted = (self.image.height, self.image.width, len(self.image.mode))
        if image.shape != wanted:
            sizes = f"--set image.height={image.shape[0]} --set image.width={image.shape[1]}"
            mode = "RGB" if image.shape[2] == 3 else "L"
            raise PlatformError(
                f"the pipeline draws {image.shape[1]}x{image.shape[0]} pixels of {mode}",
                detail=f"image says {wanted[1]}x{wanted[0]} of {self.image.mode}",
                fix=f"{sizes} --set image.mode={mode}",
                code="bad_config",
            )
        out.mkdir(parents=True, exist_ok=True)
        if (out / FOLDER).exists():
            shutil.rmtree(out / FOLDER)
        try:
            shutil.copytree(folder, out / FOLDER)
        except OSError as err:
            raise bad_weights(folder, str(err)) from err
        (out / SPEC).write_text(spec.model_dump_json(indent=1) + "\n", encoding="utf-8")
        return {
            "engine": "diffusers",
            "output": self.output(labels, text),
            "decision": None,
            "tolerance": TOLERANCE,
            "history": [],
            "parameters": {"pipeline": type(pipeline).__name__},
            "device": "cpu",
        }

    def _by_class(self, pipeline: Any, labels: list[str]) -> tuple[dict[str, Any], DiffusersSpec]:
        """What the pipeline is asked with for one image of the first class, and how it is served."""
        known = {**(getattr(pipeline, "labels", None) or {}), **self.model.numbers}
        if absent := [name for name in labels if name not in known]:
            raise PlatformError(
                f"the pipeline does not know class {absent[0]!r}",
                fix=f"say its number: --set 'model.numbers={{{absent[0]}: 7}}'",
                code="bad_label",
            )
        numbers = tuple(int(known[name]) for name in labels)
        spec = DiffusersSpec(steps=self.sampling.steps, guidance=self.sampling.guidance, numbers=numbers)
        return {"class_labels": list(numbers[:1])}, spec

    def _by_text(self, labels: list[str]) -> tuple[dict[str, Any], DiffusersSpec]:
        """The same of a pipeline that takes text; it is asked for the size that `image` says."""
        if "{}" not in self.model.prompt:
            raise PlatformError(
                f"model.prompt has no place for the class: {self.model.prompt!r}",
                fix="--set 'model.prompt=a drawing of a {}'",
                code="bad_config",
            )
        prompts = tuple(self.model.prompt.replace("{}", name) for name in labels)
        spec = DiffusersSpec(steps=self.sampling.steps, guidance=self.sampling.guidance, prompts=prompts)
        return {"prompt": list(prompts[:1]), "height": self.image.height, "width": self.image.width}, spec

"""What the recipes of every model that draws share: their settings, and how a training begins and ends."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass as plain
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from contracts.engines.flow import SPEC, FlowSpec
from contracts.errors import PlatformError
from contracts.images import ImageSpec
from pipelines.recipes.image.base import ImageConfig
from pipelines.recipes.text.settings import SplitConfig
from pipelines.task import STRICT, Progress, Task, TaskConfig
from pipelines.training.distributed import group
from pipelines.training.reference_network import ReferenceConfig

if TYPE_CHECKING:
    from pipelines.training.pictures import Pictures

TOLERANCE = 0.02  # of the mean of pixels: many steps make more of what processors differ by


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SamplingConfig:
    """How pictures are sampled where a request does not say; see `contracts.engines.flow.FlowSpec`.

    max_steps: requests for more are refused.
    """

    steps: Annotated[int, Field(ge=1, le=1000)] = 10
    method: Literal["euler", "heun"] = "heun"
    guidance: Annotated[float, Field(ge=1, le=20)] = 1.0
    max_steps: Annotated[int, Field(ge=1, le=1000)] = 100


@plain(frozen=True, kw_only=True)
class Sketches:
    """What a recipe learns from; `spec` says how files became these pixels."""

    task: Task
    train: Pictures
    valid: Pictures
    classes: list[str]
    spec: ImageSpec


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DrawingRecipe(TaskConfig):
    """Base of the recipes of a model that draws; a subclass has `learn`.

    labels: name in the source -> name of the class, where they differ.  reference: the network on whose features
    pictures are compared with real ones.
    """

    image: ImageConfig = field(default_factory=lambda: ImageConfig(width=28, height=28, mode="L"))
    split: SplitConfig = field(default_factory=lambda: SplitConfig(valid_share=0.1, test_share=0.12))
    labels: Mapping[str, str] = field(default_factory=dict)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    reference: ReferenceConfig = field(default_factory=ReferenceConfig)

    def output(self, classes: list[str], any_text: bool = False) -> dict[str, Any]:
        """``output`` of `TaskConfig.train`'s result."""
        image = self.image
        return {
            "problem": "image",
            "labels": classes,
            "width": image.width,
            "height": image.height,
            "mode": image.mode,
            "max_steps": self.sampling.max_steps,
            "any_text": any_text,
        }

    def train(self, task: Task, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """Learn from the images; writes the files that `contracts.engines.flow` serves."""
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".pixels-", dir=out.parent) as scratch:
            images = read_sketches(task, self, dataset, Path(scratch))
            found = self.learn(images, out, checkpoints, progress)
        if group().leads:
            asked = self.sampling
            spec = FlowSpec(steps=asked.steps, method=asked.method, guidance=asked.guidance)
            (out / SPEC).write_text(spec.model_dump_json(indent=1) + "\n", encoding="utf-8")
        made = {"engine": "flow", "output": self.output(images.classes), "decision": None, "tolerance": TOLERANCE}
        return {**made, **found}

    def learn(self, images: Sketches, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """Write ``model.onnx``; returns at least ``history``, ``parameters`` and ``device`` of `train`'s result."""
        raise PlatformError(
            f"recipe {self.recipe} cannot train",
            detail=f"its class {type(self).__name__} has no method learn",
            fix="give it one, as the recipes in pipelines/recipes/drawing/ have",
            code="bad_task",
        )


def read_sketches(task: Task, config: DrawingRecipe, dataset: Path, scratch: Path) -> Sketches:
    """The parts ``train`` and ``valid`` of `dataset`, decoded."""
    import pandas as pd

    from pipelines.data.image_files import takes_images
    from pipelines.training.pictures import decode_part

    labels = pd.read_parquet(dataset / "train.parquet", columns=["label"])["label"]
    classes, spec, column = sorted(set(labels)), config.image.spec(), takes_images(task)
    train, valid = (
        decode_part(dataset / f"{name}.parquet", column, spec, classes, scratch) for name in ("train", "valid")
    )
    return Sketches(task=task, train=train, valid=valid, classes=classes, spec=spec)

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

_SAMPLED, _AT_ONCE = 64, 16  # images by which levels are found, and how many at a time
_LOOKED_AT = 2_000  # training images beside them
_RARE, _FAR = 0.01, 32  # share of values at an end that is worth it, and how far from the end a value may be
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
    """What a recipe learns from; `spec` says how files became these pixels, `column` has them in `dataset`."""

    task: Task
    train: Pictures
    valid: Pictures
    classes: list[str]
    spec: ImageSpec
    dataset: Path
    column: str


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
                levels = sampled_levels(out / "model.onnx", images, asked, self.seed)
                spec = FlowSpec(steps=asked.steps, method=asked.method, guidance=asked.guidance, levels=levels)
                (out / SPEC).write_text(spec.model_dump_json(indent=1) + "\n", encoding="utf-8")
        made = {"engine": "flow", "output": self.output(images.classes), "decision": None, "tolerance": TOLERANCE}
        return {**made, **found}

    def decoded(self) -> int:
        """How many of the training images `learn` gets as pixels, evenly from all; 0: all of them."""
        return 0

    def learn(self, images: Sketches, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """Write ``model.onnx``; returns at least ``history``, ``parameters`` and ``device`` of `train`'s result."""
        raise PlatformError(
            f"recipe {self.recipe} cannot train",
            detail=f"its class {type(self).__name__} has no method learn",
            fix="give it one, as the recipes in pipelines/recipes/drawing/ have",
            code="bad_task",
        )


def sampled_levels(graph: Path, images: Sketches, asked: SamplingConfig, seed: int) -> tuple[int, int]:
    """`contracts.engines.flow.FlowSpec.levels`, after which sampled images are as black and white as training images.

    What is exactly 0 or 255 in training images, such as paper, a network only comes near, which gives its images away
    more than anything that they show. An end that training images hardly have stays as it is.
    """
    import numpy as np
    import onnxruntime as ort

    from contracts.engines.flow import follow, guided, pixels_of

    train = images.train
    some = train.pixels[:: max(1, len(train.pixels) // _LOOKED_AT)]
    black, white = float((some == 0).mean()), float((some == 255).mean())
    if max(black, white) < _RARE:
        return 0, 255
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])

    def run(now: Any, time: float, label: Any) -> Any:
        times = np.full(len(now), time, np.float32)
        return session.run(["direction"], {"pixels": now, "time": times, "label": label})[0]

    rng, made = np.random.default_rng(seed), []
    labels = train.labels[:: max(1, len(train.labels) // _SAMPLED)][:_SAMPLED]
    for at in range(0, len(labels), _AT_ONCE):
        label = labels[at : at + _AT_ONCE]
        noise = rng.standard_normal((len(label), *some.shape[3:], *some.shape[1:3]), dtype=np.float32)
        push = np.full(len(label), asked.guidance, np.float32)
        *_, last = follow(guided(run, label, len(images.classes), push), noise, asked.steps, asked.method)
        made.append(pixels_of(last))
    values, ends = np.concatenate(made), range(_FAR + 1)
    low = min(ends, key=lambda end: abs(float((values <= end).mean()) - black)) if black >= _RARE else 0
    high = min(ends, key=lambda end: abs(float((values >= 255 - end).mean()) - white)) if white >= _RARE else 0
    return low, 255 - high


def read_sketches(task: Task, config: DrawingRecipe, dataset: Path, scratch: Path) -> Sketches:
    """The parts ``train`` and ``valid`` of `dataset`, decoded."""
    import pandas as pd

    from pipelines.data.image_files import takes_images
    from pipelines.training.pictures import decode_part

    labels = pd.read_parquet(dataset / "train.parquet", columns=["label"])["label"]
    classes, spec, column = sorted(set(labels)), config.image.spec(), takes_images(task)
    train, valid = (
        decode_part(dataset / f"{name}.parquet", column, spec, classes, scratch, most)
        for name, most in (("train", config.decoded()), ("valid", 0))
    )
    return Sketches(task=task, train=train, valid=valid, classes=classes, spec=spec, dataset=dataset, column=column)

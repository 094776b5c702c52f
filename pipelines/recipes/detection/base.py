"""What the recipes of every detector share: their settings, how a training begins, and the thresholds at its end."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass as plain
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from contracts.errors import PlatformError
from contracts.images import ImageSpec
from pipelines.recipes.image.base import ImageConfig, write_spec
from pipelines.recipes.text.settings import SplitConfig
from pipelines.task import STRICT, Progress, Task, TaskConfig
from pipelines.training.distributed import group

if TYPE_CHECKING:
    from pipelines.training.scenes import Scenes

_TOLERANCE = 2e-3  # of scores, and of the sides of a box: graphs of convolutions differ by a little between processors


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ThresholdConfig:
    """The score of each class from which on an object is answered, chosen on the validation images.

    miss, alarm: what an object that is not found, and a box without an object, cost; both 0: the highest F1.
    overlap: of two boxes of a class that overlap by more (intersection over union), the worse one is left out.
    """

    miss: Annotated[float, Field(ge=0)] = 0.0
    alarm: Annotated[float, Field(ge=0)] = 0.0
    overlap: Annotated[float, Field(gt=0, lt=1)] = 0.6

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.miss > 0) != (self.alarm > 0):
            raise ValueError("miss and alarm are the two sides of a cost: give both, or none")
        return self


@plain(frozen=True, kw_only=True)
class Labelled:
    """What a recipe learns from; `spec` says how files became these pixels, `column` has them in `dataset`."""

    task: Task
    train: Scenes
    valid: Scenes
    classes: list[str]
    spec: ImageSpec
    dataset: Path
    column: str


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DetectionRecipe(TaskConfig):
    """Base of the recipes of a detector; a subclass has `learn`.

    labels: name in the source -> name of the class, where they differ.
    """

    image: ImageConfig = field(default_factory=lambda: ImageConfig(width=320, height=240, fit="pad"))
    split: SplitConfig = field(default_factory=SplitConfig)
    labels: Mapping[str, str] = field(default_factory=dict)
    thresholds: ThresholdConfig = field(default_factory=ThresholdConfig)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.image.fit == "crop":
            raise ValueError("image.fit is crop, which may cut objects off; expected pad or stretch")
        return self

    def train(self, task: Task, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """Learn from the images; writes the files that `contracts.engines.detector` serves."""
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".pixels-", dir=out.parent) as scratch:
            images = read_labelled(task, self, dataset, Path(scratch))
            found = self.learn(images, out, checkpoints, progress)
        output: dict[str, Any] = {
            "problem": "detection",
            "labels": images.classes,
            "thresholds": [0.5] * len(images.classes),
        }
        made = {"engine": "detector", "output": output, "decision": None, "tolerance": _TOLERANCE, **found}
        if group().leads:
            write_spec(out, images.spec)
            output["thresholds"] = list(self._thresholds(task, dataset, out, made))
        return made

    def decoded(self) -> int:
        """How many of the training images `learn` gets as pixels, evenly from all; 0: all of them."""
        return 0

    def learn(self, images: Labelled, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """Write ``model.onnx``; returns at least ``history``, ``parameters`` and ``device`` of `train`'s result."""
        raise PlatformError(
            f"recipe {self.recipe} cannot train",
            detail=f"its class {type(self).__name__} has no method learn",
            fix="give it one, as the recipes in pipelines/recipes/detection/ have",
            code="bad_task",
        )

    def _thresholds(self, task: Task, dataset: Path, out: Path, made: Mapping[str, Any]) -> tuple[float, ...]:
        """Of what is served, on the validation images."""
        from contracts.engines import load_engine
        from pipelines.evaluation import scoring
        from pipelines.evaluation.detection import best_thresholds, truths_of

        frame = scoring.read_rows(dataset / "valid.parquet")
        bundle = scoring.provisional(out.parent, scoring.fields_of(task, self, made))
        columns = scoring.columns_of(frame, bundle.document.signature.inputs)
        answers = scoring.predict(load_engine(bundle, threads=1), columns, bundle.document)
        labels = made["output"]["labels"]
        return best_thresholds(truths_of(frame), answers, labels, self.thresholds.miss, self.thresholds.alarm)


def read_labelled(task: Task, config: DetectionRecipe, dataset: Path, scratch: Path) -> Labelled:
    """The parts ``train`` and ``valid`` of `dataset`, decoded."""
    import pandas as pd

    from contracts.problems.detection import read_truth
    from pipelines.training.pictures import channel_scale
    from pipelines.training.scenes import decode_scenes

    column = next(item.name for item in task.inputs(config) if item.dtype == "bytes")
    labels = pd.read_parquet(dataset / "train.parquet", columns=["label"])["label"]
    classes = sorted({one.label for text in labels for one in read_truth(text)})
    image = config.image
    spec = ImageSpec(width=image.width, height=image.height, mode=image.mode, fit=image.fit, resample=image.resample)
    train, valid = (
        decode_scenes(dataset / f"{name}.parquet", column, spec, classes, scratch, most)
        for name, most in (("train", config.decoded()), ("valid", 0))
    )
    mean, deviation = channel_scale(train.pixels)
    spec = spec.model_copy(update={"mean": image.mean or mean, "std": image.std or deviation})
    return Labelled(task=task, train=train, valid=valid, classes=classes, spec=spec, dataset=dataset, column=column)

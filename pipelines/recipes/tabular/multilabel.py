"""LightGBM as a recipe of any tabular task whose rows have several labels."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass

from pipelines.task import STRICT, Progress, TaskConfig
from pipelines.training.boosting import LightGBMConfig

if TYPE_CHECKING:
    from pipelines.task import Task


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MultilabelRecipe(TaskConfig):
    """A booster for each label."""

    model: LightGBMConfig = field(default_factory=LightGBMConfig)

    def train(self, task: Task, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """See `pipelines.training.labels.train_labels`."""
        from pipelines.training.labels import train_labels

        labels = task.classes or _labels(dataset)
        return train_labels(dataset, task.inputs(self), labels, self.model, self.seed, out, checkpoints, progress)


def _labels(dataset: Path) -> list[str]:
    """Those of the training rows, sorted."""
    import pandas as pd

    from pipelines.evaluation.multilabel import labels_of

    given = pd.read_parquet(dataset / "train.parquet", columns=["label"])["label"]
    return sorted({name for text in given for name in labels_of(text)})

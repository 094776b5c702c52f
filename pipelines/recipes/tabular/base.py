"""LightGBM and logistic regression as recipes of any tabular task."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass

from pipelines.task import STRICT, Progress, TaskConfig, class_output
from pipelines.training.boosting import LightGBMConfig
from pipelines.training.tabular import CostConfig, LogisticConfig

if TYPE_CHECKING:
    from pipelines.task import Task


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TabularRecipe(TaskConfig):
    """Which model, and what a wrong answer costs."""

    model: LightGBMConfig | LogisticConfig = field(default_factory=LightGBMConfig)
    cost: CostConfig = field(default_factory=CostConfig)

    def train(self, task: Task, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """See `train_tabular`."""
        from pipelines.training.tabular import train_tabular

        classes = task.classes or _classes(dataset)
        inputs = task.inputs(self)
        found = train_tabular(dataset, inputs, classes, self.model, self.cost, self.seed, out, checkpoints, progress)
        return {**found, "output": class_output(task, self, classes)}


def _classes(dataset: Path) -> list[str]:
    """Those of the training rows, sorted."""
    import pandas as pd

    return sorted(pd.read_parquet(dataset / "train.parquet", columns=["label"])["label"].unique())

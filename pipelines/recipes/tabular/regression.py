"""LightGBM as a recipe of any tabular task that predicts a number."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipelines.task import STRICT, Progress, TaskConfig
from pipelines.training.boosting import LightGBMConfig

if TYPE_CHECKING:
    from pipelines.task import Task


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RegressionRecipe(TaskConfig):
    """coverage: share of the true values that an answer's interval holds; None for no interval. unit: of the number."""

    model: LightGBMConfig = field(default_factory=LightGBMConfig)
    coverage: Annotated[float, Field(gt=0, lt=1)] | None = 0.9
    unit: str = ""

    def train(self, task: Task, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """See `pipelines.training.numbers.train_number`."""
        from pipelines.training.numbers import train_number

        inputs = task.inputs(self)
        found = train_number(dataset, inputs, self.model, self.coverage, self.seed, out, checkpoints, progress)
        return {**found, "output": {"problem": "regression", "unit": self.unit, "coverage": self.coverage}}

"""LightGBM, scorecard, logistic regression and a network as recipes of any tabular task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass

from pipelines.federation.settings import FederationConfig
from pipelines.task import STRICT, Progress, TaskConfig, class_output
from pipelines.training.boosting import LightGBMConfig
from pipelines.training.mitigation import Mitigation
from pipelines.training.privacy import PrivacyConfig
from pipelines.training.tabular import AnyModel, CostConfig

if TYPE_CHECKING:
    from pipelines.federation.models import Model
    from pipelines.task import Task


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TabularRecipe(TaskConfig):
    """Which model, what a wrong answer costs, how groups are to be treated alike, and what may be told of a row."""

    model: AnyModel = field(default_factory=LightGBMConfig)
    cost: CostConfig = field(default_factory=CostConfig)
    mitigation: Mitigation = field(default_factory=Mitigation)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    federation: FederationConfig = field(default_factory=FederationConfig)

    def train(self, task: Task, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """See `train_tabular`; with a mitigation, one model for each strength that is tried; or by a federation."""
        from pipelines.training.tradeoff import by_strength

        classes = task.classes or _classes(dataset)
        if self.federation.is_on:
            from pipelines.federation.train import train_federated

            found = train_federated(self, task, classes, dataset, out, checkpoints, progress)
            return {**found, "output": class_output(task, self, classes)}
        if not self.mitigation.is_on:
            found = self._train(task, classes, dataset, out, checkpoints, progress, self.mitigation)
            return {**found, "output": class_output(task, self, classes)}

        def train(one: Mitigation, to: Path, kept: Path) -> dict[str, Any]:
            return self._train(task, classes, dataset, to, kept, progress, one)

        found = by_strength(task, self, classes, dataset, out, checkpoints, train)
        return {**found, "output": class_output(task, self, classes)}

    def federated(self, task: Task, classes: Sequence[str]) -> Model:
        """What sites train together, see `pipelines.federation.models.table_model`."""
        from pipelines.federation.models import table_model

        return table_model(self, task, classes)

    def _train(
        self,
        task: Task,
        classes: Any,
        dataset: Path,
        out: Path,
        checkpoints: Path,
        progress: Progress,
        mitigation: Mitigation,
    ) -> dict[str, Any]:
        from pipelines.training.tabular import train_tabular

        inputs = task.inputs(self)
        return train_tabular(
            dataset,
            inputs,
            classes,
            self.model,
            self.cost,
            self.seed,
            out,
            checkpoints,
            progress,
            mitigation,
            self.privacy,
        )


def _classes(dataset: Path) -> list[str]:
    """Those of the training rows, sorted."""
    import pandas as pd

    return sorted(pd.read_parquet(dataset / "train.parquet", columns=["label"])["label"].unique())

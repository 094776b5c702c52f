"""LightGBM, scorecard, logistic regression and a network as recipes of any tabular task."""

from __future__ import annotations

import json
import shutil
from dataclasses import field, replace
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
        from pipelines.training.tradeoff import chosen_strength, tried

        classes = task.classes or _classes(dataset)
        if self.federation.is_on:
            from pipelines.federation.train import train_federated

            found = train_federated(self, task, classes, dataset, out, checkpoints, progress)
            return {**found, "output": class_output(task, self, classes)}
        if not self.mitigation.is_on:
            found = self._train(task, classes, dataset, out, checkpoints, progress, self.mitigation)
            return {**found, "output": class_output(task, self, classes)}
        asked = self.mitigation
        points: list[dict[str, Any]] = []
        fits: dict[float, dict[str, Any]] = {}
        for method in dict.fromkeys((asked.method, *asked.compare)):
            for strength in sorted({*asked.strengths, asked.strength}):
                one = replace(asked, method=method, strength=strength)
                folder = _tried(checkpoints, one)
                done, model = folder / "done.json", folder / "model"
                if not done.exists():
                    shutil.rmtree(model, ignore_errors=True)
                    fitted = self._train(task, classes, dataset, model, folder / "rounds", progress, one)
                    done.with_suffix(".part").write_text(json.dumps(fitted))
                    done.with_suffix(".part").replace(done)
                found = json.loads(done.read_text())
                if method == asked.method:
                    fits[strength] = found
                points.append({"method": method, **tried(task, self, classes, dataset, model, found, strength)})
        taken = chosen_strength(asked, [one for one in points if one["method"] == asked.method])
        shutil.copytree(_tried(checkpoints, replace(asked, strength=taken)) / "model", out, dirs_exist_ok=True)
        parameters = {**fits[taken]["parameters"], "mitigation": asked.method, "strength": taken}
        tradeoff = {"column": asked.column, "method": asked.method, "points": points, "taken": taken}
        output = class_output(task, self, classes)
        return {**fits[taken], "parameters": parameters, "output": output, "tradeoff": tradeoff}

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


def _tried(checkpoints: Path, one: Mitigation) -> Path:
    """Where the model of one method and strength is kept."""
    return checkpoints / f"{one.method}-{one.strength:g}"


def _classes(dataset: Path) -> list[str]:
    """Those of the training rows, sorted."""
    import pandas as pd

    return sorted(pd.read_parquet(dataset / "train.parquet", columns=["label"])["label"].unique())

"""Is a bill far above what the guest usually pays?"""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Any, ClassVar

from pydantic.dataclasses import dataclass

from contracts.bundle import Input
from pipelines.recipes.tabular.base import TabularRecipe
from pipelines.recipes.tabular.task import SplitConfig, TabularTask
from pipelines.task import STRICT, Column, GateConfig, Progress, TaskConfig, Threshold
from pipelines.training.tabular import LogisticConfig


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VisitsConfig(TabularRecipe):
    """A recipe of the task."""

    split: SplitConfig = field(default_factory=SplitConfig)


_GATE = GateConfig(thresholds=(Threshold(metric="roc_auc", minimum=0.9),))


class Visits(TabularTask):
    """Visits to a restaurant."""

    name, title, label, id, timestamp = "visits", "Does the guest celebrate?", "celebrates", "visit", "at"
    columns = (
        Column(name="visit", dtype="string", unique=True),
        Column(name="at", dtype="timestamp"),
        Column(name="guest", dtype="string"),
        Column(name="amount", dtype="float64", minimum=0),
        Column(name="celebrates", dtype="string", categories=("no", "yes")),
    )
    entities, classes, feature_service, features = ("guest",), ("no", "yes"), "visits_v1", ("past_mean",)
    default_recipe = "logistic"
    recipes: ClassVar[dict[str, TaskConfig]] = {
        "logistic": VisitsConfig(recipe="logistic", gate=_GATE, model=LogisticConfig())
    }

    def inputs(self, config: Any) -> list[Input]:
        return [*super().inputs(config), Input(name="amount_to_mean", dtype="float64", source="on_demand")]

    def request(self, config: Any) -> list[Input]:
        return [Input(name="amount", dtype="float64", minimum=0)]

    def write_features(self, clean: Path, out: Path, progress: Progress) -> None:
        import pandas as pd

        rows = pd.concat(map(pd.read_parquet, sorted(clean.glob("part-*.parquet")))).sort_values("at")
        groups = rows.groupby("guest")["amount"]
        mean = groups.cumsum() / (groups.cumcount() + 1)
        known = rows["at"] + pd.Timedelta(microseconds=1)
        history = pd.DataFrame({"guest": rows["guest"], "known_at": known, "past_mean": mean})
        history.to_parquet(out / "visits_past.parquet", index=False)
        progress(1, 1)


TASK = Visits()

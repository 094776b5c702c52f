"""The task, and the recipe for every task with counts."""

from __future__ import annotations

import json
from dataclasses import field
from pathlib import Path
from typing import Any, ClassVar

from pydantic.dataclasses import dataclass

from pipelines.recipes.tabular.task import SplitConfig, TabularTask
from pipelines.task import STRICT, Column, GateConfig, Progress, TaskConfig, Threshold


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StepsRecipe(TaskConfig):
    """candidates: sizes that one more may take; that which is most often right is taken."""

    candidates: tuple[float, ...]
    split: SplitConfig = field(default_factory=SplitConfig)

    def train(self, task: Any, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        import pandas as pd

        rows = pd.read_parquet(dataset / "train.parquet")
        true = rows["label"]
        right = {step: float((rows["size"] // step == true).mean()) for step in self.candidates}
        best = max(right, key=lambda step: right[step])
        out.mkdir(parents=True, exist_ok=True)
        (out / "steps.json").write_text(json.dumps({"step": best}))
        output = {"problem": "counts", "most": int(true.max())}
        parameters = {"step": best, "right": right[best]}
        return {
            "engine": "steps", "output": output, "decision": None, "history": [], "parameters": parameters,
            "device": "cpu",
        }  # fmt: skip


class Beds(TabularTask):
    """Beds of a house."""

    name, title, label, problem = "beds", "How many beds has the house?", "beds", "counts"
    id, default_recipe, slices = "house", "coarse", ("place",)
    columns = (
        Column(name="house", dtype="string", unique=True),
        Column(name="size", dtype="float64", minimum=0),
        Column(name="place", dtype="string", categories=("city", "lake")),
        Column(name="beds", dtype="int64", minimum=0),
    )
    recipes: ClassVar[dict[str, TaskConfig]] = {
        "coarse": StepsRecipe(
            recipe="coarse",
            candidates=(20.0, 40.0, 60.0),
            gate=GateConfig(thresholds=(Threshold(metric="exact", minimum=0.8),)),
        )
    }


def fine(task: Any) -> TaskConfig | None:
    """More candidates, and the gate of the task."""
    if getattr(task, "problem", "") != "counts":
        return None
    gate = task.recipes[task.default_recipe].gate
    return StepsRecipe(recipe="fine", candidates=tuple(map(float, range(20, 61))), gate=gate)


TASK = Beds()

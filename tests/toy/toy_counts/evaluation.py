"""What counts are measured by; the rest is that of numbers."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pipelines.evaluation.base import Measure, MetricNames
from pipelines.evaluation.regression import Regression, numbers_of

if TYPE_CHECKING:
    import pandas as pd


class CountsEvaluation(Regression):
    """The column ``label`` is a number."""

    problem, usual, higher = "counts", "exact", frozenset({"exact"})
    titles: ClassVar = {"exact": "Counts that are exactly right"}

    def metric_names(self, task: Any, config: Any) -> MetricNames:
        return MetricNames(whole=("exact", "mae"))

    def measure_for(
        self, frame: pd.DataFrame, answers: Any, output: Any, decision: Any, only: Collection[str] | None = None
    ) -> Measure:
        import numpy as np

        apart = np.abs(answers[:, 0] - numbers_of(frame["label"]))

        def measure(weight: Any = None) -> dict[str, float]:
            return {
                "exact": float(np.average(apart == 0, weights=weight)),
                "mae": float(np.average(apart, weights=weight)),
            }

        return measure

    def draw(self, folder: Path, frame: Any, answers: Any, output: Any, decision: Any, result: Any) -> None:
        from pipelines.evaluation.number_plots import predicted_and_true

        predicted_and_true(folder / "predicted_and_true.png", numbers_of(frame["label"]), answers, "")

    def baseline(self, output: Any, answers: Any) -> dict[str, Any]:
        from contracts.baseline import numbers

        return {"scores": {"count": numbers(answers[:, 0])}}

    def batch(self, output: Any, decision: Any) -> Any:
        from contracts.problems.regression import RegressionOutput

        return super().batch(RegressionOutput(), decision)

    def answers_text(self, document: Any) -> str:
        return f"Answers a count up to {document.signature.output.most}."


EVALUATION = CountsEvaluation()

"""Regression: a number for each row, and where the model gives one, the interval that it lies in."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pipelines.evaluation.base import Batch, Evaluation, Measure, MetricNames
from pipelines.evaluation.parts import spread_rows
from pipelines.formatting import number

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from contracts.bundle import BundleDocument
    from contracts.problems.regression import RegressionOutput

METRICS = ("mae", "rmse", "r2", "median_error", "mape", "bias")
OF_INTERVALS = ("coverage", "width", "pinball")  # measured where the model gives intervals
_INTERVAL = ("value", "low", "high")
_PAIRED = 2000  # rows that are compared with each other


class Regression(Evaluation):
    """Answers are numbers, shape (rows, 1), or (rows, 3) with the interval; the column ``label`` is a number."""

    problem = "regression"
    explained_in = "its unit"
    usual = "mae"
    higher = frozenset({"r2", "coverage"})
    titles: ClassVar = {
        "mae": "Mean absolute error",
        "rmse": "Root mean squared error",
        "r2": "R²",
        "median_error": "Median absolute error",
        "mape": "Mean absolute percentage error",
        "bias": "Mean error",
        "coverage": "True values in their interval",
        "width": "Mean width of the interval",
        "pinball": "Pinball loss of the interval's ends",
    }
    plots = ("predicted_and_true", "residuals", "learning_curve")
    association = "concordance"
    two_kinds = "different numbers"

    def labels(self, values: pd.Series[Any]) -> pd.Series[Any]:
        """Numbers."""
        return values.astype("float64")

    def metric_names(self, task: Any, config: Any) -> MetricNames:
        """Whether there are intervals is known when the model is trained."""
        return MetricNames(whole=(*METRICS, *OF_INTERVALS))

    def measure_for(
        self,
        frame: pd.DataFrame,
        answers: Any,
        output: RegressionOutput,
        decision: Any,
        only: Collection[str] | None = None,
    ) -> Measure:
        """See `pipelines.evaluation.number_measures.regression`."""
        from pipelines.evaluation.number_measures import regression

        return regression(numbers_of(frame["label"]), answers, output.coverage)

    def rows_text(self, result: Mapping[str, Any]) -> str:
        """Mean and deviation."""
        target = result["target"]
        return f"mean {number(target['mean'])}, deviation {number(target['deviation'])}"

    def associate(self, codes: NDArray[np.int64], label: NDArray[Any], fit: NDArray[np.bool_]) -> float | None:
        """The share of pairs of rows whose order the column tells: the area under the ROC curve, of numbers."""
        import numpy as np

        y = numbers_of(label)
        sums = np.bincount(codes[fit], weights=y[fit], minlength=codes.max() + 1)
        counts = np.bincount(codes[fit], minlength=codes.max() + 1)
        said = ((sums + y[fit].mean()) / (counts + 1))[codes[~fit]][:_PAIRED]
        true = y[~fit][:_PAIRED]
        apart = true[:, None] > true[None, :]
        if not apart.any():
            return None
        difference = said[:, None] - said[None, :]
        right = float(((difference > 0) & apart).sum() + ((difference == 0) & apart).sum() / 2)
        share = right / float(apart.sum())
        return max(share, 1 - share)

    def draw(
        self, folder: Path, frame: pd.DataFrame, answers: Any, output: RegressionOutput, decision: Any, result: Any
    ) -> None:
        """Predicted against true numbers, and how the errors are distributed."""
        from pipelines.evaluation import number_plots

        true, unit = numbers_of(frame["label"]), f" ({output.unit})" if output.unit else ""
        number_plots.predicted_and_true(folder / "predicted_and_true.png", true, answers, unit)
        number_plots.residuals(folder / "residuals.png", answers[:, 0] - true, unit)

    def curves(self, frame: pd.DataFrame, answers: Any, output: RegressionOutput, decision: Any) -> dict[str, Any]:
        """``target``: the distribution of the true numbers."""
        from contracts.baseline import numbers

        return {"target": numbers(numbers_of(frame["label"]))}

    def golden_rows(self, output: RegressionOutput, answers: Any, most: int) -> NDArray[np.int64]:
        """Over the predicted numbers."""
        return spread_rows(answers[:, 0], most)

    def baseline(self, output: RegressionOutput, answers: Any) -> dict[str, Any]:
        """``scores``: deciles of the predicted numbers, and of the width of their intervals."""
        from contracts.baseline import numbers

        found = {"value": numbers(answers[:, 0])}
        if output.coverage is not None:
            found["width"] = numbers(answers[:, 2] - answers[:, 1])
        return {"scores": found}

    def watched(self, output: RegressionOutput, decision: Any, answers: Any) -> dict[str, NDArray[Any]]:
        """The number, and the width of its interval."""
        width = {"width": answers[:, 2] - answers[:, 1]} if answers.shape[1] == len(_INTERVAL) else {}
        return {"answer": answers[:, 0], **width}

    def explained(
        self, output: RegressionOutput, decision: Any, answers: Any, like: Any, alone: bool
    ) -> NDArray[np.float64]:
        """The number itself."""
        found: NDArray[np.float64] = answers[:, 0]
        return found

    def expected(self, frame: pd.DataFrame, answers: Any) -> dict[str, Any]:
        """``residuals``: the mean error, and the mean square of it, of answers alike; see `services.problems`."""
        from pipelines.evaluation.number_measures import residuals

        return {"residuals": residuals(numbers_of(frame["label"]), answers)}

    def batch(self, output: RegressionOutput, decision: Any) -> Batch:
        """The number, and the ends of its interval."""
        return _Batch(output)

    def batch_table(self, summary: Mapping[str, Any]) -> tuple[Sequence[str], Iterable[Sequence[str]]]:
        """Where the numbers lie."""
        return ("predicted", "number"), [(name, number(value)) for name, value in summary["values"].items()]

    def answers_text(self, document: BundleDocument) -> str:
        """The unit and the interval."""
        output: Any = document.signature.output
        unit = f" in {output.unit}" if output.unit else ""
        between = "" if output.coverage is None else f", and the interval of {output.coverage:.0%} of the true values"
        return f"Answers a number{unit}{between}."


class _Batch(Batch):
    def __init__(self, output: RegressionOutput) -> None:
        self.columns = [f"{name}_predicted" for name in output.names()]
        self._rows, self._sum = 0, 0.0
        self._low, self._high = float("inf"), float("-inf")

    def add(self, answers: Any) -> list[Any]:
        import pyarrow as pa

        if len(answers):
            value = answers[:, 0]
            self._rows, self._sum = self._rows + len(value), self._sum + float(value.sum())
            self._low, self._high = min(self._low, float(value.min())), max(self._high, float(value.max()))
        return [pa.array(answers[:, at]) for at in range(len(self.columns))]

    def document(self) -> dict[str, Any]:
        if not self._rows:
            return {"values": {}}
        return {"values": {"mean": self._sum / self._rows, "minimum": self._low, "maximum": self._high}}


def numbers_of(label: Any) -> NDArray[np.float64]:
    """The true numbers."""
    import numpy as np

    return np.asarray(label, dtype=np.float64)


EVALUATION = Regression()

"""Regression: rows are counted; their values are observed in a histogram with the scale of the golden examples."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from contracts.metric_names import VALUE
from services.problems.base import Count, Distribution, Series, Serving

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from contracts.bundle import Golden
    from contracts.problems.regression import RegressionOutput
    from services.problems.measures import Measure

_LABEL = "value"
_TENTHS = 10


class RegressionServing(Serving):
    """See `services.problems.base.Serving`; a decision is the value."""

    def labels(self, output: RegressionOutput) -> Sequence[str]:
        """One for all rows."""
        return (_LABEL,)

    def distribution(self, output: RegressionOutput, golden: Sequence[Golden]) -> Distribution:
        """Of the value; edges are the deciles of the golden examples, and their range once more on both sides."""
        return Distribution(
            name=VALUE,
            text="Predicted value" + (f", in {output.unit}." if output.unit else "."),
            edges=edges([float(one.expected[0]) for one in golden]),
        )

    def count(self, answers: Any, decided: Sequence[float], labels: Mapping[str, Count], observed: Series) -> None:
        """Each row and its value."""
        for value in decided:
            labels[_LABEL].inc()
            observed.observe(value)

    def record(self, answers: NDArray[np.float64], decided: Sequence[float], row: int) -> dict[str, Any]:
        """The value, and its interval where there is one."""
        value, *interval = answers[row].tolist()
        return {"value": value, "interval": interval} if interval else {"value": value}

    def label_schema(self, output: RegressionOutput) -> dict[str, Any]:
        """A number."""
        return {"type": "number", **({"description": f"in {output.unit}"} if output.unit else {})}

    def label(self, output: RegressionOutput, value: Any) -> float:
        """A finite number."""
        if type(value) not in (int, float) or not math.isfinite(value):
            raise ValueError("expected a finite number")
        return float(value)

    def label_of_text(self, output: RegressionOutput, text: str) -> float:
        """A finite number, with a point."""
        try:
            return self.label(output, float(text))
        except ValueError:
            raise ValueError("expected a finite number") from None

    def is_right(self, recorded: Mapping[str, Any], label: Any, metrics: Mapping[str, float]) -> bool | None:
        """Whether it is no further off than the bundle's mean absolute error."""
        usual = metrics.get("mae")
        return None if usual is None else bool(abs(recorded["value"] - label) <= usual)

    def parameters(self, output: RegressionOutput) -> dict[str, Any]:
        """Unit and coverage."""
        return output.model_dump()

    def summary(self, output: RegressionOutput) -> str:
        """A number, its unit, its interval."""
        unit = f" in {output.unit}" if output.unit else ""
        return f"a number{unit}" + (f", with an interval of {output.coverage:.0%}" if output.coverage else "")

    def answers(self, output: RegressionOutput, documents: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
        """Value and interval."""
        import numpy as np

        return np.array([[one["value"], *one.get("interval", ())] for one in documents])

    def measure(
        self, output: RegressionOutput, decision: Any, answers: Sequence[Mapping[str, Any]], labels: Sequence[float]
    ) -> Measure:
        """Errors of the values."""
        import numpy as np

        from services.problems import measures

        said = np.array([one["value"] for one in answers], dtype=np.float64)
        return measures.numbers(np.array(labels, dtype=np.float64), said)

    def expected(
        self, output: RegressionOutput, decision: Any, record: Mapping[str, Any], baseline: Mapping[str, Any]
    ) -> dict[str, float]:
        """The error that answers like this one had in the evaluation; {} of bundles that do not say it.

        Alike are answers whose interval is as wide, or whose value is as large where there are no intervals: direct
        loss estimation (W. Kuberski: Direct loss estimation, NannyML 2022) with a table in the model's place.
        """
        if not (table := baseline.get("residuals")):
            return {}
        low, high = record["interval"] if table["by"] == "width" else (0.0, record["value"])
        at = min(bisect_right(table["edges"], high - low), len(table["absolute"]) - 1)
        return {"rows": 1.0, "absolute": table["absolute"][at], "square": table["square"][at]}

    def estimate(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Mean absolute and root mean squared error."""
        if "absolute" not in sums:
            return {}
        return {"mae": sums["absolute"] / sums["rows"], "rmse": (sums["square"] / sums["rows"]) ** 0.5}

    def watched(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The value, and the width of its interval."""
        found = {"answer": record.get("value")}
        if interval := record.get("interval"):
            found["width"] = interval[1] - interval[0]
        return found

    def normal(self, output: RegressionOutput, decision: Any, baseline: Mapping[str, Any]) -> dict[str, Any]:
        """Of both; older bundles have them among their scores."""
        if found := super().normal(output, decision, baseline):
            return found
        scores = baseline.get("scores", {})
        names = {"answer": "value", "width": "width"}
        return {name: {"kind": "number", **scores[key]} for name, key in names.items() if key in scores}


def edges(values: Sequence[float]) -> tuple[float, ...]:
    """Upper edges of a histogram that shows how `values` are spread, in numbers of few digits.

    Below zero only where values are: a histogram with negative edges has no sum in Prometheus.
    """
    if not values:
        return ()
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    span = high - low or abs(high) or 1.0
    lowest = low - span if low < 0 else max(0.0, low - span)
    last = len(ordered) - 1
    deciles = [ordered[round(last * at / _TENTHS)] for at in range(_TENTHS + 1)]
    digits = 2 - math.floor(math.log10(span))
    return tuple(sorted({round(value, digits) for value in (lowest, *deciles, high + span)}))


SERVING = RegressionServing()

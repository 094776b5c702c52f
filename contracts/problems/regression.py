"""Regression: a number, and where the model gives one, the interval that it lies in with a known probability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field, create_model

from contracts.problems.base import Output, Problem, Tensor, numbers_differ, shape_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PARTS = ("value", "low", "high")


class RegressionOutput(Output):
    """Attributes: coverage: share of the true values that lie in the interval; None: no interval is given."""

    problem: Literal["regression"] = "regression"
    unit: str = ""
    coverage: float | None = Field(None, gt=0, lt=1)

    def names(self) -> tuple[str, ...]:
        """What each row of the answers holds, in this order."""
        return _PARTS if self.coverage is not None else _PARTS[:1]


class Regression(Problem["NDArray[np.float64]"]):
    """Answers are numbers, float64, shape (rows, 1), or (rows, 3) with the interval; a decision is the value."""

    name = "regression"
    output = RegressionOutput

    def wrong(self, output: RegressionOutput, answers: NDArray[np.float64], rows: int) -> str:
        """One number per row, or three, in order: low, value, high."""
        if wrong := shape_of(answers, rows, len(output.names()), "one number per example, or three with an interval"):
            return wrong
        if output.coverage is None:
            return ""
        ordered = bool(((answers[:, 1] <= answers[:, 0]) & (answers[:, 0] <= answers[:, 2])).all())
        return "" if ordered else "a value is not in its interval"

    def expected(self, output: RegressionOutput, answers: NDArray[np.float64], row: int) -> list[float]:
        """The number, and the ends of its interval."""
        return [float(value) for value in answers[row]]

    def differs(
        self, output: RegressionOutput, expected: Sequence[float], answers: Any, row: int, tolerance: float
    ) -> str:
        """`tolerance` is relative to the expected number where that is greater than one."""
        scale = max(1.0, *(abs(value) for value in expected)) if expected else 1.0
        return numbers_differ(output.names(), expected, answers[row].tolist(), tolerance * scale, "numbers")

    def decide(self, output: RegressionOutput, decision: Any, answers: NDArray[np.float64]) -> list[float]:
        """The value of each row."""
        found: list[float] = answers[:, 0].tolist()
        return found

    def documents(
        self, output: RegressionOutput, decision: Any, answers: Any, decided: Sequence[float]
    ) -> list[dict[str, Any]]:
        """Value, and its interval."""
        made = []
        for row in answers.tolist():
            one: dict[str, Any] = {"value": row[0]}
            if output.coverage is not None:
                one["interval"] = [row[1], row[2]]
            made.append(one)
        return made

    def answer_model(self, output: RegressionOutput) -> type[BaseModel]:
        """With the interval where the model gives one."""
        unit = f"in {output.unit}" if output.unit else "the predicted number"
        fields: dict[str, Any] = {"value": (float, Field(description=unit))}
        if output.coverage is not None:
            text = f"low and high; {output.coverage:.0%} of the true values lie inside"
            fields["interval"] = (tuple[float, float], Field(description=text))
        return create_model("Prediction", **fields)

    def tensors(self, output: RegressionOutput) -> list[Tensor]:
        """The value, and the ends of its interval."""
        return [Tensor(name=name, datatype="FP64") for name in output.names()]

    def values(self, output: RegressionOutput, name: str, answers: Any, decided: Sequence[float]) -> list[Any]:
        """One of them."""
        found: list[Any] = answers[:, output.names().index(name)].tolist()
        return found


PROBLEM = Regression()

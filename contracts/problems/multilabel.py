"""Multilabel classification: any number of labels, each with a probability of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, Field, create_model, model_validator

from contracts.problems.base import (
    Output,
    Probability,
    Problem,
    Tensor,
    check_unique,
    list_of,
    numbers_differ,
    shape_of,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SEPARATOR = "|"  # between the labels of a row, in data and in tensors


class MultilabelOutput(Output):
    """Attributes: thresholds: a label is given from this probability on, one for each label; empty: 0.5 for all."""

    problem: Literal["multilabel"] = "multilabel"
    labels: list[str] = Field(min_length=1)
    thresholds: list[float] = Field([])

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_unique(self.labels, "label")
        if self.thresholds and len(self.thresholds) != len(self.labels):
            raise ValueError(f"{len(self.thresholds)} thresholds for {len(self.labels)} labels")
        if wrong := [label for label in self.labels if SEPARATOR in label]:
            raise ValueError(f"label {wrong[0]!r} has the sign that separates labels: {SEPARATOR}")
        return self

    def limits(self) -> list[float]:
        """The threshold of each label."""
        return self.thresholds or [0.5] * len(self.labels)


class Multilabel(Problem["NDArray[np.float64]"]):
    """Answers are probabilities, float64, shape (rows, labels); a decision is the list of the labels given."""

    name = "multilabel"
    output = MultilabelOutput

    def wrong(self, output: MultilabelOutput, answers: NDArray[np.float64], rows: int) -> str:
        """One probability per row and label, from 0 to 1."""
        if wrong := shape_of(answers, rows, len(output.labels), "one probability per example and label"):
            return wrong
        inside = not rows or bool(((answers >= 0) & (answers <= 1)).all())
        return "" if inside else "a probability is not from 0 to 1"

    def expected(self, output: MultilabelOutput, answers: NDArray[np.float64], row: int) -> list[float]:
        """The probabilities, in the order of the labels."""
        return [float(value) for value in answers[row]]

    def differs(
        self, output: MultilabelOutput, expected: Sequence[float], answers: Any, row: int, tolerance: float
    ) -> str:
        """By the first label whose probability is another."""
        names = [f"label {name}" for name in output.labels]
        return numbers_differ(names, expected, answers[row].tolist(), tolerance, "probabilities")

    def decide(self, output: MultilabelOutput, decision: Any, answers: NDArray[np.float64]) -> list[list[str]]:
        """The labels of each row whose probability reaches their threshold."""
        limits = output.limits()
        return [
            [label for label, value, limit in zip(output.labels, row, limits, strict=True) if value >= limit]
            for row in answers.tolist()
        ]

    def documents(
        self, output: MultilabelOutput, decision: Any, answers: Any, decided: Sequence[list[str]]
    ) -> list[dict[str, Any]]:
        """The labels, and the probability of each."""
        return [
            {"labels": labels, "probabilities": dict(zip(output.labels, row, strict=True))}
            for labels, row in zip(decided, answers.tolist(), strict=True)
        ]

    def answer_model(self, output: MultilabelOutput) -> type[BaseModel]:
        """`labels` are some of the output's."""
        return create_model(
            "Prediction",
            labels=(list_of(output.labels), ...),
            probabilities=(dict[str, Probability], Field(description="of each label; they need not sum to one")),
        )

    def tensors(self, output: MultilabelOutput) -> list[Tensor]:
        """Probabilities, and the labels as one text, separated by `SEPARATOR`."""
        return [
            Tensor(name="probabilities", datatype="FP64", shape=(len(output.labels),)),
            Tensor(name="labels", datatype="BYTES"),
        ]

    def values(self, output: MultilabelOutput, name: str, answers: Any, decided: Sequence[list[str]]) -> list[Any]:
        """Of the two tensors."""
        if name == "labels":
            return [SEPARATOR.join(labels) for labels in decided]
        found: list[Any] = answers.ravel().tolist()
        return found


PROBLEM = Multilabel()

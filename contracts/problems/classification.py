"""Classification: one of two or more classes, with a probability for each; rows of the answers sum to one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, Field, create_model, model_validator

from contracts.document import Document
from contracts.problems.base import Output, Probability, Problem, Tensor, check_unique, numbers_differ, one_of, shape_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SUM = 1e-3  # as far as half precision may be off


class ByGroup(Document):
    """Thresholds of groups, for batches that say the group of each row; requests have none.

    Attributes:
        column: the kind of group.  thresholds: by group; others have the common one.  reason: why there are any.
    """

    column: str
    thresholds: dict[str, float]
    reason: str


class Decision(Document):
    """How probabilities become a label; binary tasks only: positive when p >= threshold."""

    positive: str
    threshold: float
    false_positive_cost: float
    false_negative_cost: float | str
    refer: tuple[float, float] | None = Field(None, description="a person decides from the first to below the second")
    by_group: ByGroup | None = Field(None, description="for batches with a table of groups; requests have none")


class ClassificationOutput(Output):
    """Attributes: ordered: the classes are a scale, from the lowest to the highest."""

    problem: Literal["classification"] = "classification"
    classes: list[str] = Field(min_length=2)
    ordered: bool = False

    @model_validator(mode="after")
    def _unique(self) -> Self:
        check_unique(self.classes, "class")
        return self


class Classification(Problem["NDArray[np.float64]"]):
    """Answers are probabilities, float64, shape (rows, classes); a decision is (label, score)."""

    name = "classification"
    output = ClassificationOutput

    def wrong(self, output: ClassificationOutput, answers: NDArray[np.float64], rows: int) -> str:
        """One probability per row and class, each row summing to one."""
        if wrong := shape_of(answers, rows, len(output.classes), "one probability per example and class"):
            return wrong
        off = abs(answers.sum(axis=1) - 1.0)
        return (
            "" if not rows or float(off.max()) <= _SUM else f"probabilities of row {int(off.argmax())} do not sum to 1"
        )

    def exact(self, output: ClassificationOutput, answers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Rows that sum to one: sums of float32 are off by 1e-7."""
        total: NDArray[np.float64] = answers.sum(axis=1, keepdims=True)
        return answers / total

    def expected(self, output: ClassificationOutput, answers: NDArray[np.float64], row: int) -> list[float]:
        """The probabilities, in the order of the classes."""
        return [float(value) for value in answers[row]]

    def differs(
        self,
        output: ClassificationOutput,
        expected: Sequence[float],
        answers: NDArray[np.float64],
        row: int,
        tolerance: float,
    ) -> str:
        """By the first class whose probability is another."""
        names = [f"class {name}" for name in output.classes]
        return numbers_differ(names, expected, answers[row].tolist(), tolerance, "probabilities")

    def decide(
        self, output: ClassificationOutput, decision: Decision | None, answers: NDArray[np.float64]
    ) -> list[tuple[str, float]]:
        """The label of each row, and the probability of the positive class, or of the label without a `decision`."""
        if len(answers) == 1:
            return [_decide_one(output.classes, decision, answers.tolist()[0])]
        classes = output.classes
        if decision is None:
            best = answers.argmax(axis=1).tolist()
            scores = answers.max(axis=1).tolist()
            return [(classes[at], score) for at, score in zip(best, scores, strict=True)]
        positive = classes.index(decision.positive)
        found: list[float] = answers[:, positive].tolist()
        if len(classes) == 2:
            names = (classes[1 - positive], classes[positive])
            return [(names[score >= decision.threshold], score) for score in found]
        return [_decide_one(classes, decision, row) for row in answers.tolist()]

    def documents(
        self,
        output: ClassificationOutput,
        decision: Decision | None,
        answers: NDArray[np.float64],
        decided: Sequence[tuple[str, float]],
    ) -> list[dict[str, Any]]:
        """Label, its probability or the positive class's, and all probabilities."""
        classes, given = output.classes, {} if decision is None else {"threshold": decision.threshold}
        found: list[dict[str, Any]] = [
            {"label": label, "probability": score, "probabilities": dict(zip(classes, values, strict=True)), **given}
            for (label, score), values in zip(decided, answers.tolist(), strict=True)
        ]
        if decision is not None and decision.refer is not None:
            low, high = decision.refer
            for one in found:
                one["refer"] = low <= one["probability"] < high
        return found

    def answer_model(self, output: ClassificationOutput) -> type[BaseModel]:
        """`label` is one of the classes."""
        of_class: Any = dict.fromkeys(output.classes, (Probability, ...))
        return create_model(
            "Prediction",
            label=(one_of(output.classes), ...),
            probability=(Probability, Field(description="of the positive class, or of the label without a decision")),
            probabilities=(create_model("Probabilities", **_aliased(of_class)), ...),
            threshold=(Probability | None, Field(None, description="the label is the positive class from here on")),
            refer=(bool | None, Field(None, description="whether a person is to decide; only of models that refer")),
        )

    def tensors(self, output: ClassificationOutput) -> list[Tensor]:
        """Probabilities, and the label."""
        return [
            Tensor(name="probabilities", datatype="FP64", shape=(len(output.classes),)),
            Tensor(name="label", datatype="BYTES"),
        ]

    def values(
        self,
        output: ClassificationOutput,
        name: str,
        answers: NDArray[np.float64],
        decided: Sequence[tuple[str, float]],
    ) -> list[Any]:
        """Of the two tensors."""
        if name == "label":
            return [label for label, _ in decided]
        found: list[Any] = answers.ravel().tolist()
        return found


def _aliased(fields: dict[str, Any]) -> dict[str, Any]:
    """Classes may have any name; fields of a pydantic model are named otherwise and have it as an alias."""
    return {f"field_{at}": (kind, Field(alias=name)) for at, (name, (kind, _)) in enumerate(fields.items())}


def _decide_one(classes: Sequence[str], decision: Decision | None, row: Sequence[float]) -> tuple[str, float]:
    """The decision of one row, in a tenth of the time that arrays take."""
    if decision is None:
        best = max(row)
        return classes[row.index(best)], best
    positive = classes.index(decision.positive)
    score = row[positive]
    if score >= decision.threshold:
        return classes[positive], score
    if len(row) == 2:
        return classes[1 - positive], score
    rest = [(value, -at) for at, value in enumerate(row) if at != positive]
    return classes[-max(rest)[1]], score


PROBLEM = Classification()

"""What a problem is: the kind of output that a model has, in the words that every layer shares.

A problem has one definition in each layer, found by its name and imported when it is needed:

    contracts/problems/<name>.py    the output in the signature, answers of an engine, comparison, JSON, tensors
    services/problems/<name>.py     how an answer is encoded, counted and logged
    pipelines/evaluation/<name>.py  measures, plots, the card, the baseline, what batch scoring writes
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, Field

from contracts.document import Document

Answers = TypeVar("Answers")  # what an engine says about rows: an array, or a list, of as many rows

Probability = Annotated[float, Field(ge=0, le=1)]


class Output(Document):
    """What a model says about each row: part of the signature. Subclasses fix `problem` and add what they need."""

    problem: str


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """An output tensor of the Open Inference Protocol: `shape` is that of one row, () for a single value."""

    name: str
    datatype: str
    shape: tuple[int, ...] = ()


class Problem(ABC, Generic[Answers]):
    """One kind of output. Stateless: what differs between models is in their `Output`.

    Attributes:
        name: as it stands in the signature.
        output: the model of the signature's output part.
        serving, evaluation: modules that have the other layers' parts; "" are those of this name here.
    """

    name: ClassVar[str]
    output: ClassVar[type[Output]]
    serving: ClassVar[str] = ""
    evaluation: ClassVar[str] = ""

    @abstractmethod
    def wrong(self, output: Any, answers: Answers, rows: int) -> str:
        """What is wrong with the form of an engine's answers to `rows` rows; "" when nothing is."""

    @abstractmethod
    def expected(self, output: Any, answers: Answers, row: int) -> Any:
        """The answer to a row as JSON values: what a golden example holds."""

    @abstractmethod
    def differs(self, output: Any, expected: Any, answers: Answers, row: int, tolerance: float) -> str:
        """How the answer to a row differs from what `expected` gave, beyond `tolerance`; "" when it does not."""

    @abstractmethod
    def decide(self, output: Any, decision: Any, answers: Answers) -> list[Any]:
        """What follows from the answer to each row, such as its label; the form belongs to the problem."""

    @abstractmethod
    def documents(self, output: Any, decision: Any, answers: Answers, decided: Sequence[Any]) -> list[dict[str, Any]]:
        """The answer to each row as ``/predict`` gives it: JSON values; `answer_model` describes them."""

    @abstractmethod
    def answer_model(self, output: Any) -> type[BaseModel]:
        """The pydantic model of one row's document, for OpenAPI."""

    @abstractmethod
    def tensors(self, output: Any) -> list[Tensor]:
        """The output tensors of the Open Inference Protocol, in the order in which they are answered."""

    @abstractmethod
    def values(self, output: Any, name: str, answers: Answers, decided: Sequence[Any]) -> list[Any]:
        """The values of tensor `name`, all rows one after another."""

    def exact(self, output: Any, answers: Answers) -> Answers:
        """The answers of a graph of lower precision as the problem has them, such as sums of one."""
        return answers

    def join(self, parts: Sequence[Answers]) -> Answers:
        """Answers to several groups of rows as one, in their order; arrays unless the problem says otherwise."""
        import numpy as np

        joined: Any = np.concatenate([np.asarray(part) for part in parts])
        found: Answers = joined
        return found

    def part(self, answers: Answers, start: int, end: int) -> Answers:
        """The answers to the rows from `start` to `end`."""
        return answers[start:end]  # type: ignore[index, no-any-return]


def shape_of(answers: Any, rows: int, width: int, what: str) -> str:
    """What is wrong with an array that should have shape (rows, width)."""
    found = getattr(answers, "shape", None)
    return "" if found == (rows, width) else f"the model gives {found}, not {what}: {(rows, width)}"


def numbers_differ(
    names: Sequence[str], expected: Sequence[float], got: Sequence[float], tolerance: float, what: str
) -> str:
    """The first number that is further from the expected one than `tolerance`, by its name; "" when none is."""
    if len(expected) != len(names):
        return f"has {len(expected)} {what}, not {len(names)}"
    for name, wanted, value in zip(names, expected, got, strict=True):
        if not abs(value - wanted) <= tolerance:
            return f"{name}: expected {wanted:.6g}, got {value:.6g}, tolerance {tolerance:g}"
    return ""


def one_of(names: Sequence[str]) -> Any:
    """The type of a text that is one of `names`."""
    return Literal[tuple(names)]


def list_of(names: Sequence[str]) -> Any:
    """The type of a list of texts that are among `names`."""
    return list[one_of(names)]  # type: ignore[misc]


def check_unique(names: Sequence[str], what: str) -> None:
    """Refuse names that stand twice.

    Raises:
        ValueError: naming the first.
    """
    counts: Mapping[str, int] = {name: names.count(name) for name in names}
    if twice := [name for name, count in counts.items() if count > 1]:
        raise ValueError(f"{what} {twice[0]!r} stands twice")

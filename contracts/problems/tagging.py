"""Tagging: any number of spans of a text, each of a type: names, places, organisations, or whatever was labelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, StringConstraints, create_model, model_validator

from contracts.problems.base import Output, Probability, Problem, Tensor, check_unique, one_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from contracts.tagging import Tagged

# How spans are written in labels of other tools, beside lists of start, end and type.
_START, _END, _TYPE = ("start", "start_position", "begin"), ("end", "end_position"), ("type", "entity_type", "label")
Labelled = tuple[int, int, str]  # start, end and type

Type = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,39}$")]


class TaggingOutput(Output):
    """Attributes: types: that a span may have, in the order of the graph's tags."""

    problem: Literal["tagging"] = "tagging"
    types: list[Type] = Field(min_length=1)

    @model_validator(mode="after")
    def _unique(self) -> Self:
        check_unique(self.types, "type")
        return self


class Tagging(Problem["NDArray[np.object_]"]):
    """Answers are lists of `contracts.tagging.Tagged` by place without overlaps, an object array, shape (rows,).

    A decision is the list itself. Places count characters of the text that the row's fields make.
    """

    name = "tagging"
    output = TaggingOutput

    def wrong(self, output: TaggingOutput, answers: NDArray[np.object_], rows: int) -> str:
        """One list of spans per row, in their order, of known types."""
        found = getattr(answers, "shape", None)
        if found != (rows,):
            return f"the model gives {found}, not one list of spans per example: {(rows,)}"
        for row, spans in enumerate(answers):
            if not isinstance(spans, list):
                return f"the answer to row {row} is {type(spans).__name__}, not a list of spans"
            at = 0
            for span in spans:
                if not (at <= span.start < span.end):
                    return f"row {row}: a span from {span.start} to {span.end} is empty, or overlaps the one before"
                if span.kind not in output.types or not 0 <= span.score <= 1:
                    return f"row {row}: a span has type {span.kind!r} and score {span.score}"
                at = span.end
        return ""

    def expected(self, output: TaggingOutput, answers: NDArray[np.object_], row: int) -> list[list[Any]]:
        """Start, end, type and score of each span."""
        return [[one.start, one.end, one.kind, round(float(one.score), 6)] for one in answers[row]]

    def differs(
        self, output: TaggingOutput, expected: Any, answers: NDArray[np.object_], row: int, tolerance: float
    ) -> str:
        """The first span that is another; scores may differ by `tolerance`."""
        got = self.expected(output, answers, row)
        if not isinstance(expected, list) or len(got) != len(expected):
            return f"expected {len(expected) if isinstance(expected, list) else 'other'} spans, got {len(got)}"
        for wanted, found in zip(expected, got, strict=True):
            if found[:3] != list(wanted[:3]):
                return f"expected {wanted[2]} from {wanted[0]} to {wanted[1]}, got {found[2]} {found[0]} to {found[1]}"
            if not abs(found[3] - wanted[3]) <= tolerance:
                return f"span at {wanted[0]}: expected score {wanted[3]:g}, got {found[3]:g}, tolerance {tolerance:g}"
        return ""

    def decide(self, output: TaggingOutput, decision: Any, answers: NDArray[np.object_]) -> list[list[Tagged]]:
        """The spans."""
        found: list[list[Tagged]] = answers.tolist()
        return found

    def documents(
        self, output: TaggingOutput, decision: Any, answers: Any, decided: Sequence[list[Tagged]]
    ) -> list[dict[str, Any]]:
        """The spans, without the text in them, which the caller has."""
        return [
            {
                "spans": [
                    {"start": one.start, "end": one.end, "type": one.kind, "score": round(float(one.score), 6)}
                    for one in spans
                ]
            }
            for spans in decided
        ]

    def answer_model(self, output: TaggingOutput) -> type[BaseModel]:
        """Spans of the output's types."""
        place = Field(ge=0, description="in characters of the text")
        span = create_model(
            "TaggedSpan",
            start=(Annotated[int, place], ...),
            end=(Annotated[int, place], ...),
            type=(one_of(output.types), ...),
            score=(Probability, Field(description="mean probability of its tags")),
        )
        return create_model("Prediction", spans=(list[span], Field(description="by place, without overlaps")))

    def tensors(self, output: TaggingOutput) -> list[Tensor]:
        """The spans of a row as JSON."""
        return [Tensor(name="spans", datatype="BYTES")]

    def values(self, output: TaggingOutput, name: str, answers: Any, decided: Sequence[list[Tagged]]) -> list[Any]:
        """Lists of start, end, type and score."""
        import json

        return [json.dumps(self.expected(output, answers, row)) for row in range(len(decided))]


def labelled(value: Any) -> list[Labelled]:
    """Spans of a label, by place: a list of ``[start, end, "TYPE"]`` or of objects that say so, or their JSON.

    Raises:
        ValueError: what it is instead; values are not repeated.
    """
    import json

    if isinstance(value, str):
        value = json.loads(value) if value.strip() else []
    if not isinstance(value, list):
        raise ValueError('expected a list of spans: [[start, end, "TYPE"], ...]')
    return sorted(_labelled(one) for one in value)


def _labelled(one: Any) -> Labelled:
    if isinstance(one, dict):
        one = [next((one[key] for key in keys if key in one), None) for keys in (_START, _END, _TYPE)]
    if not isinstance(one, list | tuple) or len(one) != 3:
        raise ValueError('a span is [start, end, "TYPE"]')
    start, end, kind = one
    if type(start) is not int or type(end) is not int or not isinstance(kind, str) or not 0 <= start < end:
        raise ValueError("a span has whole numbers, start before end, and a type")
    return start, end, kind


PROBLEM = Tagging()

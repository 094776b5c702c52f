"""Answering: to each question a text that is made of passages and cites them, or that nothing was found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, Field, create_model, model_validator

from contracts.problems.base import Output, Problem, Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SEPARATOR = "|"  # between labels, in data and in inputs


class AnsweringOutput(Output):
    """Attributes: k: passages that come with an answer, where a row does not say; longest: never more.

    passages, documents: of the index.  threshold: below this confidence nothing is said to be found.
    """

    problem: Literal["answering"] = "answering"
    k: int = Field(5, ge=1)
    longest: int = Field(50, ge=1)
    passages: int = Field(ge=1)
    documents: int = Field(ge=1)
    threshold: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.k > self.longest:
            raise ValueError(f"k is {self.k}, but no answer has more than {self.longest} passages")
        return self


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a document as it was found.

    Attributes:
        id: of the passage, unique in an index.  document, title: of the document.
        section: the headings above it, separated by " > ".  page: from 1; 0 where there are none.
        labels: of whoever may read it, one of them suffices; empty: everybody.
        score: how well it fits the question, from 0 to 1.
    """

    id: str
    document: str
    title: str
    section: str
    page: int
    labels: tuple[str, ...]
    score: float
    text: str


@dataclass(frozen=True, slots=True)
class Citation:
    """Words of an answer, and the place in `Answered.passages` of the passage that has them."""

    passage: int
    quote: str


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer.

    Attributes:
        text: empty where nothing was found.
        confidence: that the passages answer the question, from 0 to 1.
        citations: what the text rests on; none where nothing was found.
        passages: the best ones, the best first, whether or not they answer the question.
    """

    text: str
    confidence: float
    citations: tuple[Citation, ...]
    passages: tuple[Passage, ...]

    @property
    def found(self) -> bool:
        """Whether the question is answered."""
        return bool(self.citations)


class Answering(Problem["NDArray[np.object_]"]):
    """Answers are `Answered`, an object array, shape (rows,); a decision is the text, "" where nothing was found."""

    name = "answering"
    output = AnsweringOutput

    def wrong(self, output: AnsweringOutput, answers: NDArray[np.object_], rows: int) -> str:
        """One answer per row, whose citations are among its passages; no text without one."""
        found = getattr(answers, "shape", None)
        if found != (rows,):
            return f"the model gives {found}, not one answer per question: {(rows,)}"
        for row, one in enumerate(answers):
            if not isinstance(one, Answered):
                return f"the answer to row {row} is {type(one).__name__}, not an answer with passages"
            if len(one.passages) > output.longest:
                return f"the answer to row {row} has {len(one.passages)} passages, at most {output.longest} may be"
            if bool(one.text) != one.found:
                return f"the answer to row {row} has {'no citation' if one.text else 'citations and no text'}"
            if any(not 0 <= each.passage < len(one.passages) for each in one.citations):
                return f"the answer to row {row} cites a passage that it does not have"
            if not all(map(math.isfinite, (one.confidence, *(each.score for each in one.passages)))):
                return f"the answer to row {row} has a score that is not finite"
        return ""

    def expected(self, output: AnsweringOutput, answers: NDArray[np.object_], row: int) -> dict[str, Any]:
        """The text, how sure it is, and the passages with their scores."""
        one: Answered = answers[row]
        return {
            "text": one.text,
            "confidence": one.confidence,
            "passages": [each.id for each in one.passages],
            "scores": [each.score for each in one.passages],
        }

    def differs(
        self, output: AnsweringOutput, expected: Any, answers: NDArray[np.object_], row: int, tolerance: float
    ) -> str:
        """By the first passage that is another; of equal scores, within `tolerance`, they may change places."""
        got: Answered = answers[row]
        if not isinstance(expected, dict) or len(expected["passages"]) != len(got.passages):
            wanted = f"{len(expected['passages'])} passages" if isinstance(expected, dict) else "another kind of answer"
            return f"expected {wanted}, got {len(got.passages)} passages"
        if abs(expected["confidence"] - got.confidence) > tolerance:
            return f"expected confidence {expected['confidence']:.6g}, got {got.confidence:.6g}"
        known = dict(zip(expected["passages"], expected["scores"], strict=True))
        last = min(expected["scores"], default=0.0)
        for at, (name, wanted) in enumerate(known.items()):
            score = got.passages[at].score
            other = known.get(got.passages[at].id, last)
            if abs(score - wanted) > tolerance or abs(score - other) > tolerance:
                return f"place {at}: expected {name!r} with {wanted:.6g}, got {got.passages[at].id!r} with {score:.6g}"
        near = abs(got.confidence - output.threshold) <= tolerance  # it may be found on one machine alone
        if bool(expected["text"]) != got.found and not near:
            return f"expected {'an answer' if expected['text'] else 'no answer'}, got the other"
        return ""

    def decide(self, output: AnsweringOutput, decision: Any, answers: NDArray[np.object_]) -> list[str]:
        """The text."""
        return [one.text for one in answers]

    def documents(
        self, output: AnsweringOutput, decision: Any, answers: Any, decided: Sequence[str]
    ) -> list[dict[str, Any]]:
        """The answer with citations and passages."""
        return [document_of(one) for one in answers]

    def answer_model(self, output: AnsweringOutput) -> type[BaseModel]:
        """An answer."""
        text: Any = (str, Field(description="empty where nothing was found"))
        place: dict[str, Any] = {
            "document": (str, ...),
            "title": (str, ...),
            "section": (str, Field(description="the headings above it")),
            "page": (int | None, Field(description="from 1; null where the document has no pages")),
        }
        at = Field(ge=1, le=output.longest, description="place among the passages, as [1] in the text says")
        citation = create_model("Citation", passage=(int, at), quote=(str, ...), **place)
        score = Field(ge=0, le=1, description="how well it fits the question")
        passage = create_model("FoundPassage", id=(str, ...), **place, score=(float, score), text=(str, ...))
        return create_model(
            "Prediction",
            answer=text,
            found=(bool, Field(description=f"whether the confidence reaches {output.threshold:.3g}")),
            confidence=(float, Field(ge=0, le=1, description="that the passages answer the question")),
            citations=(list[citation], Field(description="what the answer rests on")),
            passages=(list[passage], Field(max_length=output.longest)),
        )

    def tensors(self, output: AnsweringOutput) -> list[Tensor]:
        """The answer, "" where nothing was found, how sure it is, and its citations as JSON."""
        return [
            Tensor(name="answer", datatype="BYTES"),
            Tensor(name="confidence", datatype="FP64"),
            Tensor(name="citations", datatype="BYTES"),
        ]

    def values(self, output: AnsweringOutput, name: str, answers: Any, decided: Sequence[str]) -> list[Any]:
        """One of each row."""
        import json

        if name == "citations":
            return [json.dumps(document_of(one)["citations"], ensure_ascii=False) for one in answers]
        return [one.text if name == "answer" else one.confidence for one in answers]


def document_of(one: Answered) -> dict[str, Any]:
    """An answer as JSON values; nobody is told which labels a passage has."""
    return {
        "answer": one.text,
        "found": one.found,
        "confidence": one.confidence,
        "citations": [
            {"passage": each.passage + 1, "quote": each.quote, **_place(one.passages[each.passage])}
            for each in one.citations
        ],
        "passages": [{"id": each.id, **_place(each), "score": each.score, "text": each.text} for each in one.passages],
    }


def answered_of(document: Mapping[str, Any]) -> Answered:
    """The inverse of `document_of`, without labels."""
    names = ("id", "document", "title", "section", "score", "text")
    return Answered(
        text=document["answer"],
        confidence=document["confidence"],
        citations=tuple(Citation(one["passage"] - 1, one["quote"]) for one in document["citations"]),
        passages=tuple(
            Passage(**{name: one[name] for name in names}, page=one["page"] or 0, labels=())
            for one in document["passages"]
        ),
    )


def _place(passage: Passage) -> dict[str, Any]:
    return {
        "document": passage.document,
        "title": passage.title,
        "section": passage.section,
        "page": passage.page or None,
    }


def listed(text: str) -> tuple[str, ...]:
    """The labels of a text that separates them."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(SEPARATOR) if part.strip()))


PROBLEM = Answering()

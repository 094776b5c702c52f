"""Ranking: an ordered list of items for each row, such as goods for a person, with scores and reasons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, Field, create_model, model_validator

from contracts.problems.base import Output, Problem, Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SEPARATOR = "|"  # between the items of a list, in data and in inputs
OF_GROUP = "="  # between the kind of a group and its name, such as region=north
Why = Literal["similar", "popular", "near", "new", "chance", "sponsored"]
# Of one list; what cannot be said of it, such as the calibration to a history that is not there, is left out.
MEASURES: Mapping[str, str] = {
    "novelty": "mean self-information of the items, in bits; 0 for what everybody has",
    "diversity": "mean distance of two items, 1 minus their cosine",
    "calibration": "divergence of the list's attributes from those of the history; 0 for the same mix",
    "tail": "share of items that are not among the tenth that is most popular",
}


class RankingOutput(Output):
    """Attributes: k: items of a list where a row does not say; longest: no list has more; catalogue: of so many."""

    problem: Literal["ranking"] = "ranking"
    k: int = Field(20, ge=1)
    longest: int = Field(100, ge=1)
    catalogue: int = Field(ge=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.k > self.longest:
            raise ValueError(f"k is {self.k}, but no list has more than {self.longest} items")
        return self


@dataclass(frozen=True, slots=True)
class Ranked:
    """One list, the best item first; scores need not fall where a list is diversified.

    Attributes:
        why: what speaks for each item.
        because: of each item those of the history that it is similar to; empty where it is there for another reason.
        propensity: of each item the chance that it would be shown at its place; 1 where nothing is left to chance.
        measures: some of `MEASURES`.
        base: of each item what the base says of it, from 0 to 1, where a person's own layer comes after it, else empty.
        team: of a list that two versions drafted, whose each item is; such lists have no propensities.
        group: of people, in which items whose reason is ``near`` are popular.
    """

    items: tuple[str, ...]
    scores: tuple[float, ...]
    why: tuple[str, ...]
    because: tuple[tuple[str, ...], ...]
    propensity: tuple[float, ...]
    measures: Mapping[str, float] = field(default_factory=dict)
    base: tuple[float, ...] = ()
    team: tuple[str, ...] = ()
    group: str = ""


class Ranking(Problem["NDArray[np.object_]"]):
    """Answers are `Ranked`, an object array, shape (rows,); a decision is the list of items."""

    name = "ranking"
    output = RankingOutput

    def wrong(self, output: RankingOutput, answers: NDArray[np.object_], rows: int) -> str:
        """One list per row, each item once, with a finite score."""
        found = getattr(answers, "shape", None)
        if found != (rows,):
            return f"the model gives {found}, not one list per example: {(rows,)}"
        for row, one in enumerate(answers):
            if not isinstance(one, Ranked):
                return f"the answer to row {row} is {type(one).__name__}, not a list of items"
            sizes = {len(part) for part in (one.items, one.scores, one.why, one.because, one.propensity)}
            if len(sizes) > 1:
                return f"the answer to row {row} has {len(one.items)} items, and not as many scores or reasons"
            if len(one.items) > output.longest:
                return f"the answer to row {row} has {len(one.items)} items, at most {output.longest} may be"
            if len(set(one.items)) < len(one.items):
                return f"the answer to row {row} has an item twice"
            if not all(map(math.isfinite, one.scores)):
                return f"the answer to row {row} has a score that is not finite"
        return ""

    def expected(self, output: RankingOutput, answers: NDArray[np.object_], row: int) -> dict[str, Any]:
        """The items and their scores."""
        return {"items": list(answers[row].items), "scores": list(answers[row].scores)}

    def differs(
        self, output: RankingOutput, expected: Any, answers: NDArray[np.object_], row: int, tolerance: float
    ) -> str:
        """By the first item that is another; those whose scores are the same within `tolerance` may change places."""
        got = answers[row]
        if not isinstance(expected, dict) or len(expected["items"]) != len(got.items):
            wanted = f"{len(expected['items'])} items" if isinstance(expected, dict) else "another kind of answer"
            return f"expected {wanted}, got {len(got.items)} items"
        known = dict(zip(expected["items"], expected["scores"], strict=True))
        last = min(expected["scores"], default=0.0)
        for at, (item, wanted) in enumerate(known.items()):
            score, near = got.scores[at], tolerance * max(1.0, abs(wanted))
            other = known.get(got.items[at], last)  # of equal scores, another item may have taken the last place
            if not (abs(score - wanted) <= near and abs(score - other) <= near):
                return f"place {at}: expected {item!r} with {wanted:.6g}, got {got.items[at]!r} with {score:.6g}"
        return ""

    def decide(self, output: RankingOutput, decision: Any, answers: NDArray[np.object_]) -> list[list[str]]:
        """The items of each list."""
        return [list(one.items) for one in answers]

    def documents(
        self, output: RankingOutput, decision: Any, answers: NDArray[np.object_], decided: Sequence[list[str]]
    ) -> list[dict[str, Any]]:
        """The items, each with its score and what speaks for it, and the measures of the list."""
        return [{"items": entries(one), **{name: one.measures.get(name) for name in MEASURES}} for one in answers]

    def answer_model(self, output: RankingOutput) -> type[BaseModel]:
        """A list of items, and what is measured of it."""
        about = f"the best first, at most {output.longest}; empty when the rules leave nothing"
        measures: Any = {name: (float | None, Field(description=text)) for name, text in MEASURES.items()}
        return create_model(
            "Prediction", items=(list[RankedItem], Field(description=about, max_length=output.longest)), **measures
        )

    def tensors(self, output: RankingOutput) -> list[Tensor]:
        """Items, scores and reasons; a shorter list is filled with empty texts and zeros."""
        shape = (output.longest,)
        return [
            Tensor(name="items", datatype="BYTES", shape=shape),
            Tensor(name="scores", datatype="FP64", shape=shape),
            Tensor(name="why", datatype="BYTES", shape=shape),
        ]

    def values(
        self, output: RankingOutput, name: str, answers: NDArray[np.object_], decided: Sequence[list[str]]
    ) -> list[Any]:
        """Of the three tensors."""
        filling: Any = 0.0 if name == "scores" else ""
        return [
            value for one in answers for value in (*getattr(one, name), *[filling] * (output.longest - len(one.items)))
        ]


class RankedItem(BaseModel):
    """An item of a list."""

    item: str
    score: float = Field(description="of the model; what is near the top of a diversified list need not have the most")
    why: Why
    because: list[str] = Field(description="items of the history that it is similar to")
    group: str = Field("", description="of people in which it is popular, such as region=north, where that is why")


def entries(one: Ranked) -> list[dict[str, Any]]:
    """The items of a list as JSON values."""
    rows = zip(one.items, one.scores, one.why, one.because, strict=True)
    return [
        {"item": item, "score": score, "why": why, "because": list(because)}
        | ({"group": one.group} if why == "near" else {})
        for item, score, why, because in rows
    ]


def listed(text: str) -> list[str]:
    """The items that a text names, see `SEPARATOR`; each once, in their order."""
    return list(dict.fromkeys(filter(None, text.split(SEPARATOR))))


PROBLEM = Ranking()

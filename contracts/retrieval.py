"""The first stage of a recommender: scores of items from a history, and the best, by all items or by an index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from contracts import tower
from contracts.document import Document
from contracts.groups import Groups, trend_of
from contracts.nearest import Nearest

Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]


class RecommendSpec(Document):
    """The content of ``recommend.json``: what the arrays mean, and how lists are made of scores.

    Attributes:
        method: ``popular`` scores by ``trend``, ``similar`` by the sum of rows of a sparse matrix, ``factors`` by the
            factors that fit the history, ``tower`` by the angle to the vector that a network makes of the history.
        k, longest: items of a list where a request does not say, and at most.
        diversity: where a request does not say, from 0 to 1.  rerank: by what.  pool: candidates, at least.
        penalty: of popularity: how much of the relevance it takes, from 0 to 1.
        recency: items after which one of the history counts half; 0: all count alike.
        history: latest items that count.
        new_share: of a list for items that are new.
        repeat: whether items of the history may be listed again.
        deny: items that are never listed; allow: only these are, where there are any.
        sponsored: items that were paid for: of those that the rules allow the best stand at the places, from 1, of
            `sponsored_places`, and are marked.
        exposure: how much providers that were given less of people's looks than they earned are raised, from 0 to 1.
        explore: what is left to chance where a request asks for it: ``epsilon``, each place with probability `epsilon`,
            which then gets one of the first `among` candidates; ``thompson``, the order too, by draws of the ranker's
            last layer.
        regularisation, confidence: of the factors.
        everybody: people, of which ``people`` are parts.
        attributed: whether the vectors are attributes, one for each of their names.
        group_weight: items of a history that what is popular in the person's group is worth.
    """

    format: Literal[1] = 1
    method: Literal["popular", "similar", "factors", "tower"]
    k: int = Field(20, ge=1)
    longest: int = Field(100, ge=1)
    diversity: float = Field(0.0, ge=0, le=1)
    rerank: Literal["dpp", "mmr", "calibrated", "spread"] = "dpp"
    pool: int = Field(100, ge=1)
    penalty: float = Field(0.0, ge=0, le=1)
    recency: float = Field(0.0, ge=0)
    history: int = Field(500, ge=1)
    new_share: float = Field(0.0, ge=0, le=1)
    repeat: bool = False
    deny: list[str] = Field([])
    allow: list[str] = Field([])
    sponsored: list[str] = Field([])
    sponsored_places: list[int] = Field([])
    exposure: float = Field(0.0, ge=0, le=1)
    explore: Literal["none", "epsilon", "thompson"] = "none"
    epsilon: float = Field(0.1, gt=0, lt=1)
    among: int = Field(50, ge=1)
    regularisation: float = 0.0
    confidence: float = 0.0
    everybody: int = Field(ge=1)
    attributed: bool = False
    group_weight: float = Field(0.0, ge=0)


@dataclass(frozen=True)
class Retriever:
    """Scores items by a method.

    Attributes:
        items, attributes: their names, in the order of the arrays.
        arrays: ``people`` (that had an item), ``trend`` (from 0 to 1), ``fresh`` (new items) and ``vectors`` (of length
            one, or zero) by item; ``factors`` by item, or the rows ``similar.indptr``, ``similar.indices``,
            ``similar.weights``: what an item of the history adds to the scores of others; those of `contracts.tower`;
            ``age``, from which on people are shown an item, and ``provider``, a number or -1, where there are any.
        nearest: an index of ``factors``, which is asked in the place of all items.
        groups: of people, with their arrays, see `contracts.groups`.
        group: whose ``trend`` that of the arrays is, see `of_group`; -1: of everybody.
    """

    spec: RecommendSpec
    items: Sequence[str]
    attributes: Sequence[str]
    arrays: Mapping[str, NDArray[Any]]
    nearest: Nearest | None = field(default=None, kw_only=True)
    groups: Groups = field(default_factory=Groups, kw_only=True)
    group: int = field(default=-1, kw_only=True)

    def of_group(self, group: int) -> Self:
        """The model for people of a group: what is popular is what is popular there. -1: as it is."""
        if group < 0:
            return self
        made = copy(self)
        trend, more = trend_of(self.arrays, group)
        object.__setattr__(made, "arrays", {**self.arrays, "trend": trend, "more": more})
        object.__setattr__(made, "group", group)
        return made

    def history(self, codes: Sequence[int]) -> tuple[Indices, Mask]:
        """Places of items, the oldest first, as `ranked` takes them: each once, where it comes last.

        ~place is an item that was not liked: it adds to no score, and is not listed again.
        """
        blocked = np.zeros(len(self.items), dtype=bool)
        blocked[[~code for code in codes if code < 0]] = True
        latest = list(dict.fromkeys(code for code in reversed(codes) if code >= 0))
        return np.array(latest[::-1], dtype=np.int64), blocked

    @property
    def listed_from(self) -> int:
        """Candidates of a list that is as long as usual."""
        return max(self.spec.k, self.spec.pool)

    def retrieved(
        self, recent: Indices, weights: NDArray[np.float64], free: Mask, count: int
    ) -> tuple[Indices, NDArray[np.float64]]:
        """At most `count` free items with the highest scores above 0, in their order, and their scores."""
        if self.nearest is not None:
            asked = self.query(recent, weights)
            near = self.nearest.search(asked, count + len(recent))
            near = near[free[near]][:count]
            if 2 * len(near) >= count:  # else too much of what is near is forbidden: all items are looked at
                values = np.asarray(self.arrays["factors"][near] @ asked, dtype=np.float64)
                order = np.lexsort((near, -values))[: int((values > 0).sum())]
                return near[order], values[order]
        scores = self.scores(recent, weights)
        pool = best(scores, free, count)
        return pool, np.asarray(scores[pool], dtype=np.float64)

    def scored(self, recent: Indices, weights: NDArray[np.float64], items: Indices) -> NDArray[np.float64]:
        """`scores` of some items alone."""
        if self.spec.method == "popular":
            return np.asarray(self.arrays["trend"][items], dtype=np.float64)
        if self.spec.method == "similar":
            return np.asarray(self._contributions(recent, weights, items).sum(axis=0))
        return np.asarray(self.arrays["factors"][items] @ self.query(recent, weights), dtype=np.float64)

    def standing(self, recent: Indices, items: Indices) -> tuple[NDArray[np.float64], Indices]:
        """How items stand among all that are not of the history: score over the best one's, and how many are above."""
        others = np.array(self.scores(recent, self._weights(len(recent))), dtype=np.float64)
        scores = others[items]
        others[recent] = -np.inf
        ordered = np.sort(others)
        above = len(ordered) - np.searchsorted(ordered, scores, side="right")
        return scores / max(float(ordered[-1]), 1e-12), above

    def worth(self, recent: Indices, items: Indices) -> NDArray[np.float64]:
        """`scored` by a whole history as `history` makes it, of which the latest items count."""
        latest = recent[-self.spec.history :]
        return self.scored(latest, self._weights(len(latest)), items)

    def scores(self, recent: Indices, weights: NDArray[np.float64]) -> NDArray[Any]:
        """Of all items; 0, or less, where nothing speaks for one."""
        if self.spec.method == "popular":
            trend: NDArray[Any] = self.arrays["trend"]
            return trend
        if self.spec.method != "similar":
            found: NDArray[Any] = self.arrays["factors"] @ self.query(recent, weights)
            return found
        indptr, indices, values = (self.arrays[f"similar.{name}"] for name in ("indptr", "indices", "weights"))
        total = np.zeros(len(self.items), dtype=np.float64)
        for item, weight in zip(recent.tolist(), weights.tolist(), strict=True):
            row = slice(indptr[item], indptr[item + 1])
            total[indices[row]] += weight * values[row]
        return total

    def _weights(self, count: int) -> NDArray[np.float64]:
        if not self.spec.recency:
            return np.ones(count)
        found: NDArray[np.float64] = 0.5 ** (np.arange(count)[::-1] / self.spec.recency)
        return found

    @cached_property
    def _gram(self) -> NDArray[np.float64]:
        factors = np.asarray(self.arrays["factors"], dtype=np.float64)
        return factors.T @ factors + self.spec.regularisation * np.eye(factors.shape[1])

    def _system(self, recent: Indices, weights: NDArray[np.float64]) -> tuple[Any, Any]:
        """The matrix of the normal equations of a history, and its factors times their confidence."""
        mine = np.asarray(self.arrays["factors"][recent], dtype=np.float64)
        sure = self.spec.confidence * weights[:, None] * mine
        return self._gram + mine.T @ sure, sure + mine

    def query(self, recent: Indices, weights: NDArray[np.float64]) -> NDArray[np.float32]:
        """The vector whose products with the factors of items are their scores; zero of no history."""
        if self.spec.method == "tower":
            return np.asarray(tower.person(self.arrays, recent, weights), dtype=np.float32)
        if not len(recent):
            return np.zeros(self.arrays["factors"].shape[1], dtype=np.float32)
        matrix, sure = self._system(recent, weights)
        return np.asarray(np.linalg.solve(matrix, sure.sum(axis=0)), dtype=np.float32)

    def asked(self, codes: Sequence[int]) -> NDArray[np.float32]:
        """The `query` of a history of places, see `history`."""
        recent = self.history(codes)[0][-self.spec.history :]
        return self.query(recent, self._weights(len(recent)))

    def _contributions(self, recent: Indices, weights: NDArray[np.float64], chosen: Indices) -> NDArray[np.float64]:
        """What each item of the history adds to the score of each chosen one.

        Of factors as in Y. Hu, Y. Koren, C. Volinsky: Collaborative filtering for implicit feedback datasets, 2008. The
        parts of a network do not add up: of towers it is how alike the vectors of the two items are.
        """
        if self.spec.method == "tower":
            theirs = np.asarray(self.arrays["factors"][chosen], dtype=np.float64)
            return np.asarray(weights[:, None] * (np.asarray(self.arrays["factors"][recent]) @ theirs.T))
        if self.spec.method == "factors":
            matrix, sure = self._system(recent, weights)
            theirs = np.asarray(self.arrays["factors"][chosen], dtype=np.float64)
            return np.asarray(sure @ np.linalg.solve(matrix, theirs.T))
        indptr, indices, values = (self.arrays[f"similar.{name}"] for name in ("indptr", "indices", "weights"))
        found = np.zeros((len(recent), len(chosen)))
        for row, item in enumerate(recent.tolist()):
            start, end = int(indptr[item]), int(indptr[item + 1])
            if start < end:
                at = np.minimum(start + np.searchsorted(indices[start:end], chosen), end - 1)
                found[row] = np.where(indices[at] == chosen, values[at], 0.0) * weights[row]
        return found


def best(scores: NDArray[Any], free: Mask, count: int) -> Indices:
    """The free items with the highest scores above 0, in their order; of equal ones the first."""
    found = np.flatnonzero(free & (scores > 0))
    if len(found) > count:
        found = found[np.argpartition(-scores[found], count - 1)[:count]]
    return found[np.lexsort((found, -scores[found]))]

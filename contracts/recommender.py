"""A recommender as arrays: lists of items from a history of items, by numpy alone; the same in training and serving.

Whatever the method, the answer follows from the history: a person who was never seen is served as well as a known one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from contracts import ranking_features, reranking
from contracts.choosing import Choice, unit
from contracts.document import Document
from contracts.exploration import DRAWS, explored
from contracts.problems.ranking import Ranked
from contracts.providers import Exposure, best_paid, inserted
from contracts.ranker import STATE_ARRAY, Ranker
from contracts.taste import Taste

Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]
_EXPLAINED, _BECAUSE = 50, 2  # latest items of a history that explain, and those that an item names


class RecommendSpec(Document):
    """The content of ``recommend.json``: what the arrays mean, and how lists are made of scores.

    Attributes:
        method: ``popular`` scores by ``trend``, ``similar`` by the sum of rows of a sparse matrix, ``factors`` by the
            factors that fit the history.
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
    """

    format: Literal[1] = 1
    method: Literal["popular", "similar", "factors"]
    k: int = Field(20, ge=1)
    longest: int = Field(100, ge=1)
    diversity: float = Field(0.0, ge=0, le=1)
    rerank: Literal["dpp", "mmr", "calibrated"] = "dpp"
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


@dataclass(frozen=True)
class Recommender:
    """A model in memory.

    Attributes:
        items, attributes: their names, in the order of the arrays.
        arrays: ``people`` (that had an item), ``trend`` (from 0 to 1), ``fresh`` (new items) and ``vectors`` (of length
            one, or zero) by item; ``factors`` by item, or the rows ``similar.indptr``, ``similar.indices``,
            ``similar.weights``: what an item of the history adds to the scores of others; ``age``, from which on
            people are shown an item, and ``provider``, a number or -1, where there are any.
        ranker: puts the candidates in another order, and its chances in the place of their scores.
    """

    spec: RecommendSpec
    items: Sequence[str]
    attributes: Sequence[str]
    arrays: Mapping[str, NDArray[Any]]
    ranker: Ranker | None = None
    fixed: Mask = field(init=False)  # items that are never listed

    def __post_init__(self) -> None:
        denied, allowed = set(self.spec.deny), set(self.spec.allow)
        fixed = [item in denied or bool(allowed and item not in allowed) for item in self.items]
        object.__setattr__(self, "fixed", np.array(fixed, dtype=bool))

    def history(self, codes: Sequence[int]) -> tuple[Indices, Mask]:
        """Places of items, the oldest first, as `ranked` takes them: each once, where it comes last.

        ~place is an item that was not liked: it adds to no score, and is not listed again.
        """
        blocked = np.zeros(len(self.items), dtype=bool)
        blocked[[~code for code in codes if code < 0]] = True
        latest = list(dict.fromkeys(code for code in reversed(codes) if code >= 0))
        return np.array(latest[::-1], dtype=np.int64), blocked

    def ranked(
        self,
        history: Indices,
        blocked: Mask,
        k: int,
        diversity: float,
        taste: Taste | None = None,
        rng: np.random.Generator | None = None,
        exposure: Exposure | None = None,
    ) -> Ranked:
        """The list for a history, the oldest item first; no item of `blocked`, nor of what the rules forbid, is in it.

        Args:
            history: each item once.
            taste: of the person, which puts the candidates in its order.
            rng: leaves to chance what the spec says; None: nothing.
            exposure: of providers so far, to which the list is added.
        """
        free = ~(blocked | self.fixed)
        if not self.spec.repeat:
            free[history] = False
        recent = history[-self.spec.history :]
        weights = self._weights(len(recent))
        fresh, affinity = self._new(recent, weights, free, min(round(k * self.spec.new_share), k))
        free[fresh] = False
        said: dict[int, float] = {}
        orders = [
            _preferred(*order, taste, self.arrays["vectors"], said)
            for order in self.orders(recent, weights, free, k, rng)
        ]
        slots = sum(place <= k - len(fresh) for place in self.spec.sponsored_places)
        paid = best_paid(np.flatnonzero(free & self._sponsored), *orders[0], self.arrays["trend"], slots)
        free[paid] = False
        orders = [(order[~np.isin(order, paid)], each[~np.isin(order, paid)]) for order, each in orders]
        pool, values = orders[0]
        wanted = reranking.mix(self.arrays["vectors"][recent], weights) if len(recent) else None
        spec, arrays = self.spec, self.arrays
        choose = Choice(arrays["vectors"], arrays["people"], spec.rerank, spec.penalty, wanted, exposure, spec.exposure)
        room = k - len(fresh) - len(paid)
        chosen = choose(pool, values, room, diversity)
        free[chosen] = False
        first, wide = len(chosen), [at for order, _ in orders for at in order[: self.spec.among].tolist()]
        score = dict(zip(pool.tolist(), values.tolist(), strict=True))
        found = [score[at] for at in chosen]
        scale = min(found, default=1.0)
        why = ["popular" if self.spec.method == "popular" else "similar"] * len(chosen)
        if len(chosen) < room:
            trend = self.arrays["trend"]
            more = _best(trend + np.float32(1e-9), free, max(k, self.spec.pool))
            more, lately = _preferred(more, np.asarray(trend[more]), taste, self.arrays["vectors"], said)
            wide += more[: self.spec.among].tolist()
            extra = choose(more, lately, room - len(chosen), diversity)
            chosen, why = [*chosen, *extra], [*why, *["popular"] * len(extra)]
            found += (trend[extra] * scale).tolist()
        chosen, why = [*chosen, *fresh], [*why, *["new"] * len(fresh)]
        found += (affinity * scale).tolist()
        propensity = [1.0] * len(chosen)
        if rng is not None and self.spec.explore != "none":
            others = [choose(*order, first, diversity) for order in orders[1:]]
            lists = [one + chosen[first:] for one in (chosen[:first], *others)]
            places = dict(zip(chosen, zip(found, why, strict=True), strict=True))
            chosen, propensity = explored(lists, 0, wide, self.spec.epsilon, rng)
            by_chance = [places.get(at, (score.get(at, scale), "chance")) for at in chosen]
            found, why = [each for each, _ in by_chance], [each for _, each in by_chance]
        if exposure is not None:
            exposure.shown(pool, unit(values), chosen)
        if paid:
            marked = [(at, score.get(at, scale), "sponsored", 1.0) for at in paid]
            rows = list(zip(chosen, found, why, propensity, strict=True))
            rows = inserted(rows, marked, self.spec.sponsored_places)
            chosen, found, why, propensity = (list(column) for column in zip(*rows, strict=True))
        because = self._because(recent, weights, chosen, why)
        return Ranked(
            items=tuple(self.items[at] for at in chosen),
            scores=tuple(float(value) for value in found),
            why=tuple(why),
            because=because,
            propensity=tuple(propensity),
            measures=self._measures(recent, weights, np.array(chosen, dtype=np.int64)),
            base=() if taste is None else tuple(said.get(at, 0.0) for at in chosen),
        )

    def candidates(
        self, recent: Indices, weights: NDArray[np.float64], free: Mask, k: int
    ) -> tuple[Indices, NDArray[np.float64]]:
        """Free items for a list of `k` and their relevance, in its order: by the ranker, if there is one."""
        if self.ranker is None:
            return self.retrieved(recent, weights, free, max(k, self.spec.pool))
        pool, values = self.retrieved(recent, weights, free, max(k, self.ranker.spec.candidates))
        if not len(pool):
            return pool, values
        chances = self.ranker.chances(self.features(recent, pool, values), pool, recent)
        order = np.argsort(-chances, kind="stable")[: max(k, self.spec.pool)]
        return pool[order], chances[order]

    def orders(
        self, recent: Indices, weights: NDArray[np.float64], free: Mask, k: int, rng: np.random.Generator | None
    ) -> list[tuple[Indices, NDArray[np.float64]]]:
        """`candidates`, of which Thompson sampling has several orders: the first is shown, all are as likely."""
        pool, values = self.candidates(recent, weights, free, k)
        if rng is None or self.spec.explore != "thompson" or self.ranker is None or not len(pool):
            return [(pool, values)]
        scores, _ = self.standing(recent, pool)
        order = np.argsort(-scores, kind="stable")
        pool = pool[order]
        found = self.features(recent, pool, scores[order])
        drawn = self.ranker.draws(found, values[order], DRAWS, rng)
        return [(pool[by], one[by]) for one in drawn for by in [np.argsort(-one, kind="stable")]]

    def retrieved(
        self, recent: Indices, weights: NDArray[np.float64], free: Mask, count: int
    ) -> tuple[Indices, NDArray[np.float64]]:
        """At most `count` free items with the highest scores above 0, in their order, and their scores."""
        scores = self.scores(recent, weights)
        pool = _best(scores, free, count)
        return pool, np.asarray(scores[pool], dtype=np.float64)

    def standing(self, recent: Indices, items: Indices) -> tuple[NDArray[np.float64], Indices]:
        """How items stand among all that are not of the history: score over the best one's, and how many are above."""
        others = np.array(self.scores(recent, self._weights(len(recent))), dtype=np.float64)
        scores = others[items]
        others[recent] = -np.inf
        ordered = np.sort(others)
        above = len(ordered) - np.searchsorted(ordered, scores, side="right")
        return scores / max(float(ordered[-1]), 1e-12), above

    def features(self, recent: Indices, pool: Indices, scores: NDArray[np.float64]) -> NDArray[np.float32]:
        """Of the candidates, in the order of the retriever's scores, for its ranker."""
        assert self.ranker is not None
        state = self.ranker.arrays[STATE_ARRAY][pool]
        relative, places = scores / max(float(scores[0]), 1e-12), np.arange(len(pool))
        vectors = self.arrays["vectors"]
        return ranking_features.features(recent, pool, relative, places, state, vectors, self._popularity)

    @cached_property
    def _popularity(self) -> NDArray[np.float64]:
        return ranking_features.popularity_of(self.arrays["people"])

    def scores(self, recent: Indices, weights: NDArray[np.float64]) -> NDArray[Any]:
        """Of all items; 0, or less, where nothing speaks for one."""
        if self.spec.method == "popular":
            trend: NDArray[Any] = self.arrays["trend"]
            return trend
        if self.spec.method == "factors":
            found: NDArray[Any] = self.arrays["factors"] @ self._person(recent, weights)
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

    def _person(self, recent: Indices, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        if not len(recent):
            return np.zeros(self.arrays["factors"].shape[1])
        matrix, sure = self._system(recent, weights)
        return np.asarray(np.linalg.solve(matrix, sure.sum(axis=0)))

    def _new(
        self, recent: Indices, weights: NDArray[np.float64], free: Mask, places: int
    ) -> tuple[list[int], NDArray[np.float64]]:
        """New items, those most like the history first, and how much they are."""
        candidates = np.flatnonzero(self.arrays["fresh"] & free) if places else np.zeros(0, dtype=np.int64)
        if not len(candidates):
            return [], np.zeros(0)
        affinity = np.asarray(self.arrays["trend"][candidates], dtype=np.float64)
        if len(recent) and self.arrays["vectors"].shape[1]:
            profile = weights @ self.arrays["vectors"][recent] / weights.sum()
            affinity = np.clip(self.arrays["vectors"][candidates] @ profile, 0, 1) + 1e-3 * affinity
        order = np.lexsort((candidates, -affinity))[:places]
        return candidates[order].tolist(), affinity[order]

    def _because(
        self, recent: Indices, weights: NDArray[np.float64], chosen: Sequence[int], why: Sequence[str]
    ) -> tuple[tuple[str, ...], ...]:
        """Of each item that is similar those of the history that add most to its score."""
        if "similar" not in why:
            return ((),) * len(chosen)
        recent, weights = recent[-_EXPLAINED:], weights[-_EXPLAINED:]
        parts = self._contributions(recent, weights, np.array(chosen, dtype=np.int64))
        order = np.argsort(-parts, axis=0, kind="stable")[:_BECAUSE]
        return tuple(
            tuple(self.items[recent[at]] for at in order[:, place] if parts[at, place] > 0) if said == "similar" else ()
            for place, said in enumerate(why)
        )

    def _contributions(self, recent: Indices, weights: NDArray[np.float64], chosen: Indices) -> NDArray[np.float64]:
        """What each item of the history adds to the score of each chosen one.

        Of factors as in Y. Hu, Y. Koren, C. Volinsky: Collaborative filtering for implicit feedback datasets, 2008.
        """
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

    def _measures(self, recent: Indices, weights: NDArray[np.float64], chosen: Indices) -> dict[str, float]:
        """See `contracts.problems.ranking.MEASURES`."""
        if not len(chosen):
            return {}
        vectors = np.asarray(self.arrays["vectors"][chosen], dtype=np.float64)
        wanted = (
            reranking.mix(self.arrays["vectors"][recent], weights) if self.spec.attributed and len(recent) else None
        )
        return reranking.measures(self.arrays["people"][chosen], self.spec.everybody, self._head, vectors, wanted)

    @cached_property
    def _sponsored(self) -> Mask:
        names = set(self.spec.sponsored)
        return np.array([item in names for item in self.items], dtype=bool)

    @cached_property
    def _head(self) -> float:
        """People from whom on an item is among the tenth that is most popular."""
        people = np.sort(np.asarray(self.arrays["people"], dtype=np.float64))
        return float(people[-max(1, len(people) // 10)])


def _best(scores: NDArray[Any], free: Mask, count: int) -> Indices:
    """The free items with the highest scores above 0, in their order; of equal ones the first."""
    found = np.flatnonzero(free & (scores > 0))
    if len(found) > count:
        found = found[np.argpartition(-scores[found], count - 1)[:count]]
    return found[np.lexsort((found, -scores[found]))]


def _preferred(
    pool: Indices, values: NDArray[np.float64], taste: Taste | None, vectors: NDArray[Any], said: dict[int, float]
) -> tuple[Indices, NDArray[np.float64]]:
    """Candidates and their values in a person's order; what the base says of them, from 0 to 1, is added to `said`."""
    if taste is None or not len(pool):
        return pool, values
    said.update(zip(pool.tolist(), (values / max(float(values[0]), 1e-12)).tolist(), strict=True))
    return taste.ordered(pool, values, vectors)

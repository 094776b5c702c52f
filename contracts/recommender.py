"""A recommender as arrays: lists of items from a history of items, by numpy alone; the same in training and serving.

Whatever the method, the answer follows from the history: a person who was never seen is served as well as a known one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts import ranking_features, reranking
from contracts.choosing import Choice, unit
from contracts.exploration import DRAWS, explored
from contracts.problems.ranking import Ranked
from contracts.providers import Exposure, best_paid, inserted
from contracts.ranker import STATE_ARRAY, Ranker
from contracts.retrieval import Indices, Mask, Retriever, best
from contracts.retrieval import RecommendSpec as RecommendSpec
from contracts.taste import Taste

Found = tuple[Indices, NDArray[np.float64], NDArray[np.float32] | None]
"""Candidates, their scores, and their features of the feature store."""
Live = Callable[[Indices], tuple[Sequence[int], NDArray[np.float32]] | None]
"""Given candidates: places of what the person clicked of late, the latest last, and the features of the candidates;
None where the store does not answer."""
_EXPLAINED, _BECAUSE = 50, 2  # latest items of a history that explain, and those that an item names


@dataclass(frozen=True)
class Recommender(Retriever):
    """A model in memory: a first stage, and what makes lists of its candidates.

    Attributes:
        ranker: puts the candidates in another order, and its chances in the place of their scores.
    """

    ranker: Ranker | None = None
    fixed: Mask = field(init=False)  # items that are never listed

    def __post_init__(self) -> None:
        denied, allowed = set(self.spec.deny), set(self.spec.allow)
        fixed = [item in denied or bool(allowed and item not in allowed) for item in self.items]
        object.__setattr__(self, "fixed", np.array(fixed, dtype=bool))

    def ranked(
        self,
        history: Indices,
        blocked: Mask,
        k: int,
        diversity: float,
        taste: Taste | None = None,
        rng: np.random.Generator | None = None,
        exposure: Exposure | None = None,
        person: int = -1,
        live: Live | None = None,
    ) -> Ranked:
        """The list for a history, the oldest item first; no item of `blocked`, nor of what the rules forbid, is in it.

        Args:
            history: each item once.
            taste: of the person, which puts the candidates in its order.
            rng: leaves to chance what the spec says; None: nothing.
            exposure: of providers so far, to which the list is added.
            person: see `Ranker.snapshot`.  live: reads the feature store, for a ranker that is told of it.
        """
        free = ~(blocked | self.fixed)
        if not self.spec.repeat:
            free[history] = False
        recent = history[-self.spec.history :]
        weights = self._weights(len(recent))
        given: Found | None = None
        if self.ranker is not None and self.ranker.windows:
            recent, weights, given = self._read(recent, weights, free, k, person, live)
        fresh, affinity = self._new(recent, weights, free, min(round(k * self.spec.new_share), k))
        free[fresh] = False
        said: dict[int, float] = {}
        orders = [
            _preferred(*order, taste, self.arrays["vectors"], said)
            for order in self.orders(recent, weights, free, k, rng, given)
        ]
        paid: list[int] = []
        paid_places = sorted(set(self.spec.sponsored_places))
        if slots := sum(place <= k - len(fresh) for place in paid_places):
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
        why = self._reasons(chosen, found if taste is None else [], len(recent))
        if len(chosen) < room:
            trend = self.arrays["trend"]
            more = best(trend + np.float32(1e-9), free, max(k, self.spec.pool))
            more, lately = _preferred(more, np.asarray(trend[more]), taste, self.arrays["vectors"], said)
            wide += more[: self.spec.among].tolist()
            extra = choose(more, lately, room - len(chosen), diversity)
            chosen, why = [*chosen, *extra], [*why, *self._popular(extra)]
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
            rows = inserted(rows, marked, paid_places)
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
            group=self.groups.label(self.group),
        )

    def candidates(
        self, recent: Indices, weights: NDArray[np.float64], free: Mask, k: int, given: Found | None = None
    ) -> tuple[Indices, NDArray[np.float64]]:
        """Free items for a list of `k` and their relevance, in its order: by the ranker, if there is one.

        given: candidates of the retriever that were found already.
        """
        if self.ranker is None:
            count = max(k, self.spec.pool)
            return self._joined(recent, weights, free, count, *self.retrieved(recent, weights, free, count))
        pool, values, windows = self._found(recent, weights, free, k, given)
        if not len(pool):
            return pool, values
        chances = self.ranker.chances(self.features(recent, pool, values, windows), pool, recent)
        order = np.argsort(-chances, kind="stable")[: max(k, self.spec.pool)]
        return pool[order], chances[order]

    def _share(self, length: int) -> float:
        """Of the relevance, what is left to the group of who has a history of some length."""
        if self.group < 0 or self.ranker is not None or self.spec.method == "popular" or not self.spec.group_weight:
            return 0.0
        return self.spec.group_weight / (self.spec.group_weight + length)

    def _joined(
        self, recent: Indices, weights: NDArray[np.float64], free: Mask, count: int, pool: Indices, values: Any
    ) -> tuple[Indices, NDArray[np.float64]]:
        """Candidates and what is popular in the group, by the sum of both shares, each over its best."""
        share, trend = self._share(len(recent)), self.arrays["trend"]
        if not share or not len(pool):
            return pool, values
        more = best(trend, free, count)
        more = more[~np.isin(more, pool)]
        every = np.concatenate([pool, more])
        own = np.concatenate([values, np.maximum(self.scored(recent, weights, more), 0)]) / float(values[0])
        total = (1 - share) * own + share * trend[every]
        order = np.lexsort((every, -total))[:count]
        return every[order], total[order]

    def _reasons(self, chosen: Sequence[int], found: Sequence[float], length: int) -> list[str]:
        """What speaks for candidates that have some relevance: the group, where more than half of it is the group's."""
        if self.spec.method == "popular":
            return self._popular(chosen)
        share, why = self._share(length), ["similar"] * len(chosen)
        for place, (at, value) in enumerate(zip(chosen, found, strict=False)):
            if share and self.arrays["more"][at] and share * self.arrays["trend"][at] > value / 2:
                why[place] = "near"
        return why

    def _popular(self, chosen: Sequence[int]) -> list[str]:
        """Whether items are popular, or are so among the people of the group more than elsewhere."""
        if self.group < 0:
            return ["popular"] * len(chosen)
        return ["near" if self.arrays["more"][at] else "popular" for at in chosen]

    def relevance(self, recent: Indices, items: Indices) -> NDArray[np.float64]:
        """What some items, candidates or not, are worth to a history: by the ranker, if there is one."""
        relative, places = self.standing(recent, items)
        if self.ranker is None:
            return relative
        return self.ranker.chances(self._features(recent, items, relative, places), items, recent)

    def orders(
        self,
        recent: Indices,
        weights: NDArray[np.float64],
        free: Mask,
        k: int,
        rng: np.random.Generator | None,
        given: Found | None = None,
    ) -> list[tuple[Indices, NDArray[np.float64]]]:
        """`candidates`, of which Thompson sampling has several orders: the first is shown, all are as likely."""
        ranker = self.ranker
        if rng is None or self.spec.explore != "thompson" or ranker is None:
            return [self.candidates(recent, weights, free, k, given)]
        pool, values, windows = self._found(recent, weights, free, k, given)
        if not len(pool):
            return [(pool, values)]
        found = self.features(recent, pool, values, windows)
        chances = ranker.chances(found, pool, recent)
        best = np.argsort(-chances, kind="stable")[: max(k, self.spec.pool)]
        drawn = ranker.draws(found[best], chances[best], DRAWS, rng)
        return [(pool[best][by], one[by]) for one in drawn for by in [np.argsort(-one, kind="stable")]]

    def _found(self, recent: Indices, weights: NDArray[np.float64], free: Mask, k: int, given: Found | None) -> Found:
        """Candidates of the retriever for the ranker, those that are free."""
        assert self.ranker is not None
        if given is None:
            return *self.retrieved(recent, weights, free, max(k, self.ranker.spec.candidates)), None
        pool, values, windows = given
        still = free[pool]
        return pool[still], values[still], None if windows is None else windows[still]

    def _read(
        self, recent: Indices, weights: NDArray[np.float64], free: Mask, k: int, person: int, live: Live | None
    ) -> tuple[Indices, NDArray[np.float64], Found]:
        """History, weights and candidates, with what the feature store says of the person and of them, by one read.

        What was clicked a moment ago joins the history, and is free no more. Of a history without candidates the store
        is asked twice: for the clicks, and for the candidates that follow from them.
        """
        assert self.ranker is not None
        count = max(k, self.ranker.spec.candidates)
        pool, values = self.retrieved(recent, weights, free, count)
        found = live(pool) if live is not None else None
        if found is None:
            return recent, weights, (pool, values, self.ranker.snapshot(person, pool))
        clicked, windows = found
        known = set(recent.tolist())
        if new := [code for code in clicked if code not in known]:
            recent = np.array([*recent.tolist(), *new], dtype=np.int64)[-self.spec.history :]
            weights = self._weights(len(recent))
            if not self.spec.repeat:
                free[new] = False
            if not len(pool):
                pool, values = self.retrieved(recent, weights, free, count)
                again = live(pool) if live is not None else None
                windows = self.ranker.snapshot(person, pool) if again is None else again[1]
            values = self.scored(recent, weights, pool)
            order = np.lexsort((pool, -values))
            order = order[(values[order] > 0) & free[pool[order]]]
            pool, values, windows = pool[order], values[order], windows[order]
        return recent, weights, (pool, values, windows)

    def features(
        self,
        recent: Indices,
        pool: Indices,
        scores: NDArray[np.float64],
        windows: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """Of the candidates, in the order of the retriever's scores, for its ranker.

        windows: of the feature store, for a ranker that is told of it; None: as its training ended, of nobody known.
        """
        relative = scores / max(float(scores[0]), 1e-12)
        return self._features(recent, pool, relative, np.arange(len(pool)), windows)

    def _features(
        self, recent: Indices, pool: Indices, relative: Any, places: Indices, windows: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        assert self.ranker is not None
        state, vectors = self.ranker.arrays[STATE_ARRAY][pool], self.arrays["vectors"]
        found = ranking_features.features(recent, pool, relative, places, state, vectors, self._popularity)
        if not self.ranker.windows:
            return found
        return np.concatenate([found, self.ranker.snapshot(-1, pool) if windows is None else windows], axis=1)

    @cached_property
    def _popularity(self) -> NDArray[np.float64]:
        return ranking_features.popularity_of(self.arrays["people"])

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


def _preferred(
    pool: Indices, values: NDArray[np.float64], taste: Taste | None, vectors: NDArray[Any], said: dict[int, float]
) -> tuple[Indices, NDArray[np.float64]]:
    """Candidates and their values in a person's order; what the base says of them, from 0 to 1, is added to `said`."""
    if taste is None or not len(pool):
        return pool, values
    said.update(zip(pool.tolist(), (values / max(float(values[0]), 1e-12)).tolist(), strict=True))
    return taste.ordered(pool, values, vectors)

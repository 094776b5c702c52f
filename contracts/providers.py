"""Who is seen: exposure of the providers of items over many lists, and places that were paid for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_OLD = 5_000.0  # lists after which what was owed is forgotten by a factor of e


class Exposure:
    """What each provider was given of people's looks, and what the relevance of its items has earned.

    Amortised over lists, for no single one can be fair to everybody (A. Biega, K. Gummadi, G. Weikum: Equity of
    attention, 2018): a provider that was given less than it earned gets more, until it is even.

    Args:
        provider: of each item a number from 0; -1: it has none.
    """

    def __init__(self, provider: NDArray[np.int64]) -> None:
        self._of = provider
        self._count = int(provider.max(initial=-1)) + 1
        self.given, self.earned = np.zeros(self._count), np.zeros(self._count)

    def raised(self, items: NDArray[np.int64], relevance: Floats, strength: float) -> Floats:
        """Relevance from 0 to 1 of candidates, raised by what their providers are owed: by `strength` for who is owed
        a whole list, lowered for who was given more."""
        owed = np.append(self.earned - self.given, 0.0)
        return np.asarray(relevance + strength * np.clip(owed[self._of[items]], -1, 1))

    def shown(self, candidates: NDArray[np.int64], relevance: Floats, items: Sequence[int]) -> None:
        """Note a list: what the candidates would have earned by their relevance, and who was given it."""
        self.given *= np.exp(-1 / _OLD)
        self.earned *= np.exp(-1 / _OLD)
        places = np.array(items, dtype=np.int64)
        look = 1 / np.log2(np.arange(len(places)) + 2)
        self._add(self.given, places, look)
        self._add(self.earned, candidates, relevance)

    def _add(self, to: Floats, items: NDArray[np.int64], weights: Floats) -> None:
        has = self._of[items] >= 0
        total = float(weights[has].sum())
        if total > 0:
            to += np.bincount(self._of[items][has], weights=weights[has], minlength=self._count) / total


def inserted(chosen: Sequence[Any], paid: Sequence[Any], places: Sequence[int]) -> list[Any]:
    """A list with items at the places, from 1, that were paid for; a place behind its end is its end."""
    found = list(chosen)
    for item, place in sorted(zip(paid, places, strict=False), key=lambda one: one[1]):
        found.insert(min(place - 1, len(found)), item)
    return found


def best_paid(
    mine: NDArray[np.int64], pool: NDArray[np.int64], values: Floats, trend: NDArray[Any], slots: int
) -> list[int]:
    """Of items that were paid for, those with the best values among the candidates, and then what is taken lately."""
    if not slots or not len(mine):
        return []
    score = dict(zip(pool.tolist(), values.tolist(), strict=True))
    ranks = [(-score.get(at, 0.0), -float(trend[at]), at) for at in mine.tolist()]
    return [at for _, _, at in sorted(ranks)[:slots]]

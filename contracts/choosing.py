"""How a list is chosen from candidates: popularity held against them, what providers are owed, and diversity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts import reranking
from contracts.providers import Exposure

Floats = NDArray[np.float64]
_BY = {"dpp": reranking.dpp, "mmr": reranking.mmr, "spread": reranking.spread}


@dataclass(frozen=True)
class Choice:
    """The last step of every list.

    Attributes:
        vectors, people: of all items, see `contracts.recommender.Recommender`.  rerank, penalty: see `RecommendSpec`.
        wanted: the mix of attributes of the person's history; None: there is none.
        exposure: of providers so far, and with what `strength` it is evened out; None: it is not.
    """

    vectors: NDArray[Any]
    people: NDArray[Any]
    rerank: str
    penalty: float
    wanted: Floats | None
    exposure: Exposure | None
    strength: float

    def __call__(self, pool: NDArray[np.int64], values: NDArray[Any], k: int, diversity: float) -> list[int]:
        """`k` items of a pool, that is in the order of its values."""
        if k <= 0 or not len(pool):
            return []
        relevance = unit(values)
        if self.penalty:
            relevance = unit(relevance - self.penalty * unit(np.log1p(self.people[pool])))
        if self.exposure is not None:
            relevance = self.exposure.raised(pool, relevance, self.strength)
        if self.penalty or self.exposure is not None:
            order = np.argsort(-relevance, kind="stable")
            pool, relevance = pool[order], relevance[order]
        if not diversity or not self.vectors.shape[1]:
            found: list[int] = pool[:k].tolist()
            return found
        chosen: list[int] = pool[self._places(relevance, self.vectors[pool], k, diversity)].tolist()
        return chosen

    def _places(self, relevance: Floats, vectors: NDArray[Any], k: int, diversity: float) -> list[int]:
        if self.rerank == "calibrated":
            if self.wanted is None or not self.wanted.any():
                return list(range(min(k, len(relevance))))
            return reranking.calibrated(relevance, reranking.shares(vectors), self.wanted, k, diversity)
        return _BY[self.rerank](relevance, np.asarray(vectors, dtype=np.float64), k, diversity)


def unit(values: NDArray[Any]) -> Floats:
    """From 0 to 1; all 1 where they are equal."""
    found = np.asarray(values, dtype=np.float64)
    if not len(found):
        return found
    low, high = found.min(), found.max()
    return np.asarray((found - low) / (high - low) if high > low else np.ones(len(found)))

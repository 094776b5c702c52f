"""Diversity of lists: how it is measured, and how a list is chosen that has more of it. numpy alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_SHARPEST, _OWN, _NOTHING = 12.0, 0.05, 1e-10
_SMOOTHED = 0.01
_FLAT = 20.0  # places that are worth nearly as much as the first


def mmr(relevance: Floats, vectors: Floats, k: int, diversity: float) -> list[int]:
    """The places of `k` items by maximal marginal relevance (J. Carbonell, J. Goldstein, 1998).

    Args:
        relevance: of each candidate, from 0 to 1.  vectors: of the candidates, each of length one or zero.
        diversity: from 0, relevance alone, to 1, distance alone.
    """
    k = min(k, len(relevance))
    chosen: list[int] = []
    nearest, free = np.zeros(len(relevance)), np.ones(len(relevance), dtype=bool)
    for _ in range(k):
        gain = (1 - diversity) * relevance - diversity * nearest
        at = int(np.where(free, gain, -np.inf).argmax())
        chosen.append(at)
        free[at] = False
        nearest = np.maximum(nearest, vectors @ vectors[at])
    return chosen


def spread(relevance: Floats, vectors: Floats, k: int, diversity: float) -> list[int]:
    """The places of `k` items of which the sum of relevance and mutual distance is greatest, greedily.

    Max-sum diversification (S. Gollapudi, A. Sharma: An axiomatic approach for result diversification, 2009; the greedy
    is within a half: A. Borodin, H. Lee, Y. Ye, 2012). Relevance is by rank, 20 / (20 + places above), as is the gain
    that measures of ranking give; the chosen stand in its order, so what is different stands where it costs least.
    """
    k, count = min(k, len(relevance)), len(relevance)
    ordered = np.argsort(-relevance, kind="stable")
    worth = np.empty(count)
    worth[ordered] = _FLAT / (_FLAT + np.arange(count))
    apart, free = np.zeros(count), np.ones(count, dtype=bool)
    for _ in range(k):
        gain = (1 - diversity) * worth + diversity * apart / max(1, k - 1)
        at = int(np.where(free, gain, -np.inf).argmax())
        free[at] = False
        apart += 1 - vectors @ vectors[at]
    chosen: list[int] = ordered[~free[ordered]].tolist()
    return chosen


def dpp(relevance: Floats, vectors: Floats, k: int, diversity: float) -> list[int]:
    """The places of `k` items by greedy exact inference of a determinantal point process.

    L. Chen, G. Zhang, E. Zhou: Fast greedy MAP inference for determinantal point process, 2018; of its kernel, quality
    is exp(theta * relevance), with theta falling from `_SHARPEST` to 0 as `diversity` rises from 0 to 1. What the
    determinant does not tell apart any more follows by relevance.
    """
    k, count = min(k, len(relevance)), len(relevance)
    quality = np.exp(_SHARPEST * (1 - diversity) * (relevance - relevance.max(initial=0.0)))
    same = (1 - _OWN) * vectors
    left = quality**2 * (_OWN + (same * vectors).sum(axis=1) + (1 - _OWN) * ~vectors.any(axis=1))
    rows = np.zeros((k, count))
    chosen: list[int] = []
    free = np.ones(count, dtype=bool)
    for step in range(k):
        at = int(np.where(free, left, -np.inf).argmax())
        if left[at] < _NOTHING * quality[at] ** 2:
            rest = np.flatnonzero(free)
            return [*chosen, *rest[np.argsort(-relevance[rest], kind="stable")][: k - step].tolist()]
        chosen.append(at)
        free[at] = False
        kernel = quality * quality[at] * (same @ vectors[at])
        rows[step] = (kernel - rows[:step].T @ rows[:step, at]) / np.sqrt(left[at])
        left = left - rows[step] ** 2
    return chosen


def calibrated(relevance: Floats, kinds: Floats, wanted: Floats, k: int, level: float) -> list[int]:
    """The places of `k` items whose attributes are in the proportions of a history (H. Steck, 2018), greedily.

    Args:
        kinds: of each candidate shares of attributes, see `shares`.  wanted: those of the history, in all one.
        level: from 0, relevance alone, to 1, proportions alone.
    """
    k = min(k, len(relevance))
    chosen: list[int] = []
    total, free, there = np.zeros(len(wanted)), np.ones(len(relevance), dtype=bool), wanted > 0
    for step in range(k):
        listed = (total + kinds) / (step + 1)
        mixed = (1 - _SMOOTHED) * listed[:, there] + _SMOOTHED * wanted[there]
        apart = (wanted[there] * np.log(wanted[there] / mixed)).sum(axis=1)
        gain = (1 - level) * relevance - level * apart
        at = int(np.where(free, gain, -np.inf).argmax())
        chosen.append(at)
        free[at] = False
        total = total + kinds[at]
    return chosen


def distance(vectors: Floats) -> float | None:
    """The mean distance of two items, 1 minus their cosine (C.-N. Ziegler et al., 2005); None of less than two."""
    count = len(vectors)
    if count < 2:
        return None
    whole = vectors.sum(axis=0)
    pairs = float(whole @ whole) - float((vectors * vectors).sum())
    return 1 - pairs / (count * (count - 1))


def self_information(people: Any, everybody: float) -> Any:
    """Bits that it tells to name an item that so many people have (T. Zhou et al., 2010)."""
    return -np.log2(np.clip(np.asarray(people, dtype=np.float64), 0.5, None) / max(everybody, 1.0))


def miscalibration(wanted: Floats, listed: Floats) -> float:
    """How far the attributes of a list are from those of a history: KL divergence (H. Steck, 2018).

    Both are shares that sum to one; the list's are mixed with a hundredth of the history's, so that it is finite.
    """
    mixed = (1 - _SMOOTHED) * listed + _SMOOTHED * wanted
    there = wanted > 0
    return max(0.0, float((wanted[there] * np.log(wanted[there] / mixed[there])).sum()))


def mix(vectors: NDArray[Any], weights: Floats) -> Floats:
    """Shares of the attributes of items, each item's own sum to one."""
    total: Floats = weights @ shares(vectors)
    return total / total.sum() if total.any() else total


def shares(vectors: NDArray[Any]) -> Floats:
    """Of each item one, shared by its attributes."""
    has = np.asarray(vectors > 0, dtype=np.float64)
    return np.asarray(has / np.maximum(has.sum(axis=1, keepdims=True), 1))


def measures(
    people: NDArray[Any], everybody: float, head: float, vectors: Floats, wanted: Floats | None
) -> dict[str, float]:
    """What `contracts.problems.ranking.MEASURES` are of the items of a list.

    Args:
        people: that had each item, of `everybody`; from `head` on it is among the most popular.  wanted: the mix of the
            person's own attributes; None: there is none.
    """
    found = {
        "novelty": float(self_information(people, everybody).mean()),
        "tail": float((people < head).mean()),
    }
    if vectors.shape[1] and (apart := distance(vectors)) is not None:
        found["diversity"] = apart
    if wanted is not None:
        listed = mix(vectors, np.ones(len(vectors)))
        if wanted.any() and listed.any():
            found["calibration"] = miscalibration(wanted, listed)
    return {name: round(value, 9) for name, value in found.items()}

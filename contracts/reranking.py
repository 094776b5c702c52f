"""Diversity of lists: how it is measured, and how a list is chosen that has more of it. numpy alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_SHARPEST, _OWN, _NOTHING = 12.0, 0.05, 1e-10
_SMOOTHED = 0.01


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

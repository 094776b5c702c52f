"""Monotone binning of one input against two classes, for scorecards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_FINE = 20  # bins of equally many rows that a number starts from
_PRIOR = 5.0  # rows of the overall share that are added to each bin
_EPS = 1e-12


@dataclass(frozen=True, kw_only=True)
class Binned:
    """Bins of an input, and one more for what is in none of them.

    Attributes:
        edges: of a number.  groups: of a string, the bin of each category.
        weight, positive: of the rows of each bin; the last is of rows without a value.
    """

    edges: list[float] | None = None
    groups: list[int] | None = None
    weight: Floats
    positive: Floats

    @property
    def rate(self) -> Floats:
        """Share of the positive class in each bin, drawn a little to that of all rows."""
        overall = self.positive.sum() / max(self.weight.sum(), _EPS)
        found: Floats = (self.positive + _PRIOR * overall) / (self.weight + _PRIOR)
        return found

    @property
    def woe(self) -> Floats:
        """Weight of evidence: log of the odds of the negative class, against those of all rows."""
        overall = np.clip(self.positive.sum() / max(self.weight.sum(), _EPS), _EPS, 1 - _EPS)
        found: Floats = np.log((1 - self.rate) / self.rate) - np.log((1 - overall) / overall)
        return found

    def place(self, values: Floats) -> Ints:
        """The bin of each value; a string's is the number of its category, NaN is missing."""
        last = len(self.weight) - 1
        absent = np.isnan(values)
        if self.edges is not None:
            return np.where(absent, last, np.searchsorted(self.edges, values, side="right")).astype(np.int64)
        table = np.array([*(self.groups or []), last])
        return table[np.where(absent, len(table) - 1, values).astype(np.int64)]


def bin_number(values: Floats, label: Ints, weight: Floats, most: int, least: float, direction: int = 0) -> Binned:
    """At most so many bins of at least that share of the rows, in which the share of the positive class never turns.

    direction: 1 where it may only rise, -1 where it may only fall; 0 takes what fits better. Bins that violate the
    order are pooled (M. Ayer et al.: An empirical distribution function for sampling with incomplete information,
    1955).
    """
    known = ~np.isnan(values)
    fine = _fine(values[known])
    at = np.searchsorted(fine, values[known], side="right")
    total = _counts(at, weight[known], len(fine) + 1)
    positive = _counts(at, (weight * label)[known], len(fine) + 1)
    tries = [_pooled(total, positive, sign) for sign in ([direction] if direction else [1, -1])]
    best = max(tries, key=lambda starts: _fit(*_sums(starts, total, positive)))
    starts = _fewer(best, total, positive, most, least * weight.sum())
    return Binned(
        edges=[float(fine[start - 1]) for start in starts[1:]],
        weight=np.append(_sums(starts, total, positive)[0], weight[~known].sum()),
        positive=np.append(_sums(starts, total, positive)[1], (weight * label)[~known].sum()),
    )


def bin_category(codes: Floats, categories: int, label: Ints, weight: Floats, most: int, least: float) -> Binned:
    """Categories joined with those of the nearest share of the positive class, into at most so many bins."""
    known = ~np.isnan(codes)
    at = codes[known].astype(np.int64)
    total = _counts(at, weight[known], categories)
    positive = _counts(at, (weight * label)[known], categories)
    overall = (weight * label).sum() / max(weight.sum(), _EPS)
    order = np.argsort((positive + _PRIOR * overall) / (total + _PRIOR), kind="stable")
    total, positive = total[order], positive[order]
    starts = _fewer(list(range(categories)), total, positive, most, least * weight.sum())
    groups = np.zeros(categories, dtype=np.int64)
    groups[order] = np.searchsorted(starts, np.arange(categories), side="right") - 1
    sums = _sums(starts, total, positive)
    return Binned(
        groups=groups.tolist(),
        weight=np.append(sums[0], weight[~known].sum()),
        positive=np.append(sums[1], (weight * label)[~known].sum()),
    )


def fine_number(values: Floats, label: Ints, weight: Floats, most: int, least: float) -> Binned:
    """Bins of about equally many rows, at most so many, and as many again where one value has half of them.

    Each has at least that share of the rows.
    """
    known = ~np.isnan(values)
    distinct, counts = np.unique(values[known], return_counts=True)
    edges = _fine(values[known], most)
    if len(counts) > 1 and counts.max() * 2 > counts.sum():
        common = distinct[np.argmax(counts)]
        others = _fine(values[known & (values != common)], most)
        after = distinct[np.argmax(counts) + 1 :][:1]
        edges = np.unique([*edges, *others, *(after if common == distinct[0] else [])])
    at = np.searchsorted(edges, values[known], side="right")
    total, positive = (_counts(at, w[known], len(edges) + 1) for w in (weight, weight * label))
    kept, rows = list[int](), 0.0
    for place, more in enumerate(total.tolist()):
        rows += more
        left = float(total[place + 1 :].sum())
        if place < len(edges) and rows >= least * weight.sum() and left >= least * weight.sum():
            kept.append(place + 1)
            rows = 0.0
    starts = [0, *kept]
    sums = _sums(starts, total, positive)
    return Binned(
        edges=[float(edges[start - 1]) for start in kept],
        weight=np.append(sums[0], weight[~known].sum()),
        positive=np.append(sums[1], (weight * label)[~known].sum()),
    )


def each_category(codes: Floats, categories: int, label: Ints, weight: Floats, least: float) -> Binned:
    """A bin of its own for each category, but for those with less than that share of the rows, which share one."""
    known = ~np.isnan(codes)
    at = codes[known].astype(np.int64)
    total, positive = (_counts(at, w[known], categories) for w in (weight, weight * label))
    large = total >= least * weight.sum()
    groups = np.where(large, np.cumsum(large) - 1, large.sum())
    size = int(groups.max(initial=-1)) + 1
    return Binned(
        groups=groups.tolist(),
        weight=np.append(_counts(groups, total, size), weight[~known].sum()),
        positive=np.append(_counts(groups, positive, size), (weight * label)[~known].sum()),
    )


def joined_alike(one: Binned, value: Ints) -> tuple[Binned, Ints]:
    """Neighbouring bins of a number, and bins of categories, with the same `value` as one; and the values left."""
    last = len(one.weight) - 1
    if one.edges is not None:
        starts = [0, *(at for at in range(1, last) if value[at] != value[at - 1])]
        sums = _sums(starts, one.weight[:last], one.positive[:last])
        return Binned(
            edges=[one.edges[start - 1] for start in starts[1:]],
            weight=np.append(sums[0], one.weight[last]),
            positive=np.append(sums[1], one.positive[last]),
        ), np.append(value[starts], value[last])
    distinct, place = np.unique(value[:last], return_inverse=True)
    return Binned(
        groups=[int(place[at]) for at in one.groups or []],
        weight=np.append(_counts(place, one.weight[:last], len(distinct)), one.weight[last]),
        positive=np.append(_counts(place, one.positive[:last], len(distinct)), one.positive[last]),
    ), np.append(distinct, value[last])


def _fine(values: Floats, most: int = _FINE) -> Floats:
    """Edges of equally many rows, of three significant digits: what a card prints is what it does."""
    if not len(values):
        return np.zeros(0)
    edges = np.quantile(values, np.linspace(0, 1, most + 1)[1:-1])
    rounded = np.unique([float(f"{edge:.3g}") for edge in edges])
    found: Floats = rounded[(rounded > values.min()) & (rounded <= values.max())]
    return found


def _counts(at: Any, weight: Floats, bins: int) -> Floats:
    """The weight of the rows of each bin."""
    return np.asarray(np.bincount(at, weights=weight, minlength=bins), dtype=np.float64)


def _sums(starts: Sequence[int], total: Floats, positive: Floats) -> tuple[Floats, Floats]:
    """Of runs of fine bins, given by the first of each."""
    return np.add.reduceat(total, starts), np.add.reduceat(positive, starts)


def _pooled(total: Floats, positive: Floats, sign: int) -> list[int]:
    """The first fine bins of the runs after pooling those against the direction."""
    runs: list[tuple[int, float, float]] = []
    for start, (rows, hits) in enumerate(zip(total.tolist(), positive.tolist(), strict=True)):
        runs.append((start, rows, hits))
        while len(runs) > 1 and sign * (_rate(runs[-1]) - _rate(runs[-2])) <= 0:
            _, more, gained = runs.pop()
            first, rows, hits = runs.pop()
            runs.append((first, rows + more, hits + gained))
    return [first for first, _, _ in runs]


def _rate(run: tuple[int, float, float]) -> float:
    return run[2] / max(run[1], _EPS)


def _fewer(starts: Sequence[int], total: Floats, positive: Floats, most: int, least: float) -> list[int]:
    """Join neighbours: first bins that are too small, or have one class only, then those that differ least."""
    kept = list(starts)
    while len(kept) > 1:
        rows, hits = _sums(kept, total, positive)
        small = (rows < least) | (hits <= 0) | (hits >= rows)
        costs = [_fit(rows, hits) - _fit(*_sums(_without(kept, at), total, positive)) for at in range(1, len(kept))]
        if small.any():
            worst = int(np.flatnonzero(small)[np.argmin(rows[small])])
            sides = [at for at in (worst, worst + 1) if 1 <= at < len(kept)]
        elif len(kept) > most:
            sides = list(range(1, len(kept)))
        else:
            break
        kept = _without(kept, sides[int(np.argmin([costs[at - 1] for at in sides]))])
    return kept


def _without(starts: Sequence[int], at: int) -> list[int]:
    return [*starts[:at], *starts[at + 1 :]]


def _fit(total: Floats, positive: Floats) -> float:
    """Log-likelihood of the classes by the shares of the bins."""
    rate = np.clip(positive / np.maximum(total, _EPS), _EPS, 1 - _EPS)
    return float(np.sum(positive * np.log(rate) + (total - positive) * np.log(1 - rate)))

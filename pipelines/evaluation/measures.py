"""Quality measures in numpy, all with row weights, so that a bootstrap is a set of weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
EPS = 1e-12
_ECE_BINS = 15
_GAPS = frozenset({"ece"})
"""Metrics that add up sizes of gaps: noise makes each larger, in the rows and again in every resampling of them."""


def evenly(rows: int, most: int) -> NDArray[np.int64]:
    """At most `most` places of so many rows, the first and the last among them."""
    return np.unique(np.linspace(0, rows - 1, min(rows, most)).astype(np.int64))


def auc(positive: NDArray[Any], score: Floats, weight: Floats | None = None) -> float:
    """Area under the ROC curve, ties counted half; NaN without both classes."""
    return Ranking(np.asarray(positive, dtype=bool), np.asarray(score, dtype=np.float64)).areas(weight)[1]


class Ranking:
    """Rows sorted by falling score once, so that every set of weights costs only cumulative sums."""

    def __init__(self, positive: NDArray[np.bool_], score: Floats) -> None:
        self.order = np.argsort(-score, kind="stable")
        self.positive = positive[self.order].astype(np.float64)
        ranked = score[self.order]
        self.ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # last row of each group of ties

    def areas(self, weight: Floats | None) -> tuple[float, float]:
        """Average precision and area under the ROC curve; NaN where a class is missing."""
        w = np.ones(len(self.positive)) if weight is None else weight[self.order]
        true = np.cumsum(w * self.positive)[self.ends]
        alarms = np.cumsum(w)[self.ends]
        false = alarms - true
        if not len(true) or true[-1] <= 0:
            return float("nan"), float("nan")
        found = np.diff(true, prepend=0.0)
        precision = float(np.sum(found * true / np.maximum(alarms, EPS)) / true[-1])
        if false[-1] <= 0:
            return precision, float("nan")
        area = float(np.sum(np.diff(false, prepend=0.0) * (true - found / 2)) / (true[-1] * false[-1]))
        return precision, area


Measure = Callable[[Floats | None], dict[str, float]]


def mean(values: Floats) -> float:
    """Of the values that are defined; NaN without one."""
    defined = values[np.isfinite(values)]
    return float(np.mean(defined)) if len(defined) else float("nan")


def bins_of(probability: Floats) -> NDArray[np.int64]:
    return np.minimum((probability * _ECE_BINS).astype(np.int64), _ECE_BINS - 1)


def ece(bins: NDArray[np.int64], probability: Floats, outcome: Floats, weight: Floats) -> float:
    """Expected calibration error: the gap between said and true share, averaged over 15 equal bins."""
    gap = np.bincount(bins, weights=weight * (probability - outcome), minlength=_ECE_BINS)
    return float(np.abs(gap).sum() / max(float(weight.sum()), EPS))


def bootstrap(measure: Measure, rows: int, seed: int, rounds: int | None = None) -> dict[str, tuple[float, float]]:
    """95 % intervals of every metric by resampling rows; metrics that are NaN in a round are left out of it.

    The number of rounds falls from 400 to 100 as rows grow, which bounds the time to seconds. Intervals of the
    calibration error are corrected for what resampling adds to it (`_without_bias`).
    """
    if rows < 2:
        return {}
    rounds = rounds or int(np.clip(6e6 / rows, 100, 400))
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {}
    for _ in range(rounds):
        weight = np.bincount(rng.integers(0, rows, rows), minlength=rows).astype(np.float64)
        for name, value in measure(weight).items():
            drawn.setdefault(name, []).append(value)
    found = {name: interval for name, values in drawn.items() if (interval := _interval(values))}
    known = measure(None) if _GAPS & found.keys() else {}
    return found | {name: _without_bias(drawn[name], known[name], *found[name]) for name in _GAPS & found.keys()}


def paired_bootstrap(
    candidate: Measure, champion: Measure, metric: str, groups: NDArray[np.int64], seed: int, rounds: int | None = None
) -> tuple[float, float] | None:
    """95 % interval of the difference of two models in one metric, each round with the same rows for both.

    Rows of one group (copies of a text) are drawn together. None when the metric is NaN in most rounds. The number of
    rounds falls from 2,000 to 100 as rows grow.
    """
    count = int(groups.max()) + 1
    rounds = rounds or int(np.clip(6e6 / len(groups), 100, 2000))
    rng = np.random.default_rng(seed)
    differences = []
    for _ in range(rounds):
        weight = np.bincount(rng.integers(0, count, count), minlength=count).astype(np.float64)[groups]
        differences.append(candidate(weight)[metric] - champion(weight)[metric])
    found = _interval(differences)
    if found is None or metric not in _GAPS:
        return found
    bias = float(np.nanmedian(differences)) - (candidate(None)[metric] - champion(None)[metric])
    return found[0] - bias, found[1] - bias


def _interval(values: list[float]) -> tuple[float, float] | None:
    known = np.array([v for v in values if np.isfinite(v)])
    if len(known) < 0.5 * len(values):
        return None
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)


def _without_bias(values: list[float], value: float, low: float, high: float) -> tuple[float, float]:
    """An interval of a metric of `_GAPS`, around its `value`.

    What resampling adds to the value (the bias that a bootstrap estimates: Efron and Tibshirani, An Introduction to
    the Bootstrap, 1993, chapter 10) is taken from both ends. The value has a bias too, which is taken from the lower
    end: without true gaps all of the value is noise, and resampling, which doubles the variance of each gap, adds
    sqrt(2) - 1 of it; with larger gaps both go to zero.
    """
    added = max(float(np.nanmedian(values)) - value, 0.0)
    bias = added / (np.sqrt(2) - 1)
    return float(max(min(low - added - bias, value), 0.0)), max(high - added, value)


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Without the metrics that are not defined on these rows."""
    return {name: float(value) for name, value in metrics.items() if np.isfinite(value)}

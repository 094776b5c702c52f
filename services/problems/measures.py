"""Quality of logged answers once labels are there, as functions of row weights; named and defined as in the bundle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FALLING = frozenset({"brier", "mae", "rmse", "hamming_loss"})  # less is better
UNRANKED = frozenset({"bias"})  # neither more nor less is better
Numbers = NDArray[np.float64]
Measure = Callable[[Numbers], dict[str, float]]


def binary(true: NDArray[np.bool_], said: NDArray[np.bool_], score: Numbers) -> Measure:
    """Of one of two classes that is looked for."""
    order = np.argsort(-score, kind="stable")
    sorted_true, sorted_score = true[order].astype(np.float64), score[order]
    last = np.append(np.nonzero(np.diff(sorted_score))[0], len(score) - 1)  # of rows with the same score

    def measure(weight: Numbers) -> dict[str, float]:
        parts = (weight * (true & said), weight * said, weight * true, weight)
        hit, said_sum, there, total = (float(part.sum()) for part in parts)
        hits = np.cumsum(weight[order] * sorted_true)[last]
        seen = np.cumsum(weight[order])[last]
        steps = np.diff(hits, prepend=0.0)
        average = float((steps * hits / np.maximum(seen, 1e-12)).sum()) / there if there > 0 else np.nan
        return {
            "average_precision": average,
            "precision": _ratio(hit, said_sum),
            "recall": _ratio(hit, there),
            "f1": _ratio(2 * hit, said_sum + there),
            "accuracy": _ratio(total - said_sum - there + 2 * hit, total),
            "brier": _ratio(float((weight * (score - true) ** 2).sum()), total),
        }

    return measure


def classes(true: NDArray[np.int64], said: NDArray[np.int64], number: int) -> Measure:
    """Of several classes, given by their positions; ``macro_f1`` is the mean over those that the rows have."""

    def measure(weight: Numbers) -> dict[str, float]:
        right = true == said
        hit = np.bincount(true[right], weights=weight[right], minlength=number)
        there = np.bincount(true, weights=weight, minlength=number)
        given = np.bincount(said, weights=weight, minlength=number)
        f1 = 2 * hit[there > 0] / (there + given)[there > 0]
        return {
            "accuracy": _ratio(float(hit.sum()), float(weight.sum())),
            "macro_f1": float(f1.mean()) if len(f1) else np.nan,
        }

    return measure


def labels(true: NDArray[np.bool_], said: NDArray[np.bool_]) -> Measure:
    """Of several labels of a row; shape (rows, labels)."""
    hit, both = (true & said).sum(axis=1), true.sum(axis=1) + said.sum(axis=1)
    exact, wrong = (true == said).all(axis=1), (true != said).mean(axis=1)

    def measure(weight: Numbers) -> dict[str, float]:
        total = float(weight.sum())
        return {
            "micro_f1": _ratio(2 * float((weight * hit).sum()), float((weight * both).sum())),
            "subset_accuracy": _ratio(float((weight * exact).sum()), total),
            "hamming_loss": _ratio(float((weight * wrong).sum()), total),
        }

    return measure


def numbers(true: Numbers, said: Numbers) -> Measure:
    """Of a regression."""
    error = said - true

    def measure(weight: Numbers) -> dict[str, float]:
        total = float(weight.sum())
        squares = _ratio(float((weight * error**2).sum()), total)
        mean = _ratio(float((weight * true).sum()), total)
        spread = _ratio(float((weight * (true - mean) ** 2).sum()), total)
        return {
            "mae": _ratio(float((weight * np.abs(error)).sum()), total),
            "rmse": squares**0.5,
            "bias": _ratio(float((weight * error).sum()), total),
            "r2": 1 - squares / spread if spread > 0 else np.nan,
        }

    return measure


def positions(names: Sequence[str], values: Sequence[Any]) -> NDArray[np.int64]:
    """The position of each value among `names`, which has it."""
    at = {name: place for place, name in enumerate(names)}
    return np.array([at[value] for value in values], dtype=np.int64)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else float("nan")

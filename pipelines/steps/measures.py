"""Quality measures in numpy, all with row weights, so that a bootstrap is a set of weights."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.tasks.gate_metrics import FEW, RANKED

Floats = NDArray[np.float64]
HIGHER_IS_BETTER = {
    "average_precision", "roc_auc", "accuracy", "macro_f1", "precision", "recall", "f1",
}  # fmt: skip
_EPS = 1e-12
_ECE_BINS = 15
_KEPT = 20_000_000  # scores whose order is kept for the next weights


def higher_is_better(metric: str) -> bool:
    """Whether more is better; ``f1:<class>`` counts as f1."""
    return metric.split(":")[0] in HIGHER_IS_BETTER


def auc(positive: NDArray[Any], score: Floats, weight: Floats | None = None) -> float:
    """Area under the ROC curve, ties counted half; NaN without both classes."""
    return _Ranking(np.asarray(positive, dtype=bool), np.asarray(score, dtype=np.float64)).areas(weight)[1]


class _Ranking:
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
        precision = float(np.sum(found * true / np.maximum(alarms, _EPS)) / true[-1])
        if false[-1] <= 0:
            return precision, float("nan")
        area = float(np.sum(np.diff(false, prepend=0.0) * (true - found / 2)) / (true[-1] * false[-1]))
        return precision, area


@dataclass(frozen=True)
class Rule:
    """How a binary probability becomes a decision, and what errors cost; `miss_cost` has one value per row or one."""

    threshold: float = 0.5
    false_alarm_cost: float = 1.0
    miss_cost: float | Floats = 1.0


Measure = Callable[[Floats | None], dict[str, float]]


def classification(
    label: NDArray[np.int64],
    probability: Floats,
    classes: Sequence[str],
    rule: Rule | None = None,
    positive: int = 1,
    only: Collection[str] | None = None,
) -> Measure:
    """Measures of a classification as a function of row weights, of one set whatever the number of classes.

    Of two classes `positive`, a position in `classes`, is the one that is looked for, and `rule` says when it is found:
    ``average_precision``, ``roc_auc``, ``precision``, ``recall``, ``f1`` and ``brier`` are its own. Of more classes
    they are means over the classes, see `multiclass`.

    `only` are the metrics that are wanted, where that saves time: others may be left out.
    """
    per_class = len(classes) <= FEW
    if len(classes) != 2:
        return multiclass(label, probability, list(classes), per_class, only)
    score, rule = probability[:, positive], rule or Rule()
    predicted = np.where(score >= rule.threshold, positive, 1 - positive)
    of_positive = binary(label == positive, score, rule)
    of_both = _by_class(label, predicted, list(classes), per_class)

    def measure(weight: Floats | None = None) -> dict[str, float]:
        return of_positive(weight) | _shown(of_both(weight), ("accuracy", "macro_f1", "f1:"))

    return measure


def _shown(found: Mapping[str, float], starts: tuple[str, ...]) -> dict[str, float]:
    return {name: value for name, value in found.items() if name.startswith(starts)}


def binary(positive: NDArray[np.bool_], probability: Floats, rule: Rule) -> Measure:
    """Measures of a binary task as a function of row weights; `probability` is the positive class's.

    ``cost`` is the mean cost of a row.
    """
    ranking = _Ranking(positive, probability)
    y = positive.astype(np.float64)
    alarm = (probability >= rule.threshold).astype(np.float64)
    square = (probability - y) ** 2
    clipped = np.clip(probability, _EPS, 1 - _EPS)
    loss = -(y * np.log(clipped) + (1 - y) * np.log1p(-clipped))
    cost = alarm * (1 - y) * rule.false_alarm_cost + (1 - alarm) * y * rule.miss_cost
    bins = _bins(probability)
    # One pass for all sums; einsum, because BLAS starts threads for it, which is slow beside other work.
    summed = np.column_stack([np.ones(len(y)), alarm * y, alarm, y, cost, square, loss])

    def measure(weight: Floats | None = None) -> dict[str, float]:
        w = np.ones(len(y)) if weight is None else weight
        total, hit, alarms, positives, costs, squares, losses = np.einsum("i,ij->j", w, summed).tolist()
        total = max(total, _EPS)
        precision, area = ranking.areas(w)
        return {
            "average_precision": precision,
            "roc_auc": area,
            "precision": hit / alarms if alarms > 0 else float("nan"),
            "recall": hit / positives if positives > 0 else float("nan"),
            "f1": 2 * hit / (alarms + positives) if alarms + positives > 0 else float("nan"),
            "cost": costs / total,
            "brier": squares / total,
            "log_loss": losses / total,
            "ece": _ece(bins, probability, y, w),
        }

    return measure


def multiclass(
    label: NDArray[np.int64],
    probability: Floats,
    classes: list[str],
    per_class: bool = True,
    only: Collection[str] | None = None,
) -> Measure:
    """Measures of a task with several classes; `label` holds positions in `classes`, -1 for a class unknown to it.

    ``average_precision`` and ``roc_auc`` of each class against the rest, ``precision``, ``recall`` and ``f1`` are means
    over the classes that the rows have; a class that is never predicted has a precision of 0. ``brier`` is half the sum
    over the classes, which of two classes is that of either, and ``cost`` counts 1 for each wrong row.
    """
    rows = len(label)
    predicted = probability.argmax(axis=1) if rows else np.zeros(0, dtype=np.int64)
    right = (predicted == label).astype(np.float64)
    known = label >= 0
    given = np.where(known, probability[np.arange(rows), np.maximum(label, 0)], 0.0)
    loss = -np.log(np.clip(given, _EPS, 1.0))
    square = (np.einsum("ij,ij->i", probability, probability) - 2 * given + known) / 2
    confidence = probability.max(axis=1) if rows else np.zeros(0)
    bins = _bins(confidence)
    decided = _by_class(label, predicted, classes, per_class)
    ranked = only is None or bool(RANKED & set(only))
    keeps = ranked and rows * len(classes) <= _KEPT
    kept = [_Ranking(label == at, probability[:, at]) for at in range(len(classes))] if keeps else None

    def areas(weight: Floats) -> tuple[float, float]:
        seen = np.unique(label[known & (weight > 0)])
        rankings = (kept[at] if kept else _Ranking(label == at, probability[:, at]) for at in seen)
        found = np.array([ranking.areas(weight) for ranking in rankings]).reshape(-1, 2)
        return _mean(found[:, 0]), _mean(found[:, 1])

    def measure(weight: Floats | None = None) -> dict[str, float]:
        w = np.ones(rows) if weight is None else weight
        total = max(float(w.sum()), _EPS)
        found = decided(w)
        own = _shown(found, ("f1:",))
        whole = {
            "accuracy": found["accuracy"],
            "macro_f1": found["macro_f1"],
            "log_loss": float(np.sum(w * loss)) / total,
            "ece": _ece(bins, confidence, right, w),
        }
        if ranked:
            whole["average_precision"], whole["roc_auc"] = areas(w)
        whole |= {name: found[name] for name in ("precision", "recall")}
        whole |= {"f1": found["macro_f1"], "cost": 1 - found["accuracy"], "brier": float(np.sum(w * square)) / total}
        return whole | own

    return measure


def _by_class(
    label: NDArray[np.int64], predicted: NDArray[np.int64], classes: Sequence[str], per_class: bool
) -> Measure:
    """What follows from decisions alone: accuracy, and precision, recall and F1 as means over the classes seen."""
    right = (predicted == label).astype(np.float64)
    known = label >= 0
    count = len(classes)

    def measure(weight: Floats | None = None) -> dict[str, float]:
        w = np.ones(len(label)) if weight is None else weight
        hits = np.bincount(predicted, weights=w * right, minlength=count)
        said = np.bincount(predicted, weights=w, minlength=count)
        true = np.bincount(label[known], weights=w[known], minlength=count)
        f1 = np.where(said + true > 0, 2 * hits / np.maximum(said + true, _EPS), np.nan)
        seen = true > 0
        found = {
            "accuracy": float(np.sum(w * right)) / max(float(w.sum()), _EPS),
            "macro_f1": _mean(f1[seen]),
            "precision": _mean(hits[seen] / np.maximum(said[seen], _EPS)),
            "recall": _mean(hits[seen] / true[seen]),
        }
        if per_class:
            found |= {f"f1:{name}": float(value) for name, value in zip(classes, f1, strict=True)}
        return found

    return measure


def _mean(values: Floats) -> float:
    """Of the values that are defined; NaN without one."""
    defined = values[np.isfinite(values)]
    return float(np.mean(defined)) if len(defined) else float("nan")


def _bins(probability: Floats) -> NDArray[np.int64]:
    return np.minimum((probability * _ECE_BINS).astype(np.int64), _ECE_BINS - 1)


def _ece(bins: NDArray[np.int64], probability: Floats, outcome: Floats, weight: Floats) -> float:
    """Expected calibration error: the gap between said and true share, averaged over 15 equal bins."""
    gap = np.bincount(bins, weights=weight * (probability - outcome), minlength=_ECE_BINS)
    return float(np.abs(gap).sum() / max(float(weight.sum()), _EPS))


def bootstrap(measure: Measure, rows: int, seed: int, rounds: int | None = None) -> dict[str, tuple[float, float]]:
    """95 % intervals of every metric by resampling rows; metrics that are NaN in a round are left out of it.

    The number of rounds falls from 400 to 100 as rows grow, which bounds the time to seconds.
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
    return {name: interval for name, values in drawn.items() if (interval := _interval(values))}


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
    return _interval(differences)


def _interval(values: list[float]) -> tuple[float, float] | None:
    known = np.array([v for v in values if np.isfinite(v)])
    if len(known) < 0.5 * len(values):
        return None
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Without the metrics that are not defined on these rows."""
    return {name: float(value) for name, value in metrics.items() if np.isfinite(value)}

"""Measures of a classification: one set, whatever the number of its classes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation.base import FEW
from pipelines.evaluation.measures import EPS, Floats, Measure, Ranking, bins_of, ece, mean

RANKED = frozenset({"average_precision", "roc_auc"})  # from the order of scores: dear where classes are many
_OF_BOTH = ("accuracy", "macro_f1", "f1:")  # of two classes: what is not of the positive one alone
_KEPT = 20_000_000  # scores whose order is kept for the next weights


@dataclass(frozen=True)
class Rule:
    """How a binary probability becomes a decision, and what errors cost; `miss_cost` has one value per row or one."""

    threshold: float = 0.5
    false_alarm_cost: float = 1.0
    miss_cost: float | Floats = 1.0


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
    if only is not None and not any(name.startswith(_OF_BOTH) for name in only):
        return of_positive
    of_both = _by_class(label, predicted, list(classes), per_class)

    def measure(weight: Floats | None = None) -> dict[str, float]:
        return of_positive(weight) | _shown(of_both(weight), _OF_BOTH)

    return measure


def _shown(found: Mapping[str, float], starts: tuple[str, ...]) -> dict[str, float]:
    return {name: value for name, value in found.items() if name.startswith(starts)}


def binary(positive: NDArray[np.bool_], probability: Floats, rule: Rule) -> Measure:
    """Measures of a binary task as a function of row weights; `probability` is the positive class's.

    ``cost`` is the mean cost of a row.
    """
    ranking = Ranking(positive, probability)
    y = positive.astype(np.float64)
    alarm = (probability >= rule.threshold).astype(np.float64)
    square = (probability - y) ** 2
    clipped = np.clip(probability, EPS, 1 - EPS)
    loss = -(y * np.log(clipped) + (1 - y) * np.log1p(-clipped))
    cost = alarm * (1 - y) * rule.false_alarm_cost + (1 - alarm) * y * rule.miss_cost
    bins = bins_of(probability)
    # One pass for all sums; einsum, because BLAS starts threads for it, which is slow beside other work.
    summed = np.column_stack([np.ones(len(y)), alarm * y, alarm, y, cost, square, loss])

    def measure(weight: Floats | None = None) -> dict[str, float]:
        w = np.ones(len(y)) if weight is None else weight
        total, hit, alarms, positives, costs, squares, losses = np.einsum("i,ij->j", w, summed).tolist()
        total = max(total, EPS)
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
            "ece": ece(bins, probability, y, w),
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
    loss = -np.log(np.clip(given, EPS, 1.0))
    square = (np.einsum("ij,ij->i", probability, probability) - 2 * given + known) / 2
    confidence = probability.max(axis=1) if rows else np.zeros(0)
    bins = bins_of(confidence)
    decided = _by_class(label, predicted, classes, per_class)
    ranked = only is None or bool(RANKED & set(only))
    keeps = ranked and rows * len(classes) <= _KEPT
    kept = [Ranking(label == at, probability[:, at]) for at in range(len(classes))] if keeps else None

    def areas(weight: Floats) -> tuple[float, float]:
        seen = np.unique(label[known & (weight > 0)])
        rankings = (kept[at] if kept else Ranking(label == at, probability[:, at]) for at in seen)
        found = np.array([ranking.areas(weight) for ranking in rankings]).reshape(-1, 2)
        return mean(found[:, 0]), mean(found[:, 1])

    def measure(weight: Floats | None = None) -> dict[str, float]:
        w = np.ones(rows) if weight is None else weight
        total = max(float(w.sum()), EPS)
        found = decided(w)
        own = _shown(found, ("f1:",))
        whole = {
            "accuracy": found["accuracy"],
            "macro_f1": found["macro_f1"],
            "log_loss": float(np.sum(w * loss)) / total,
            "ece": ece(bins, confidence, right, w),
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
        f1 = np.where(said + true > 0, 2 * hits / np.maximum(said + true, EPS), np.nan)
        seen = true > 0
        found = {
            "accuracy": float(np.sum(w * right)) / max(float(w.sum()), EPS),
            "macro_f1": mean(f1[seen]),
            "precision": mean(hits[seen] / np.maximum(said[seen], EPS)),
            "recall": mean(hits[seen] / true[seen]),
        }
        if per_class:
            found |= {f"f1:{name}": float(value) for name, value in zip(classes, f1, strict=True)}
        return found

    return measure


def on_scale(label: NDArray[np.int64], predicted: NDArray[np.int64], count: int) -> Measure:
    """Measures of ordered classes: Cohen's kappa with quadratic weights, and the mean distance on the scale.

    Rows of an unknown class, -1, have no place on it.
    """
    known = label >= 0
    pair = label[known] * count + predicted[known]
    ranks = np.arange(count)
    distance = np.abs(ranks[:, None] - ranks[None, :])

    def measure(weight: Floats | None = None) -> dict[str, float]:
        w = None if weight is None else weight[known]
        seen = np.bincount(pair, weights=w, minlength=count * count).reshape(count, count).astype(np.float64)
        total = float(seen.sum())
        if total <= 0:
            return {"quadratic_kappa": float("nan"), "rank_error": float("nan")}
        chance = float((distance**2 * np.outer(seen.sum(axis=1), seen.sum(axis=0))).sum()) / total
        return {
            "quadratic_kappa": 1 - float((distance**2 * seen).sum()) / chance if chance > 0 else float("nan"),
            "rank_error": float((distance * seen).sum()) / total,
        }

    return measure

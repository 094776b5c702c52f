"""Measures of a multilabel classification, as functions of row weights."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation.base import FEW
from pipelines.evaluation.measures import EPS, Floats, Measure, Ranking, mean


def multilabel(
    true: NDArray[np.bool_],
    probability: Floats,
    given: NDArray[np.bool_],
    labels: Sequence[str],
    only: Collection[str] | None = None,
) -> Measure:
    """Measures of decisions and of probabilities; all arrays have shape (rows, labels).

    ``macro_f1`` and ``average_precision`` are means over the labels that the rows have; ``precision``, ``recall`` and
    ``micro_f1`` count all decisions alike. `only` as in `Evaluation.measure_for`.
    """
    counted = np.concatenate([true & given, given, true], axis=1).astype(np.float64)
    clipped = np.clip(probability, EPS, 1 - EPS)
    loss = -np.where(true, np.log(clipped), np.log1p(-clipped)).mean(axis=1)
    wrong = (true != given).mean(axis=1)
    rows = np.column_stack([(true == given).all(axis=1), wrong, loss]).astype(np.float64)
    ranked = only is None or "average_precision" in only
    rankings = [Ranking(true[:, at], probability[:, at]) for at in range(len(labels))] if ranked else []

    def measure(weight: Floats | None = None) -> dict[str, float]:
        w = np.ones(len(true)) if weight is None else weight
        hit, said, there = np.split(np.einsum("i,ij->j", w, counted), 3)
        exact, hamming, losses = (np.einsum("i,ij->j", w, rows) / max(float(w.sum()), EPS)).tolist()
        f1 = np.where(said + there > 0, 2 * hit / np.maximum(said + there, EPS), np.nan)
        found = {
            "micro_f1": _ratio(2 * hit.sum(), said.sum() + there.sum()),
            "macro_f1": mean(f1[there > 0]),
            "precision": _ratio(hit.sum(), said.sum()),
            "recall": _ratio(hit.sum(), there.sum()),
            "subset_accuracy": exact,
            "hamming_loss": hamming,
            "log_loss": losses,
        }
        if ranked:
            found["average_precision"] = mean(np.array([ranking.areas(w)[0] for ranking in rankings]))
        if len(labels) <= FEW:
            found |= {f"f1:{name}": float(value) for name, value in zip(labels, f1, strict=True)}
        return found

    return measure


def _ratio(part: Any, whole: Any) -> float:
    return float(part / whole) if whole > 0 else float("nan")

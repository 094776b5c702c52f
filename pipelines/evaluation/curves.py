"""The counts behind an evaluation's pictures, small enough for a page: confusion matrix and ROC curve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation.plots import confusion_counts

if TYPE_CHECKING:
    from contracts.problems.classification import Decision

CLASSES = 20  # of a confusion matrix; the rarer ones are counted together
_POINTS = 100


def curves(
    true: NDArray[np.int64], probability: NDArray[np.float64], classes: Sequence[str], decision: Decision | None
) -> dict[str, Any]:
    """``confusion`` (classes, counts: a row per true class) and, of two classes, ``roc`` (fpr, tpr, threshold).

    Args:
        true: position of each row's class; -1 of rows that are left out.
    """
    if len(classes) != 2:
        return {"confusion": confusion(confusion_counts(true, probability.argmax(axis=1), len(classes)), classes)}
    at = list(classes).index(decision.positive) if decision else 1
    score = probability[:, at]
    alarm = np.where(score >= (decision.threshold if decision else 0.5), at, 1 - at)
    counts = confusion_counts(true, alarm, 2)
    known = true >= 0
    return {"confusion": confusion(counts, classes), "roc": roc(true[known] == at, score[known])}


def confusion(counts: NDArray[np.int64], classes: Sequence[str], most: int = CLASSES) -> dict[str, Any]:
    """The matrix of the `most` commonest classes, the others as one: "37 others"."""
    names = list(classes)
    if len(names) > most:
        common = np.sort(np.argsort(-counts.sum(axis=1), kind="stable")[:most])
        group = np.full(len(names), most)
        group[common] = np.arange(most)
        merged = np.zeros((most + 1, most + 1), dtype=np.int64)
        np.add.at(merged, (group[:, None], group[None, :]), counts)
        counts, names = merged, [*(names[each] for each in common), f"{len(names) - most} others"]
    return {"classes": names, "counts": counts.tolist()}


def roc(positive: NDArray[np.bool_], score: NDArray[np.float64], points: int = _POINTS) -> dict[str, list[float]]:
    """The ROC curve from nothing to everything called positive, thinned evenly along its length."""
    order = np.argsort(-score, kind="stable")
    ordered, hits = score[order], positive[order]
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)  # equal scores are one point
    tpr = np.append(0.0, np.cumsum(hits)[last] / max(int(hits.sum()), 1))
    fpr = np.append(0.0, np.cumsum(~hits)[last] / max(int((~hits).sum()), 1))
    threshold = np.append(1.0, ordered[last])
    along = (tpr + fpr) / 2
    kept = np.unique(np.searchsorted(along, np.linspace(0, along[-1], points)))
    found = {"fpr": fpr[kept], "tpr": tpr[kept], "threshold": threshold[kept]}
    return {name: [round(float(value), 5) for value in values] for name, values in found.items()}

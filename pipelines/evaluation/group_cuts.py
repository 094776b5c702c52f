"""Answers as thresholds by group judge them: probabilities that the common threshold parts in the same way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from contracts.problems.classification import Decision


def moved(answers: Any, groups: Sequence[str], positive: int, decision: Decision) -> Any:
    """Probabilities of two classes, stretched so that the threshold of a row's group lies where the common one is.

    Args:
        answers: shape (rows, 2).  groups: of each row; one without a threshold has the common one.
        positive: the column that `decision` is about.
    """
    if decision.by_group is None:
        return answers
    common, own = decision.threshold, decision.by_group.thresholds
    cut = np.array([own.get(str(name), common) for name in groups], dtype=np.float64)
    given = np.asarray(answers, dtype=np.float64)[:, positive]
    with np.errstate(divide="ignore", invalid="ignore"):
        below = np.where(cut > 0, given * common / cut, given)
        above = np.where(cut < 1, 1 - (1 - given) * (1 - common) / (1 - cut), given)
    told = np.where(cut == common, given, np.where(given >= cut, np.maximum(above, common), np.minimum(below, 1.0)))
    # Rounding must not carry a row over the threshold.
    told = np.where((given < cut) & (told >= common), np.nextafter(common, 0), told)
    both = np.empty((len(told), 2))
    both[:, positive], both[:, 1 - positive] = told, 1 - told
    return both

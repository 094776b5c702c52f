"""Parts that evaluations share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.evaluation.base import Evaluation
from pipelines.formatting import number

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

_TEXT_CLASSES = 4  # in the tile of the card


def counts_text(counts: Mapping[str, int]) -> str:
    """Rows of the first classes."""
    shown = ", ".join(f"{name} {number(count)}" for name, count in list(counts.items())[:_TEXT_CLASSES])
    return shown + (", ..." if len(counts) > _TEXT_CLASSES else "")


class ClassLabels(Evaluation):
    """What follows where the label of a row is the name of its class."""

    def counts(self, label: pd.Series[Any]) -> dict[str, int]:
        """Rows of each class."""
        return {str(name): int(count) for name, count in label.value_counts().sort_index().items()}

    def rows_text(self, result: Mapping[str, Any]) -> str:
        """Rows of the first classes."""
        return counts_text(result["labels"])

    def strata(self, label: pd.Series[Any]) -> pd.Series[Any]:
        """Its class."""
        return label.astype("string")

    def associate(self, codes: NDArray[np.int64], label: NDArray[Any], fit: NDArray[np.bool_]) -> float | None:
        """Area under the ROC curve; the mean over the classes where there are more than two."""
        import numpy as np

        from pipelines.evaluation.measures import auc

        classes, y = np.unique(label.astype(str), return_inverse=True)
        if len(np.unique(y[fit])) < 2 or len(np.unique(y[~fit])) < 2:
            return None
        scores = class_shares(codes, y, fit, len(classes))[codes[~fit]]
        present = [k for k in range(len(classes)) if 0 < (y[~fit] == k).sum() < len(y[~fit])]
        if len(classes) == 2:
            present = present[-1:]
        return float(np.mean([auc(y[~fit] == k, scores[:, k]) for k in present])) if present else None


def spread_rows(score: Any, most: int) -> NDArray[np.int64]:
    """At most so many rows, evenly from the lowest score to the highest."""
    import numpy as np

    order = np.argsort(score, kind="stable")
    return np.unique(order[np.linspace(0, len(order) - 1, min(most, len(order))).astype(int)])


def class_shares(codes: NDArray[np.int64], y: NDArray[np.int64], fit: NDArray[np.bool_], classes: int) -> Any:
    """Share of each class among the fitted rows of each value, one row of the prior added."""
    import numpy as np

    counts = np.zeros((codes.max() + 1, classes))
    np.add.at(counts, (codes[fit], y[fit]), 1)
    prior = np.bincount(y[fit], minlength=classes) / fit.sum()
    return (counts + prior) / (counts.sum(axis=1, keepdims=True) + 1)


def histograms(names: Sequence[str], answers: Any) -> dict[str, Any]:
    """Of each name's probability, in 20 equal bins."""
    import numpy as np

    from contracts.baseline import listed, shares_of

    edges = np.linspace(0, 1, 21)
    return {name: {"edges": listed(edges), "shares": shares_of(answers[:, at], edges)} for at, name in enumerate(names)}

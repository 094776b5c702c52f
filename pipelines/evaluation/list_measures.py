"""Measures of ordered lists against the items that people really took, and of what all lists together show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

OWN, FLOOR = "validation_ndcg", "default_ndcg"
"""Parameters of a candidate: NDCG of the validation part, of its best settings and of the default retriever's."""
OF_RANKS = ("ndcg", "recall", "hit_rate", "mrr")
OF_ALL = ("coverage", "gini")


def ranks(lists: Sequence[Sequence[str]], taken: Sequence[Sequence[str]], k: int) -> NDArray[np.float64]:
    """`OF_RANKS` of each row, shape (rows, 4); NaN where nothing was taken.

    All items are ranked, none are sampled (W. Krichene, S. Rendle: On sampled metrics for item recommendation, 2020).
    The gain of NDCG is one for each item taken, and the ideal list has min(k, items taken) of them (K. Järvelin,
    J. Kekäläinen: Cumulated gain-based evaluation of IR techniques, 2002). Recall is the share of the items taken.
    """
    discount = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discount)
    found = np.full((len(lists), len(OF_RANKS)), np.nan)
    for row, (items, wanted) in enumerate(zip(lists, taken, strict=True)):
        if wanted:
            right = set(wanted)
            places = [place for place, item in enumerate(items[:k]) if item in right]
            found[row] = (
                discount[places].sum() / ideal[min(k, len(right)) - 1],
                len(places) / len(right),
                float(bool(places)),
                1 / (1 + places[0]) if places else 0.0,
            )
    return found


class Exposure:
    """How often each item of a catalogue is shown, as a function of row weights."""

    def __init__(self, lists: Sequence[Sequence[str]], catalogue: int) -> None:
        number: dict[str, int] = {}
        self._items = np.array(
            [number.setdefault(one, len(number)) for items in lists for one in items], dtype=np.int64
        )
        self._rows = np.repeat(np.arange(len(lists)), [len(items) for items in lists])
        self._catalogue = max(catalogue, len(number))

    def shown(self, weight: Any = None) -> NDArray[np.float64]:
        """Of each item, the items that are never shown first."""
        each = None if weight is None else np.asarray(weight, dtype=np.float64)[self._rows]
        return np.sort(np.bincount(self._items, weights=each, minlength=self._catalogue).astype(np.float64))

    def measure(self, weight: Any = None) -> dict[str, float]:
        """`OF_ALL`: the share of the catalogue that is shown at all, and the Gini index of how often each item is.

        C. Gini, 1912; of recommenders D. Fleder, K. Hosanagar: Blockbuster culture's next rise or fall, 2009. 0: all
        items alike, 1: one item alone.
        """
        shown = self.shown(weight)
        total, count = shown.sum(), len(shown)
        place = np.arange(1, count + 1)
        gini = float(2 * (place @ shown) / (count * total) - (count + 1) / count) if total > 0 else float("nan")
        return {"coverage": float((shown > 0).mean()), "gini": gini}

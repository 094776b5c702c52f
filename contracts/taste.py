"""What one person's adapter says to a recommender: how much the base is trusted, what attributes are liked, what was
taken since."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Taste:
    """A last layer over candidates.

    Attributes:
        trust: factor of the base's score; 1: as it is.
        weights: of the vectors of items, in units of the base's best score; None: the base's order stays.
        taken: places of items that were taken since the base was trained, the latest last.
    """

    trust: float = 1.0
    weights: NDArray[np.float64] | None = None
    taken: Sequence[int] = ()

    def ordered(
        self, pool: NDArray[np.int64], values: NDArray[np.float64], vectors: NDArray[Any]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The candidates and their values in the order that the person prefers; no value is below 0.

        Args:
            values: of the base, in its order, the best first.
            vectors: of all items.
        """
        if self.weights is None or not len(pool):
            return pool, values
        top = float(values[0]) or 1.0
        liked = self.trust * values / top + np.asarray(vectors[pool], dtype=np.float64) @ self.weights
        liked = top * (liked - min(float(liked.min()), 0.0))
        order = np.argsort(-liked, kind="stable")
        return pool[order], liked[order]


BASE_ALONE = Taste()

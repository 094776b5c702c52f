"""Who took what, as methods of recommending learn from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_DIMENSIONS = 16  # of vectors of items


@dataclass(frozen=True)
class Taken:
    """Who took what: `matrix` of people by items, ones; days of each item's interactions before the last one.

    Attributes:
        user_of: of each interaction.  content: of items by words, the share that each word has.
    """

    matrix: csr_matrix
    ages: NDArray[np.float64]  # days, of each interaction
    item_of: NDArray[np.int64]  # of each interaction
    seed: int = 0
    user_of: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    content: csr_matrix | None = None
    people: NDArray[np.float64] = field(init=False)
    _smooth: dict[tuple[float, int], NDArray[np.float32]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "people", np.asarray(self.matrix.sum(axis=0), dtype=np.float64).ravel())

    def normalised(self, person: float) -> csr_matrix:
        """People by items over the roots of their degrees, those of people to the power of `person`."""
        from scipy.sparse import diags

        sizes = np.asarray(self.matrix.sum(axis=1), dtype=np.float64).ravel()
        left, right = power(sizes, person / 2), power(self.people, 0.5)
        return (diags(left) @ self.matrix @ diags(right)).tocsr().astype(np.float32)

    def smooth(self, person: float, rank: int) -> NDArray[np.float32]:
        """The first right singular vectors of `normalised`, shape (items, rank): what changes least along the graph."""
        from sklearn.utils.extmath import randomized_svd

        if (person, rank) not in self._smooth:
            count = min(rank, *self.matrix.shape)
            _, _, found = randomized_svd(self.normalised(person), count, n_iter=3, random_state=self.seed)
            self._smooth[person, rank] = np.ascontiguousarray(found.T, dtype=np.float32)
        return self._smooth[person, rank]

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """How alike the people of items are: the first singular vectors, each item's of length one."""
        from sklearn.utils.extmath import randomized_svd

        count = min(_DIMENSIONS, *self.matrix.shape)
        scale = 1 / np.sqrt(np.maximum(self.people, 1))
        _, sizes, turned = randomized_svd(self.matrix.multiply(scale).tocsr(), count, random_state=self.seed)
        found = turned.T * sizes
        return np.asarray(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12), dtype=np.float32)

    def trend(self, half_life: float) -> NDArray[np.float32]:
        """How much each item is taken lately, from 0 to 1."""
        weights = 0.5 ** (self.ages / half_life) if half_life else np.ones(len(self.ages))
        total = np.bincount(self.item_of, weights=weights, minlength=self.matrix.shape[1])
        return np.asarray(total / max(total.max(initial=0.0), 1e-12), dtype=np.float32)


def power(degrees: NDArray[np.float64], exponent: float) -> NDArray[np.float64]:
    """The degrees to the power of minus `exponent`; 0 of those without any."""
    return np.where(degrees > 0, np.maximum(degrees, 1e-12) ** -exponent, 0.0)

"""Vectors in which texts of the same meaning lie closer than the texts alone would have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def within_groups(vectors: NDArray[np.float64], groups: Sequence[str], shrinkage: float) -> NDArray[np.float64]:
    """A map of vectors, shape (dimensions, dimensions), after which those of a group differ alike in all directions.

    It is the whitening by the covariance within groups, to which `shrinkage` times its mean variance is added: what
    many groups differ in among themselves, such as how a thing is worded, counts for little.
    """
    import numpy as np

    _, codes, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    means = np.zeros((len(sizes), vectors.shape[1]))
    np.add.at(means, codes, vectors)
    apart = vectors - (means / sizes[:, None])[codes]
    free = len(vectors) - len(sizes)
    if free < 1:  # nothing means the same as anything else
        return np.eye(vectors.shape[1])
    covariance = apart.T @ apart / free
    values, axes = np.linalg.eigh(covariance)
    usual = max(float(values.mean()), 1e-12)
    scaled: NDArray[np.float64] = axes * (np.maximum(values, 0) + shrinkage * usual) ** -0.5
    whitening: NDArray[np.float64] = scaled @ axes.T
    return whitening

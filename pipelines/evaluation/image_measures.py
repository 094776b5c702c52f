"""Measures of generated images beside real ones, in numpy: of features of a network, and of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_NEAR = 3  # neighbours whose distance is the radius of an image
_FOLDS, _LEAST = 5, 10  # of a two-sample test, and images of each kind that it needs


def kernel(real: Floats, made: Floats) -> Floats:
    """Of each two rows how much more alike images of a kind are than those of both, shape (rows, rows), by the cubic
    kernel of features (M. Bińkowski et al.: Demystifying MMD GANs, 2018)."""
    width = real.shape[1]
    alike = [(one @ other.T / width + 1) ** 3 for one, other in ((real, real), (made, made), (real, made))]
    found: Floats = alike[0] + alike[1] - alike[2] - alike[2].T
    return found


def kid(alike: Floats, weight: Floats) -> float:
    """Kernel inception distance on these features, of `kernel`; NaN of fewer than two rows. 0 is no difference.

    The mean over pairs of different rows (A. Gretton et al.: A kernel two-sample test, 2012): rows have a real and a
    made image of the same class, which must not count as alike. It is no FID, nor one on another network.
    """
    pairs = float(weight.sum() ** 2 - (weight**2).sum())
    if pairs <= 0:
        return float("nan")
    return float(weight @ alike @ weight - (weight**2) @ np.diagonal(alike)) / pairs


def covered(points: Floats, by: Floats) -> NDArray[np.float64]:
    """Of each point 1.0 where it lies within the radius of one of `by`, else 0.0; NaN where `by` are too few.

    The radius of a point is its distance to its third neighbour among its own (T. Kynkäänniemi et al.: Improved
    precision and recall metric for assessing generative models, 2019): made points within the reals are precise, real
    ones within the made are recalled.
    """
    if len(by) <= _NEAR:
        return np.full(len(points), np.nan)
    own = distances(by, by)
    np.fill_diagonal(own, -1.0)  # itself is nearest, whatever rounding says
    radius = np.partition(own, _NEAR, axis=1)[:, _NEAR]
    near: Any = (distances(points, by) <= radius[None]).any(axis=1)
    return np.asarray(near, np.float64)


def distances(one: Floats, other: Floats) -> Floats:
    """Euclidean, of each to each."""
    squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1)[None] - 2 * one @ other.T
    found: Floats = np.sqrt(np.maximum(squares, 0))
    return found


def told_apart(real: Floats, made: Floats) -> tuple[Floats, Floats]:
    """Whether a support vector machine that has learned from others tells of each image if it is real: 1.0 or 0.0.

    The mean of both is the accuracy of a classifier two-sample test (D. Lopez-Paz, M. Oquab: Revisiting classifier
    two-sample tests, 2017): 0.5 where nothing tells them apart. NaN of few.
    """
    if min(len(real), len(made)) < _LEAST:
        return np.full(len(real), np.nan), np.full(len(made), np.nan)
    from sklearn.model_selection import StratifiedKFold
    from sklearn.svm import SVC

    values = np.concatenate([real, made])
    values = (values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1e-9)
    kind = np.concatenate([np.zeros(len(real)), np.ones(len(made))])
    right = np.empty(len(kind))
    for fit, held in StratifiedKFold(_FOLDS, shuffle=True, random_state=0).split(values, kind):
        model = SVC(C=10.0).fit(values[fit], kind[fit])
        right[held] = model.predict(values[held]) == kind[held]
    return right[: len(real)], right[len(real) :]


def neighbours_tell(real: NDArray[Any], made: NDArray[Any]) -> tuple[Floats, Floats]:
    """As `told_apart`, by the kind of the nearest other image, of pixels; below 0.5 made ones are too near to reals."""
    flat = np.concatenate([one.reshape(len(one), -1).astype(np.float64) / 255 for one in (real, made)])
    apart = distances(flat, flat)
    np.fill_diagonal(apart, np.inf)
    kind = np.arange(len(flat)) >= len(real)
    right = (kind[apart.argmin(axis=1)] == kind).astype(np.float64)
    return right[: len(real)], right[len(real) :]


def copy_limit(held_out: Floats) -> float:
    """The distance to a training image below which a made one counts as its copy: half of what one in twenty held-out
    real images has."""
    return float(np.quantile(held_out, 0.05)) / 2

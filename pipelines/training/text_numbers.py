"""A number from a text: ridge regression of its terms, with an interval that is wider where errors are larger.

The interval is that of normalised split conformal prediction (Lei et al., JASA 2018): a second regression says how
large errors usually are, and the validation rows say how many times that must be for the share that is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.task import Progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The usual error, exp of a linear score that is kept between `least` and `most`; an end is `margin` of it away."""

    weights: NDArray[np.float64]
    bias: float
    least: float
    most: float
    margin: float


@dataclass(frozen=True, kw_only=True)
class NumberModel:
    """weights: shape (terms,)."""

    weights: NDArray[np.float64]
    bias: float
    spread: Spread | None
    penalty: float
    history: list[dict[str, float]]


def fit_text_number(
    train: Any,
    valid: Any,
    y_train: NDArray[np.float64],
    y_valid: NDArray[np.float64],
    penalties: Sequence[float],
    coverage: float | None,
    seed: int,
    progress: Progress,
) -> NumberModel:
    """Fit on TF-IDF, shape (rows, terms); the penalty is that of the least absolute error on the validation rows."""
    import numpy as np

    center, scale = float(y_train.mean()), float(y_train.std()) or 1.0
    history: list[dict[str, float]] = []
    best: tuple[float, float, Any, float] | None = None
    for done, penalty in enumerate(penalties):
        weights, bias = _ridge(train, (y_train - center) / scale, penalty)
        weights, bias = weights * scale, bias * scale + center
        error = float(np.abs(valid @ weights + bias - y_valid).mean())
        history.append({"penalty": penalty, "valid_mae": error})
        progress(done + 1, len(penalties), valid_mae=error, penalty=penalty)
        if best is None or error < best[0]:
            best = (error, penalty, weights, bias)
    assert best is not None  # a configuration has a penalty
    _, penalty, weights, bias = best
    spread = None
    if coverage is not None:
        errors = np.abs(_held_out(train, y_train, penalty, seed) - y_train)
        spread = _fit_spread(train, errors, penalties, seed, floor=1e-3 * scale)
        off = np.abs(valid @ weights + bias - y_valid)
        usual = np.exp(np.clip(valid @ spread.weights + spread.bias, spread.least, spread.most))
        spread = Spread(**{**vars(spread), "margin": conformal_factor(off / usual, coverage)})
    return NumberModel(weights=weights, bias=bias, spread=spread, penalty=penalty, history=history)


def conformal_factor(ratios: NDArray[np.float64], coverage: float) -> float:
    """How many times the usual error an interval must reach to hold a new row with this probability."""
    import numpy as np

    ordered = np.sort(ratios)
    return float(ordered[min(math.ceil((len(ordered) + 1) * coverage), len(ordered)) - 1])


def _fit_spread(train: Any, errors: NDArray[np.float64], penalties: Sequence[float], seed: int, floor: float) -> Spread:
    """Of the penalties the best one, or one spread for all rows where the texts tell nothing of it."""
    import numpy as np

    target = np.log(np.maximum(errors, floor))
    mean = float(target.mean())
    losses = {p: float(((_held_out(train, target, p, seed) - target) ** 2).mean()) for p in penalties}
    penalty = min(losses, key=lambda one: losses[one])
    weights, bias = np.zeros(train.shape[1]), mean
    if losses[penalty] < float(((target - mean) ** 2).mean()):
        weights, bias = _ridge(train, target, penalty)
    said = train @ weights + bias
    return Spread(weights=weights, bias=bias, least=float(said.min()), most=float(said.max()), margin=1.0)


def _held_out(features: Any, y: NDArray[np.float64], penalty: float, seed: int) -> NDArray[np.float64]:
    """What models of the other folds say of each row."""
    import numpy as np

    fold = np.random.default_rng(seed).permutation(len(y)) % _FOLDS
    said = np.full(len(y), float(y.mean()))
    for one in range(min(_FOLDS, len(y))):
        held = np.flatnonzero(fold == one)
        rest = np.flatnonzero(fold != one)
        if len(rest):
            weights, bias = _ridge(features[rest], y[rest], penalty)
            said[held] = features[held] @ weights + bias
    return said


def _ridge(features: Any, y: NDArray[np.float64], penalty: float) -> tuple[Any, float]:
    from sklearn.linear_model import Ridge

    model = Ridge(alpha=penalty, solver="sparse_cg", tol=1e-6)
    model.fit(features, y)
    return model.coef_, float(model.intercept_)

"""Points of a scorecard from fine bins: a step from each bin to the next, and all steps shrunk together.

A ridge regression on steps (P. Eilers, B. Marx: Flexible smoothing with B-splines and penalties, 1996, with bins in
place of splines): where rows say little, neighbours get the same points. Steps against the direction that an input
must have are none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contracts.errors import PlatformError
from pipelines.settings import setting
from pipelines.training.binning import Binned, Floats, Ints

_ROUNDS = 1000


@dataclass(frozen=True, kw_only=True)
class _Steps:
    """Of one input: what each step adds to each bin, of unit deviation over the rows and mean 0; shape (bins, steps).

    low, high: between which the size of each step must be.
    """

    table: Floats
    low: Floats
    high: Floats
    place: Ints


def fit_steps(
    binned: Sequence[Binned], x: Floats, label: Ints, weight: Floats, c: float, directions: Sequence[int]
) -> tuple[list[Floats], float]:
    """The log-odds of the positive class that each bin of each input adds, and those of all rows.

    Args:
        binned: of the columns of `x`, shape (rows, inputs).  c: 1 / L2.
        directions: of each input, 1 where the log-odds may only rise with the value, -1 only fall, 0 both.

    Raises:
        PlatformError: ``code="bad_config"``: it does not come to an end.
    """
    from scipy.optimize import minimize

    inputs = [_steps(one, one.place(x[:, at]), directions[at]) for at, one in enumerate(binned)]
    ends = np.cumsum([0, *(one.table.shape[1] for one in inputs)])
    sides = np.where(label == 1, 1.0, -1.0)

    def added(steps: Floats) -> list[Floats]:
        return [one.table @ steps[ends[at] : ends[at + 1]] for at, one in enumerate(inputs)]

    def loss(given: Floats) -> tuple[float, Floats]:
        steps, bias = given[:-1], given[-1]
        raw = sides * (bias + sum(bins[one.place] for bins, one in zip(added(steps), inputs, strict=True)))
        slope = -c * weight * sides / (1 + np.exp(np.minimum(raw, 500)))
        by_bin = [one.table.T @ np.bincount(one.place, slope, len(one.table)) for one in inputs]
        gradient = np.append(np.concatenate(by_bin) + steps, slope.sum())
        return float(c * weight @ np.logaddexp(0, -raw) + steps @ steps / 2), gradient

    bounds = np.column_stack(
        [np.concatenate([one.low for one in inputs]), np.concatenate([one.high for one in inputs])]
    )
    rate = np.clip(np.average(label, weights=weight), 1e-6, 1 - 1e-6)
    begin = np.append(np.zeros(ends[-1]), np.log(rate / (1 - rate)))
    found = minimize(
        loss, begin, jac=True, method="L-BFGS-B", bounds=[*bounds, (-np.inf, np.inf)], options={"maxiter": _ROUNDS}
    )
    if not np.isfinite(found.x).all() or found.nit >= _ROUNDS:
        raise PlatformError(
            f"the steps of the scorecard are not found in {_ROUNDS} rounds",
            fix=f"shrink them more: {setting('model.c', c / 10)}",
            code="bad_config",
        )
    return added(found.x[:-1]), float(found.x[-1])


def _steps(one: Binned, place: Ints, direction: int) -> _Steps:
    bins, ordered = len(one.weight), one.edges is not None
    table = np.eye(bins)
    if ordered:  # from each edge on, and of rows without a value
        table = np.column_stack([np.tri(bins, bins - 2, -1), np.arange(bins) == bins - 1])
        table[-1, :-1] = 0.0
    share = one.weight / max(one.weight.sum(), 1e-12)
    mean = share @ table
    deviation = np.sqrt(np.maximum(share @ (table - mean) ** 2, 0))
    kept = deviation > 1e-9
    scaled: NDArray[np.float64] = (table[:, kept] - mean[kept]) / deviation[kept]
    scaled[one.weight == 0] = 0.0  # of what no row tells: as all rows are
    # A missing value, the last step, has no direction.
    free = np.append(np.zeros(table.shape[1] - 1, dtype=bool), True)[kept] | (direction == 0) | (not ordered)
    low, high = np.where(free | (direction < 0), -np.inf, 0.0), np.where(free | (direction > 0), np.inf, 0.0)
    return _Steps(table=scaled, low=low, high=high, place=place)

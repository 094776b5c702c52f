"""Measures of a regression, as functions of row weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipelines.evaluation.measures import EPS, Floats, Measure


def regression(true: Floats, answers: Floats, coverage: float | None) -> Measure:
    """Errors of the numbers and, with `coverage`, of the intervals in the second and third column of `answers`.

    ``mape`` is of the rows whose true number is not 0; ``pinball`` is the mean over both ends of the interval, as
    quantiles. ``r2`` is not defined where all true numbers are the same.
    """
    error = answers[:, 0] - true
    size = np.abs(error)
    order = np.argsort(size, kind="stable")
    defined = true != 0
    columns = [np.ones(len(true)), size, error**2, true, true**2, error, defined]
    columns.append(np.where(defined, size / np.where(defined, np.abs(true), 1.0), 0.0))
    if coverage is not None:
        low, high, tail = answers[:, 1], answers[:, 2], (1 - coverage) / 2
        inside = (low <= true) & (true <= high)
        columns += [inside, high - low, (_pinball(true - low, tail) + _pinball(true - high, 1 - tail)) / 2]
    summed = np.column_stack(columns).astype(np.float64)

    def measure(weight: Floats | None = None) -> dict[str, float]:
        w = np.ones(len(true)) if weight is None else weight
        total, sizes, squares, sums, own, errors, share, relative, *rest = np.einsum("i,ij->j", w, summed).tolist()
        total = max(total, EPS)
        spread = own - sums**2 / total
        reached = np.cumsum(w[order])
        middle = size[order[np.searchsorted(reached, reached[-1] / 2)]] if len(order) and reached[-1] > 0 else np.nan
        found = {
            "mae": sizes / total,
            "rmse": (squares / total) ** 0.5,
            "r2": 1 - squares / spread if spread > EPS * max(own, 1.0) else float("nan"),
            "median_error": float(middle),
            "mape": relative / share if share > 0 else float("nan"),
            "bias": errors / total,
        }
        return found | dict(zip(("coverage", "width", "pinball"), (each / total for each in rest), strict=False))

    return measure


def _pinball(above: Floats, quantile: float) -> Floats:
    return np.maximum(quantile * above, (quantile - 1) * above)


def residuals(true: Floats, answers: Floats) -> dict[str, Any]:
    """Mean absolute and squared errors between deciles of the interval's width, or of the value without intervals."""
    wide = answers.shape[1] == 3
    scale = answers[:, 2] - answers[:, 1] if wide else answers[:, 0]
    edges = np.unique(np.quantile(scale, np.linspace(0, 1, 11)[1:-1]))
    places = np.searchsorted(edges, scale, side="right")
    kept = np.unique(places)  # a bin that no row is in joins the next one
    error = np.abs(answers[:, 0] - true)
    groups = [error[places == place] for place in kept]
    return {
        "by": "width" if wide else "value",
        "edges": edges[kept[1:] - 1].tolist(),
        "absolute": [float(one.mean()) for one in groups],
        "square": [float((one**2).mean()) for one in groups],
    }

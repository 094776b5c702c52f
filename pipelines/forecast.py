"""From a few small fits to the whole: time, memory and quality, each as a band over two forms and never one number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 200  # of the bootstrap
_ROOM = 0.1  # that a measured amount varies by itself
_SEED = 0

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Band:
    """A value between `low` and `high`; `likely` is in the middle of the forms."""

    low: float
    likely: float
    high: float

    def times(self, factor: float) -> Band:
        """All three, scaled."""
        return Band(self.low * factor, self.likely * factor, self.high * factor)

    def as_dict(self) -> dict[str, float]:
        """As a document has it."""
        return {"low": self.low, "likely": self.likely, "high": self.high}


def amount(rows: Sequence[float], values: Sequence[float], target: float) -> Band:
    """Seconds or bytes at `target` rows, of what fits of fewer rows took: a part that is always there, and one per row.

    Two forms: a + b n, with neither below 0, and c n^d, with d from 0 to 1.2 by the two largest sizes. Small fits are
    mostly overhead, so large ones weigh more.
    """
    n, y = np.asarray(rows, dtype=np.float64), np.asarray(values, dtype=np.float64)
    line = _line(n, y, target)
    power = _power(n, y, target)
    low, high = sorted((line, power))
    if target >= n.max():  # all rows take no less than some of them; the median, since one fit may have waited
        largest = float(np.median(y[n == n.max()]))
        low, high = max(low, largest), max(high, largest)
    return Band(low * (1 - _ROOM), float(np.sqrt(max(low, 1e-12) * max(high, 1e-12))), high * (1 + _ROOM))


def _line(n: Floats, y: Floats, target: float) -> float:
    """a + b n by least squares of relative errors, a and b at least 0."""
    design = np.stack([np.ones_like(n), n], axis=1) / y[:, None]
    (a, b), *_ = np.linalg.lstsq(design, np.ones_like(y), rcond=None)
    if b < 0:
        a, b = float(y.max()), 0.0
    elif a < 0:
        a, b = 0.0, float(np.mean(y / n))
    return float(a + b * target)


def _power(n: Floats, y: Floats, target: float) -> float:
    """c n^d through the medians of the two largest sizes."""
    sizes = np.unique(n)
    if len(sizes) < 2:
        return float(np.median(y) * target / n[0])
    small, large = (float(np.median(y[n == size])) for size in sizes[-2:])
    d = float(np.clip(np.log(large / small) / np.log(sizes[-1] / sizes[-2]), 0.0, 1.2))
    return float(large * (target / sizes[-1]) ** d)


def learning_curve(errors: Mapping[float, Sequence[float]], targets: Sequence[float]) -> list[Band]:
    """The error at each of `targets` rows: a 90 % band of both forms, b n^-c and a + b n^-c, and of the repeats.

    Args:
        errors: of fits by their number of rows, at least three sizes; each a positive number that is to be small.
    """
    rng = np.random.default_rng(_SEED)
    sizes = np.array(sorted(errors), dtype=np.float64)
    found: list[list[float]] = [[] for _ in targets]
    spread = _spread(errors)
    for _ in range(_ROUNDS):
        drawn = np.array([np.mean(rng.choice(errors[size], len(errors[size]))) for size in sizes])
        # A mean of few repeats varies by more than their own draws show.
        drawn = drawn * np.exp(rng.normal(0.0, spread / np.sqrt([len(errors[size]) for size in sizes])))
        for floor in (0.0, _floor(sizes, drawn)):
            c, log_b = _straight(sizes, np.maximum(drawn - floor, 1e-9))
            for at, target in enumerate(targets):
                found[at].append(floor + float(np.exp(log_b) * target**-c))
    return [Band(*(float(np.quantile(values, q)) for q in (0.05, 0.5, 0.95))) for values in found]


def _spread(errors: Mapping[float, Sequence[float]]) -> float:
    """The relative deviation of one fit, by the repeats; a few percent where there are none."""
    logs = [np.log(np.maximum(values, 1e-9)) for values in errors.values() if len(values) > 1]
    if not logs:
        return 0.03
    squares = sum(float(((each - each.mean()) ** 2).sum()) for each in logs)
    return float(np.sqrt(squares / sum(len(each) - 1 for each in logs)))


def _straight(sizes: Floats, errors: Floats) -> tuple[float, float]:
    """c and ln b of b n^-c, by least squares of logarithms; errors never rise with more rows."""
    slope, intercept = np.polyfit(np.log(sizes), np.log(errors), 1)
    if slope > 0:
        return 0.0, float(np.mean(np.log(errors)))
    return float(-slope), float(intercept)


def _floor(sizes: Floats, errors: Floats) -> float:
    """The a of a + b n^-c that fits best, of a grid below the least error that is fine close to it.

    A curve that is nearly flat ends there: without these floors a forecast goes on falling.
    """
    best, least = (np.inf, 0.0), float(errors.min())
    for floor in least * (1 - np.geomspace(1.0, 0.005, 30)):
        left = errors - floor
        c, log_b = _straight(sizes, left)
        off = np.log(floor + np.exp(log_b) * sizes**-c) - np.log(errors)
        best = min(best, (float((off**2).sum()), float(floor)))
    return best[1]

"""How far counts are from the shares of a reference, and how far chance alone takes them.

Columns lie side by side: `counts` has a row for each window and a column for each bin of each input, and `starts` says
where the bins of an input begin.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Places = NDArray[np.int64]
_HALF = 0.5  # added to each bin, so that an empty one has a logarithm


def totals(counts: Numbers, starts: Places) -> Numbers:
    """The sum over the bins of each input."""
    found: Numbers = np.add.reduceat(counts, starts, axis=-1)
    return found


def spread(values: Numbers, starts: Places, bins: int) -> Numbers:
    """One value of each input, repeated for each of its bins."""
    widths = np.diff(np.append(starts, bins))
    found: Numbers = np.repeat(values, widths, axis=-1)
    return found


def stability_index(counts: Numbers, reference: Numbers, starts: Places) -> Numbers:
    """The population stability index (PSI) of each window and input: the sum of (p - q) ln(p / q).

    Half a row is added to each bin that one of the two sides has, so a window without rows is at zero.
    """
    bins = counts.shape[-1]
    added = np.where((counts + reference) > 0, _HALF, 0.0)
    now = (counts + added) / np.maximum(spread(totals(counts + added, starts), starts, bins), 1e-300)
    then = (reference + added) / np.maximum(spread(totals(reference + added, starts), starts, bins), 1e-300)
    parts = np.where(added > 0, (now - then) * np.log(np.maximum(now, 1e-300) / np.maximum(then, 1e-300)), 0.0)
    return np.where(totals(counts, starts) > 0, totals(parts, starts), 0.0)


def jensen_shannon(counts: Numbers, reference: Numbers, starts: Places) -> Numbers:
    """The Jensen-Shannon distance of each window and input, from 0 to 1: the root of the divergence in bits."""
    bins = counts.shape[-1]
    now = counts / np.maximum(spread(totals(counts, starts), starts, bins), 1.0)
    then = reference / np.maximum(spread(totals(reference, starts), starts, bins), 1.0)
    middle = np.maximum((now + then) / 2, 1e-300)
    parts = _entropy_part(now, middle) + _entropy_part(then, middle)
    found = np.sqrt(np.clip(totals(parts, starts) / (2 * np.log(2)), 0.0, 1.0))
    return np.where(totals(counts, starts) > 0, found, 0.0)


def _entropy_part(shares: Numbers, middle: Numbers) -> Numbers:
    return np.where(shares > 0, shares * np.log(np.maximum(shares, 1e-300) / middle), 0.0)


def noise(degrees: Numbers, rows: Numbers, reference_rows: Numbers) -> Numbers:
    """The PSI to be expected without any drift.

    It is about chi-square with bins - 1 degrees of freedom, times 1/n + 1/m (B. Yurdakul: Statistical properties of
    population stability index, 2018).
    """
    return degrees * (1 / np.maximum(rows, 1.0) + 1 / np.maximum(reference_rows, 1.0))


def noise_floor(degrees: Numbers, rows: Numbers, reference_rows: Numbers, level: float = 0.99) -> Numbers:
    """The PSI that chance alone stays below in `level` of all windows; see `noise`."""
    return chi_square(level, degrees) * (1 / np.maximum(rows, 1.0) + 1 / np.maximum(reference_rows, 1.0))


def chi_square(level: float, degrees: Numbers) -> Numbers:
    """A quantile of chi-square, near enough and rather too high than too low far out (Wilson and Hilferty, 1931)."""
    of = np.maximum(degrees, 1e-9)
    root = 1 - 2 / (9 * of) + NormalDist().inv_cdf(level) * np.sqrt(2 / (9 * of))
    return np.where(degrees > 0, of * np.maximum(root, 0.0) ** 3, 0.0)


def log_gamma(values: Numbers) -> Numbers:
    """The logarithm of the gamma function of positive numbers: Stirling's series from 8 on, the recurrence below."""
    x = np.array(values, dtype=np.float64)
    shift = np.zeros_like(x)
    for _ in range(8):
        small = x < 8
        if not small.any():
            break
        shift -= np.where(small, np.log(np.where(small, x, 1.0)), 0.0)
        x = np.where(small, x + 1, x)
    inverse = 1 / x
    square = inverse * inverse
    series = inverse * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680)))
    found: Numbers = shift + (x - 0.5) * np.log(x) - x + 0.5 * np.log(2 * np.pi) + series
    return found

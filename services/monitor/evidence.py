"""Evidence against "nothing has changed" that may be looked at at any time, and the correction for all inputs.

The null says: rows come from some distribution whose shares lie near those of the reference. Near is a ball,
KL(reference || shares) <= radius, which holds what is tolerated and what a reference of m rows leaves open. Against it
stands a mixture over all distributions, and the e-value is the ratio of their likelihoods with the best member of the
ball below: universal inference (L. Wasserman, A. Ramdas, S. Balakrishnan: Universal inference, PNAS 2020). Its
expectation is at most one at any stopping time, whichever member is true, so a long run within the ball never adds up.

A change may begin at any moment. The e-values of all beginnings that are still told apart are added, the e-detector of
J. Shin, A. Ramdas and A. Rinaldo (E-detectors, 2023): without a change it takes at least A looks on average until the
sum reaches A. The mean over inputs is such a sum too, and the e-BH procedure (R. Wang, A. Ramdas: False discovery rate
control with e-values, 2022) names inputs only when that mean is at least A, however the inputs depend on each other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from services.monitor.divergence import Numbers, Places, chi_square, log_gamma, spread, totals

# The mixture is a Dirichlet distribution about the reference's shares, as wide as changes that are worth an alarm (a
# PSI of a quarter), with half a row in each bin for all others, and less in those that the reference leaves empty.
_PRIOR, _WIDTH, _EMPTY = 0.5, 4.0, 0.05
_STEPS = 40
_OPEN = 1 - 1e-4  # confidence that the reference's true shares lie within what its rows leave open


def ball_radius(tolerated: float, degrees: Numbers, reference_rows: Numbers) -> Numbers:
    """The radius of the null, in nats: what is tolerated, and the error of shares counted in so many rows.

    2 m KL(counted || true) is about chi-square with bins - 1 degrees of freedom (S. S. Wilks, 1938).
    """
    found: Numbers = tolerated + chi_square(_OPEN, degrees) / (2 * np.maximum(reference_rows, 1.0))
    return found


def log_evidence(counts: Numbers, shares: Numbers, radius: Numbers, starts: Places) -> Numbers:
    """The logarithm of the e-value of each window and input; see the module.

    Args:
        counts: rows in each bin, shape (windows, bins).
        shares: of the reference, shape (bins,).
        radius: of each input's ball.
        starts: where the bins of each input begin.
    """
    bins = counts.shape[-1]
    rows = totals(counts, starts)
    degrees = spread(totals(np.where(shares > 0, 1.0, 0.0), starts) - 1, starts, bins)
    prior = np.where(shares > 0, _PRIOR + _WIDTH * degrees * shares, _EMPTY)
    weight = totals(prior, starts)
    each = log_gamma(counts + prior) - log_gamma(prior)
    mixture = log_gamma(weight) - log_gamma(weight + rows) + totals(each, starts)
    near = _nearest(counts / np.maximum(spread(rows, starts, bins), 1.0), shares, radius, starts)
    parts = np.where(counts > 0, counts * np.log(np.maximum(near, 1e-300)), 0.0)
    return np.where(rows > 0, mixture - totals(parts, starts), 0.0)


def _nearest(observed: Numbers, shares: Numbers, radius: Numbers, starts: Places) -> Numbers:
    """The shares within the ball that make the observed ones most likely.

    They lie on the line from the observed shares to the reference's (Lagrange), where the ball begins. The end of the
    bisection that is still outside is taken: the likelihood is rather too high, and the evidence too low.
    """
    bins = observed.shape[-1]
    low = np.zeros((observed.shape[0], len(starts)))
    high = np.ones_like(low)
    logs = np.where(shares > 0, np.log(np.maximum(shares, 1e-300)), 0.0)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        at = spread(middle, starts, bins)
        mixed = np.maximum((1 - at) * observed + at * shares, 1e-300)
        apart = totals(np.where(shares > 0, shares * (logs - np.log(mixed)), 0.0), starts)
        outside = apart > radius
        low, high = np.where(outside, middle, low), np.where(outside, high, middle)
    at = spread(low, starts, bins)
    return (1 - at) * observed + at * shares


def log_sum(values: Numbers) -> Numbers:
    """The logarithm of the sum over windows of what `values` are logarithms of; -inf where there is none."""
    if not len(values):
        return np.full(values.shape[1:], -np.inf)
    highest = values.max(axis=0)
    safe = np.where(np.isfinite(highest), highest, 0.0)
    with np.errstate(divide="ignore"):
        found: Numbers = np.where(np.isfinite(highest), safe + np.log(np.exp(values - safe).sum(axis=0)), -np.inf)
    return found


def named(log_values: Numbers, threshold: float) -> NDArray[np.bool_]:
    """The inputs that e-BH names: the k highest, where the k-th is at least inputs * threshold / k."""
    found = np.zeros(len(log_values), dtype=bool)
    if not len(log_values):
        return found
    order = np.argsort(-log_values, kind="stable")
    ranks = np.arange(1, len(order) + 1)
    reached = log_values[order] >= np.log(len(order) * threshold / ranks)
    if reached.any():
        found[order[: ranks[reached].max()]] = True
    return found

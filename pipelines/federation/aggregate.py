"""How the updates of sites become one: what is refused, what is cut, and three rules.

An update is what a site would add to the weights, a vector of shape (weights,).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Updates:
    """Those of one round that can be used: values of shape (sites, weights), and the rows behind each."""

    values: Floats
    rows: Floats


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a rule may look at beside updates. loss: of the coordinator's rows, with so much added to the weights."""

    trim: float
    loss: Callable[[Floats], float]


def bounded(updates: Updates, times: float) -> tuple[Updates, NDArray[np.bool_]]:
    """Updates longer than `times` the median are cut to that, and which were; 0 cuts nothing."""
    norms = np.linalg.norm(updates.values, axis=1)
    most = times * float(np.median(norms))
    long = (norms > most) & (times > 0)
    share = np.where(long, most / np.where(norms > 0, norms, 1.0), 1.0)
    return Updates(values=updates.values * share[:, None], rows=updates.rows), long


def clipped(update: Floats, most: float) -> Floats:
    """An update of norm `most` at most."""
    norm = float(np.linalg.norm(update))
    return update * (most / norm) if norm > most else update


def mean(updates: Updates, rule: Rule) -> Floats:
    """Each site counts by its rows."""
    return np.asarray(updates.rows @ updates.values / updates.rows.sum())


def trimmed(updates: Updates, rule: Rule) -> Floats:
    """Of every coordinate the mean without the share `trim` of the sites at both ends; sites count the same."""
    sites = len(updates.values)
    cut = min(int(np.floor(rule.trim * sites + 1e-9)), (sites - 1) // 2)
    return np.asarray(np.sort(updates.values, axis=0)[cut : sites - cut].mean(axis=0))


def screened(updates: Updates, rule: Rule) -> Floats:
    """The mean by rows of those sites whose update serves the coordinator's rows, without the worst share `trim`."""
    sites = len(updates.values)
    losses = np.array([rule.loss(one) for one in updates.values])
    losses = np.where(np.isfinite(losses), losses, np.inf)
    kept = np.argsort(losses, kind="stable")[: max(1, sites - int(np.floor(rule.trim * sites + 1e-9)))]
    return mean(Updates(values=updates.values[kept], rows=updates.rows[kept]), rule)


RULES: Mapping[str, Callable[[Updates, Rule], Floats]] = {
    "mean": mean,
    "trimmed": trimmed,
    "screened": screened,
}

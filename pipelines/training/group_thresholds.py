"""A threshold for each group, so that groups are selected alike: for batches that say groups, never for requests."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.fairness import NOT_STATED

Floats = NDArray[np.float64]
LEAST = 50  # rows of a group that gets a threshold of its own


def thresholds(probability: Floats, group: NDArray[Any], common: float, strength: float) -> dict[str, float]:
    """By group the threshold with which its rate of positives is moved by the share `strength` to that of all rows.

    Groups of fewer than `LEAST` rows, and rows that say none, keep the `common` one.
    """
    stated = group != NOT_STATED
    overall = float((probability[stated] >= common).mean()) if stated.any() else 0.0
    found = {}
    for name in sorted(set(group[stated].tolist())):
        given = probability[group == name]
        if len(given) < LEAST:
            continue
        wanted = (1 - min(strength, 1.0)) * float((given >= common).mean()) + min(strength, 1.0) * overall
        values, counts = np.unique(given, return_counts=True)
        # A threshold can stand below each value, or above all; rows with the same one stay together.
        shares = np.append(np.cumsum(counts[::-1])[::-1], 0) / len(given)
        at = int(np.argmin(np.abs(shares - wanted)))
        between = (values[1:] + values[:-1]) / 2
        between = np.where(between > values[:-1], between, values[1:])  # between neighbouring floats nothing fits
        found[str(name)] = float(np.concatenate([values[:1], between, [min(1.0, values[-1] + 1e-6)]])[at])
    return found

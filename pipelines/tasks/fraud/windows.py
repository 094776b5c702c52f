"""Counts, sums and shares over the last days, exact at any moment, for all entities at once.

An entity's events are sorted once by (entity, time); both become one integer, so that a window over any number of
moments is two binary searches and a difference of cumulative sums.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

DAY = 86_400_000_000  # microseconds
_LARGEST = 1 << 62


class Timeline:
    """Events of many entities. `entity`: codes 0, 1, ...; `moment`: microseconds since 1970, UTC.

    `reach` is the longest distance, in microseconds, of a moment asked for from the events.
    """

    def __init__(self, entity: Ints, moment: Ints, reach: int) -> None:
        self.origin = int(moment.min()) - reach if len(moment) else 0
        self.span = (int(moment.max()) if len(moment) else 0) - self.origin + 2 * reach
        if len(entity) and (int(entity.max()) + 1) * self.span > _LARGEST:
            raise OverflowError("too many entities for one timeline; use blocks")
        self._entity = entity
        keys = entity * self.span + (moment - self.origin)
        self.order = np.argsort(keys, kind="stable")
        self.keys = keys[self.order]

    def position(self, entity: Ints, moment: Ints, *, inclusive: bool = False) -> Ints:
        """How many sorted events come before `moment` of `entity`, all smaller entities included."""
        side: Literal["left", "right"] = "right" if inclusive else "left"
        found: Ints = np.searchsorted(self.keys, entity * self.span + (moment - self.origin), side=side)
        return found

    def cumulative(self, values: NDArray[np.generic]) -> Floats:
        """Cumulative sums in the sorted order, with a leading zero: a window is a difference of two of them."""
        sums = np.zeros(len(self.order) + 1)
        np.cumsum(values[self.order], out=sums[1:])
        return sums

    def totals(self, ordered: Floats) -> Floats:
        """Sums from the first event of each entity on, of values in the sorted order; see `before`.

        They begin anew with each entity, so that rounding never depends on which other entities there are.
        """
        import pandas as pd

        sums = pd.Series(ordered).groupby(self._entity[self.order], sort=False).cumsum()
        return np.asarray(sums, dtype=np.float64)

    @staticmethod
    def before(totals: Floats, position: Ints, start: Ints) -> Floats:
        """The sum of an entity's values before a `position`, where its first event is at `start`."""
        found: Floats = np.where(position > start, totals[position - 1], 0.0)
        return found

    def start(self, entity: Ints) -> Ints:
        """Position of the first event of each of `entity`."""
        found: Ints = np.searchsorted(self.keys, entity * self.span)
        return found


def trailing_median(entity: Ints, values: Floats, length: int, least: int) -> Floats:
    """Median of the last `length` values of the same entity, the current one included; NaN below `least` values.

    Rows must be sorted by entity.
    """
    import pandas as pd

    # A gap of NaN after each entity keeps a window from reaching into the one before.
    change = np.concatenate([[0], np.cumsum(entity[1:] != entity[:-1])]) if len(entity) else entity
    at = np.arange(len(values)) + change * length
    spread = np.full(int(at[-1]) + 1 if len(at) else 0, np.nan)
    spread[at] = values
    return pd.Series(spread).rolling(length, min_periods=least).median().to_numpy()[at]


@dataclass(frozen=True)
class Block:
    """Rows of a consecutive range of entities; `entity` is renumbered from zero."""

    first: int
    rows: Ints
    entity: Ints


def blocks(entity: Ints, span: int, rows_per_block: int = 4_000_000) -> Iterator[Block]:
    """Cut entities into ranges, so that keys fit into 62 bits and memory stays bounded."""
    if not len(entity):
        return
    order = np.argsort(entity, kind="stable")
    ordered = entity[order]
    most = max(int(_LARGEST // max(span, 1)) - 1, 1)
    at = 0
    while at < len(ordered):
        first = int(ordered[at])
        end = min(at + rows_per_block, len(ordered))
        last = min(int(ordered[end - 1]), first + most - 1)  # always whole entities
        stop = int(np.searchsorted(ordered, last, side="right"))
        yield Block(first, order[at:stop], ordered[at:stop] - first)
        at = stop

"""Counts by event time: short panes for what is recent, longer ones for what is older, so that a day takes little room.

A pane of level L covers 2**L panes of level 0, at a multiple of its length. What is `_FRESH` lengths old is merged, so
that the beginning of a change is known within a quarter of its age, whenever it began.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from services.monitor.divergence import Numbers, Places

_FRESH = 4


class Panes:
    """Rows in each bin by pane; a late row is counted where it belongs, as long as it is within the horizon.

    Attributes:
        newest: the latest pane that rows fell into; None before the first.
    """

    def __init__(self, bins: int, horizon: int) -> None:
        self._bins, self._horizon = bins, horizon
        self._counts: dict[tuple[int, int], Places] = {}  # by level, and position in lengths of that level
        self.newest: int | None = None

    def add(self, pane: int, counts: Places) -> bool:
        """Count rows of a pane; False when it is older than the horizon."""
        if self.newest is None or pane > self.newest:
            self.newest = pane
            self._merge()
        if self.newest - pane >= self._horizon:
            return False
        for level in range(self._horizon.bit_length() + 1):
            key = (level, pane >> level)
            if key in self._counts:
                self._counts[key] += counts
                return True
        self._counts[(0, pane)] = np.array(counts, dtype=np.int64)
        self._merge()
        return True

    def windows(self) -> tuple[Places, Numbers]:
        """The first pane of each window that ends now, the shortest window first, and the rows in its bins."""
        keys = sorted(self._counts, key=lambda key: -(key[1] << key[0]))
        if not keys:
            return np.zeros(0, dtype=np.int64), np.zeros((0, self._bins))
        starts = np.array([position << level for level, position in keys], dtype=np.int64)
        return starts, np.cumsum(np.stack([self._counts[key] for key in keys]), axis=0).astype(np.float64)

    def _merge(self) -> None:
        assert self.newest is not None
        for key in sorted(self._counts):
            level, position = key
            if self.newest - (((position + 1) << level) - 1) >= self._horizon:
                del self._counts[key]
                continue
            counts = self._counts[key]
            while self.newest - (((position >> 1) + 1) << (level + 1)) + 1 >= _FRESH << (level + 1):
                level, position = level + 1, position >> 1
            if (level, position) != key:
                del self._counts[key]
                there = self._counts.get((level, position))
                self._counts[(level, position)] = counts if there is None else there + counts

    def to_json(self) -> list[list[Any]]:
        """Level, position and counts of each pane."""
        return [[level, position, counts.tolist()] for (level, position), counts in sorted(self._counts.items())]

    @classmethod
    def from_json(cls, bins: int, horizon: int, newest: int | None, document: list[list[Any]]) -> Panes:
        """What `to_json` gave."""
        made = cls(bins, horizon)
        made.newest = newest
        made._counts = {(level, at): np.array(counts, dtype=np.int64) for level, at, counts in document}
        return made

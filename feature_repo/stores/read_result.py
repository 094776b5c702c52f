"""What a read gives: numpy columns, and a status per value. All views are decoded together, since a call of numpy takes
as long for one view as for ten."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.stores.packed_rows import Rows
from feature_repo.stores.views import View, Views

PRESENT, NOT_FOUND, OUTSIDE_MAX_AGE, NULL, UNAVAILABLE = STATUSES = (
    "PRESENT",
    "NOT_FOUND",
    "OUTSIDE_MAX_AGE",
    "NULL",
    "UNAVAILABLE",
)
"""A value is served; the entity is unknown; its row is older than the view's time to live; the value is null; the store
did not answer."""

_CODE = {name: code for code, name in enumerate(STATUSES)}
_NAMES = np.array(STATUSES, dtype=object)
_BYTE = np.dtype("u1")


class Read:
    """What was read for n entities.

    Args:
        views: of the plan.
        rows: of each view, n of them.
        blocks: of each view, its n rows as far as they have one size (`Layout.heads`).
        ends: of each view, where the variable values of its rows end (`Layout.ends`).
        heads: (views, n, 3): schema, event and created moment of each row; zeros where there is none.
        now: microseconds since 1970; ages count from it. None when the store did not answer.
    """

    def __init__(
        self,
        views: Views,
        rows: Sequence[Sequence[bytes | None]],
        blocks: Sequence[bytes],
        ends: Sequence[list[list[int]]],
        heads: NDArray[np.int64],
        now: int | None,
    ) -> None:
        self._views, self._rows, self._blocks, self._ends = views, rows, blocks, ends
        self._heads, self._now = heads, now or 0
        found = heads[:, :, 0] == views.schemas
        fresh = heads[:, :, 1] >= self._now - views.limits  # an event minus now may overflow, this may not
        self._served = found & fresh
        self._all_served = bool(np.count_nonzero(self._served) == found.size)
        self._found, self._failed = found, now is None

    @classmethod
    def unavailable(cls, views: Views, n: int) -> Read:
        """n entities of a store that did not answer."""
        blocks = [bytes(view.layout.dtype.itemsize * n) for view in views.all]
        heads = np.zeros((len(blocks), n, 3), dtype=np.int64)
        ends = [[[0] * n for _ in view.layout.variable] for view in views.all]
        return cls(views, [[None] * n] * len(blocks), blocks, ends, heads, None)

    @cached_property
    def codes(self) -> NDArray[np.uint8]:
        """(views, n): of each row, an index into `STATUSES`."""
        if self._all_served:
            return np.zeros(self._served.shape, "u1")
        if self._failed:
            return np.full(self._served.shape, _CODE[UNAVAILABLE], "u1")
        codes = np.where(self._found, _CODE[OUTSIDE_MAX_AGE], _CODE[NOT_FOUND]).astype("u1")
        codes[self._served] = _CODE[PRESENT]
        return codes

    @cached_property
    def columns(self) -> dict[str, NDArray[Any]]:
        """Feature -> array of n, as models take it: a missing number is NaN, anything else missing is None."""
        views, n = self._views, self._served.shape[1]
        if n == 1 and views.by_struct:
            each = (view.row.unpack_from(block) for view, block in zip(views.all, self._blocks, strict=True))
            numbers = np.array([number for row in each for number in row], dtype=np.float64).reshape(-1, 1)
        else:
            numbers = np.empty((len(views.numbers), n))
            for view, block in zip(views.all, self._blocks, strict=True):
                _fill(view, block, numbers)
        if self._nulls is not None:
            np.copyto(numbers, np.nan, where=self._nulls[:, views.number_bits].T)
        if not self._all_served:
            np.copyto(numbers, np.nan, where=np.repeat(~self._served, views.counts, axis=0))
        made: dict[str, NDArray[Any]] = dict(zip(views.numbers, numbers, strict=True))
        for at, view in enumerate(views.all):
            if view.texts:
                made.update(self._texts(at, view))
        return made

    def _texts(self, at: int, view: View) -> dict[str, NDArray[Any]]:
        count, missing = len(view.layout.fields), None
        if self._nulls is not None:
            first = self._views.first_bits[at]
            missing = self._nulls[:, first : first + count]
        if not self._all_served:
            absent = np.repeat(~self._served[at][:, None], count, axis=1)
            missing = absent if missing is None else missing | absent
        return view.layout.variables(self._rows[at], self._ends[at], view.texts, missing)

    @cached_property
    def _nulls(self) -> NDArray[np.bool_] | None:
        """The null bitmaps of all views side by side, (n, bits); None when no value at all is null."""
        n, parts = self._served.shape[1], []
        for view, block in zip(self._views.all, self._blocks, strict=True):
            offset = view.layout.null_offset if n else 0
            parts.append(np.ndarray((n, view.layout.null_bytes), _BYTE, block, offset, (view.size, 1)))
        if not any(map(np.count_nonzero, parts)):
            return None
        return np.unpackbits(np.concatenate(parts, axis=1), axis=1, bitorder="little").view(bool)

    @cached_property
    def status(self) -> dict[str, list[str]]:
        """View -> n of PRESENT, NOT_FOUND, OUTSIDE_MAX_AGE (not served), UNAVAILABLE."""
        return {view.name: _NAMES[codes].tolist() for view, codes in zip(self._views.all, self.codes, strict=True)}

    @cached_property
    def age_seconds(self) -> dict[str, list[float]]:
        """View -> n ages at the moment of the read; NaN when not found."""
        ages = np.where(self._found, (self._now - self._heads[:, :, 1]) / 1e6, np.nan)
        return {view.name: mine.tolist() for view, mine in zip(self._views.all, ages, strict=True)}

    @cached_property
    def value_status(self) -> dict[str, NDArray[np.uint8]]:
        """View -> (n, features) of indices into `STATUSES`, in the order of the plan's features."""
        if self._all_served:
            made = np.zeros((self._served.shape[1], len(self._views.value_bits)), "u1")
        else:
            made = np.repeat(self.codes.T, self._views.widths, axis=1)
        if self._nulls is not None:
            made[self._nulls[:, self._views.value_bits] & (made == _CODE[PRESENT])] = _CODE[NULL]
        return {view.name: made[:, place] for view, place in zip(self._views.all, self._views.values, strict=True)}

    def statuses(self, feature: str) -> list[str]:
        """The status of each value of one feature."""
        view = self._views.all[self._views.of(feature)]
        named: list[str] = _NAMES[self.value_status[view.name][:, view.features.index(feature)]].tolist()
        return named

    def native(self, feature: str) -> NDArray[Any]:
        """One feature in its own type (int64 stays exact); zero or None where its status is not PRESENT."""
        at = self._views.of(feature)
        layout = self._views.all[at].layout
        rows = Rows(np.frombuffer(self._blocks[at], dtype=layout.dtype), self._found[at], self._rows[at])
        values = layout.values(rows, feature)
        if not self._all_served:
            values = values.copy()
            values[~self._served[at]] = None if values.dtype.kind == "O" else np.zeros(1, values.dtype)[0]
        return values

    def events(self, view: str) -> list[int | None]:
        """The moments of the rows of a view that are served, in microseconds since 1970; None for the others."""
        at = self._views.place[view]
        moments = self._heads[at, :, 1].tolist()
        return [event if served else None for event, served in zip(moments, self._served[at].tolist(), strict=True)]


def _fill(view: View, block: bytes, numbers: NDArray[np.float64]) -> None:
    """The numbers of one view, into the matrix of all."""
    n = numbers.shape[1]
    if not n:
        return
    for first, last, dtype, width, offset, pick, is_timestamp in view.blocks:
        found = np.ndarray((width, n), dtype, block, offset, (dtype.itemsize, view.size))
        numbers[first:last] = found if pick is None else found[pick]
        if is_timestamp:
            numbers[first:last] /= 1e6

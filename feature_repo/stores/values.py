"""What a read gives: numpy columns, and a status per value. Computed from packed rows when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.errors import PlatformError
from feature_repo.stores.packed import Layout, Rows

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


@dataclass  # not frozen: a read makes one per view, and frozen ones take three times as long
class ViewRead:
    """One view of n entities.

    Attributes:
        codes: of each row, an index into `STATUSES`.
        age_seconds: at the moment of the read; NaN when not found.
        served: rows whose values are given; all other rows give missing values.
    """

    name: str
    layout: Layout
    features: Sequence[str]
    rows: Rows
    codes: NDArray[np.uint8]
    age_seconds: NDArray[np.float64]
    served: NDArray[np.bool_]
    all_served: bool

    @classmethod
    def of(cls, name: str, layout: Layout, features: Sequence[str], rows: Rows, now: int, ttl: int) -> ViewRead:
        """Judge decoded rows at `now`; `ttl` is 0 for no limit; both in microseconds."""
        found = rows.found
        age = now - rows.records["event"]
        old = (age > ttl) & found if ttl else None
        if rows.complete and (old is None or not old.any()):
            return cls(name, layout, features, rows, np.zeros(len(found), "u1"), age / 1e6, found, True)
        codes = np.where(found, _CODE[PRESENT], _CODE[NOT_FOUND]).astype("u1")
        if old is not None:
            codes[old] = _CODE[OUTSIDE_MAX_AGE]
        seconds = np.where(found, age / 1e6, np.nan)
        return cls(name, layout, features, rows, codes, seconds, codes == _CODE[PRESENT], False)

    @classmethod
    def unavailable(cls, name: str, layout: Layout, features: Sequence[str], n: int) -> ViewRead:
        """What n rows of a store that did not answer look like."""
        rows = Rows(np.zeros(n, dtype=layout.dtype), np.zeros(n, dtype=bool), [None] * n)
        codes = np.full(n, _CODE[UNAVAILABLE], dtype="u1")
        return cls(name, layout, features, rows, codes, np.full(n, np.nan), rows.found, False)

    @cached_property
    def nulls(self) -> NDArray[np.bool_] | None:
        """(n, fields of the layout): values that are null in a row that is served; None when there is none at all."""
        if not self.rows.records["nulls"].any():
            return None
        return self.layout.nulls(self.rows)

    def columns(self, made: dict[str, NDArray[Any]]) -> None:
        """Add what models take: float64 with NaN for numbers, objects with None for everything else."""
        all_used = len(self.features) == len(self.layout.bit)
        for group, names in self.layout.filled:
            block = self.rows.records[group]
            numbers = block / 1e6 if group == "timestamp" else block.astype(np.float64)
            if not self.all_served:
                numbers[~self.served] = np.nan
            if self.nulls is not None:
                numbers[self.nulls[:, [self.layout.bit[name] for name in names]]] = np.nan
            if all_used:
                made.update(zip(names, numbers.T, strict=True))
            else:
                made.update(
                    (name, column) for name, column in zip(names, numbers.T, strict=True) if name in self.features
                )
        for name, _ in self.layout.variable:
            if name in self.features:
                made[name] = self.native(name)

    def native(self, name: str) -> NDArray[Any]:
        """One feature in its own type (int64 stays exact); zero or None where `value_status` is not PRESENT."""
        values = self.layout.values(self.rows, name)
        if not self.all_served:
            values = values.copy()
            values[~self.served] = None if values.dtype.kind == "O" else np.zeros(1, values.dtype)[0]
        return values

    def value_status(self) -> NDArray[np.uint8]:
        """(n, features): an index into `STATUSES` per value."""
        codes = np.repeat(self.codes[:, None], len(self.features), axis=1)
        if self.nulls is not None:
            null = self.nulls[:, [self.layout.bit[name] for name in self.features]]
            codes[null & self.served[:, None]] = _CODE[NULL]
        return codes


class Read:
    """What was read for n entities, view by view."""

    def __init__(self, views: Sequence[ViewRead]) -> None:
        self.views = {view.name: view for view in views}

    @cached_property
    def columns(self) -> dict[str, NDArray[Any]]:
        """Feature -> array of n, as models take it: a missing number is NaN, anything else missing is None."""
        made: dict[str, NDArray[Any]] = {}
        for view in self.views.values():
            view.columns(made)
        return made

    @cached_property
    def status(self) -> dict[str, list[str]]:
        """View -> n of PRESENT, NOT_FOUND, OUTSIDE_MAX_AGE (not served), UNAVAILABLE."""
        return {name: _NAMES[view.codes].tolist() for name, view in self.views.items()}

    @cached_property
    def age_seconds(self) -> dict[str, list[float]]:
        """View -> n ages at the moment of the read; NaN when not found."""
        return {name: view.age_seconds.tolist() for name, view in self.views.items()}

    @cached_property
    def value_status(self) -> dict[str, NDArray[np.uint8]]:
        """View -> (n, features) of indices into `STATUSES`, in the order of the plan's features."""
        return {name: view.value_status() for name, view in self.views.items()}

    def statuses(self, feature: str) -> list[str]:
        """The status of each value of one feature."""
        view = self._of(feature)
        named: list[str] = _NAMES[self.value_status[view.name][:, list(view.features).index(feature)]].tolist()
        return named

    def native(self, feature: str) -> NDArray[Any]:
        """One feature in its own type; zero or None where its status is not PRESENT."""
        return self._of(feature).native(feature)

    def _of(self, feature: str) -> ViewRead:
        for view in self.views.values():
            if feature in view.features:
                return view
        raise PlatformError(f"feature {feature!r} was not read", detail=f"read: {', '.join(self.columns)}")

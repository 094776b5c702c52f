"""Online features without Feast: several views of many entities in one round trip, by a compiled plan.

Imported by services, so it needs numpy and the standard library only (redis-py when the address is Redis). `plan.py`
writes the plan. Reads packed rows, and the layouts of Feast's own SQLite and Redis stores.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.errors import PlatformError
from feature_repo.stores.backend import is_redis, open_backend
from feature_repo.stores.keys import serialise_keys
from feature_repo.stores.packed_rows import to_micros
from feature_repo.stores.read_result import NOT_FOUND, OUTSIDE_MAX_AGE, PRESENT, UNAVAILABLE, Read
from feature_repo.stores.views import View, Views
from feature_repo.transforms import TRANSFORMS

__all__ = ["NOT_FOUND", "OUTSIDE_MAX_AGE", "PRESENT", "UNAVAILABLE", "OnlineReader", "Read", "apply_transforms"]

_OURS = f"{TRANSFORMS.package}."
_MOMENT = np.dtype("<i8")
_STRANGE = np.full(3, -1)  # of rows that could not be laid side by side: none of them has the view's schema
_REST = 1.0  # seconds without asking a server that just failed, so that not every request waits for the deadline


class OnlineReader:
    """Reads many entities of several views. Safe to share between threads.

    Args:
        plan: see `plan.compile_plan`.
        online: address of the store (`backend.py`); for Redis its options say what happens when reading fails.
    """

    def __init__(self, plan: Mapping[str, Any], online: str) -> None:
        self._plan, self._backend = plan, open_backend(str(online))
        self._views = Views(plan)
        self._each = [Views({"views": [view.document]}) for view in self._views.all]
        self._packed: dict[str, bool] = {}
        self._all_packed = False
        self._resting_until = 0.0
        redis = self._backend.address if is_redis(str(online)) else None
        self._feast_redis = redis is not None and redis.layout == "feast"
        self._defaults_on_failure = redis is not None and redis.on_failure == "default"

    def read(self, keys: Mapping[str, Sequence[Any]], moment: datetime | None = None) -> Read:
        """Features as served at `moment` (default: now), for ``keys[join_key][i]``, i = 0..n-1.

        A row that is newer than `moment` is served: the store keeps the last one only. When Redis fails and its address
        says ``on_failure=default``, every value is missing and its status is UNAVAILABLE.

        Raises:
            PlatformError: a join key is missing, the store was never materialised, cannot be read, or holds damaged
                rows or rows of another schema that this plan cannot be served from.
        """
        cache: dict[tuple[str, ...], list[bytes]] = {}
        for view in self._views.all:
            if view.names not in cache:
                cache[view.names] = serialise_keys(view.join_keys, keys)
        return self.read_keys([cache[view.names] for view in self._views.all], moment)

    def read_keys(self, keys: Sequence[list[bytes]], moment: datetime | None = None) -> Read:
        """As `read`, for serialised keys of each view of the plan."""
        now = to_micros(moment) if moment else time.time_ns() // 1_000
        n = _same_length(keys)
        try:
            if self._resting_until > time.monotonic():
                raise PlatformError("the online store failed a moment ago", code="online_unavailable")
            rows = self._fetch(list(zip(self._views.all, keys, strict=True)))
        except PlatformError as err:
            if err.code != "online_unavailable" or not self._defaults_on_failure:
                raise
            self._rest()
            return Read.unavailable(self._views, n)
        return self._decoded(self._views, rows, n, now)

    def read_each(self, keys: Mapping[str, Sequence[Any]], moment: datetime | None = None) -> dict[str, Read]:
        """As `read`, of views whose entities are not the same number, such as a person and many items: one round trip.

        Returns:
            view -> what was read for its own keys.
        """
        now = to_micros(moment) if moment else time.time_ns() // 1_000
        wanted = [(view, serialise_keys(view.join_keys, keys)) for view in self._views.all]
        try:
            if self._resting_until > time.monotonic():
                raise PlatformError("the online store failed a moment ago", code="online_unavailable")
            rows = self._fetch(wanted)
        except PlatformError as err:
            if err.code != "online_unavailable" or not self._defaults_on_failure:
                raise
            self._rest()
            return {
                view.name: Read.unavailable(one, len(own)) for (view, own), one in zip(wanted, self._each, strict=True)
            }
        return {
            view.name: self._decoded(one, [mine], len(own), now)
            for (view, own), one, mine in zip(wanted, self._each, rows, strict=True)
        }

    def _decoded(self, views: Views, rows: list[list[bytes | None]], n: int, now: int) -> Read:
        blocks: list[bytes] = []
        heads = np.empty((len(rows), n, 3), dtype=_MOMENT)
        for at, view in enumerate(views.all):
            blocks.append(view.layout.heads(rows[at]) or b"")
            heads[at] = _heads(blocks[at], view, n)
        schemas = heads[:, :, 0]
        known = schemas == views.schemas
        if np.count_nonzero(known) != known.size:  # zeros are rows that are not there
            for at in np.flatnonzero((~known & (schemas != 0)).any(axis=1)).tolist():
                rows[at], blocks[at] = self._translated(rows[at], views.all[at])
                heads[at] = _heads(blocks[at], views.all[at], n)
        ends = [view.layout.ends(rows[at], blocks[at]) for at, view in enumerate(views.all)]
        return Read(views, rows, blocks, ends, heads, now)

    def _translated(self, rows: list[bytes | None], view: View) -> tuple[list[bytes | None], bytes]:
        """Rows that other schemas wrote, as rows of the view's."""
        from feature_repo.stores.schema_evolution import translate

        view.layout.decode(rows)  # raises for rows that are damaged
        made = translate(rows, view, lambda digest: self._backend.schema(self._plan["project"], digest))
        block = view.layout.heads(made)
        assert block is not None
        return made, block

    def _rest(self) -> None:
        if self._resting_until <= time.monotonic():
            self._resting_until = time.monotonic() + _REST

    def _fetch(self, wanted: list[tuple[View, list[bytes]]]) -> list[list[bytes | None]]:
        rows: list[list[bytes | None]]
        project = self._plan["project"]
        if self._feast_redis:
            from feature_repo.stores.feast_layout import read_redis

            ask = [(view.document, view.layout, keys) for view, keys in wanted]
            rows = self._backend.reading(lambda: read_redis(self._backend.client, project, ask))
            return rows
        packed = [] if self._all_packed else [self._is_packed(view.name) for view, _ in wanted]
        if all(packed):
            self._all_packed = True
            rows = self._backend.fetch(project, [(view.name, keys) for view, keys in wanted])
            return rows
        from feature_repo.stores.feast_layout import read_sqlite

        return [
            self._backend.fetch(project, [(view.name, keys)])[0]
            if is_packed
            else read_sqlite(self._backend, project, view.document, view.layout, keys)
            for (view, keys), is_packed in zip(wanted, packed, strict=True)
        ]

    def _is_packed(self, view: str) -> bool:
        """Whether a view is in our layout; once it is, it stays so."""
        if not self._packed.get(view):
            self._packed[view] = self._backend.has(self._plan["project"], view)
        return self._packed[view]

    def close(self) -> None:
        """Give connections back."""
        self._backend.close()


def _same_length(keys: Sequence[Sequence[bytes]]) -> int:
    if len(lengths := {len(mine) for mine in keys}) > 1:
        raise PlatformError(
            "entity keys have different lengths",
            detail=", ".join(map(str, sorted(lengths))),
            fix="give one value per entity for each join key",
            code="bad_key",
        )
    return lengths.pop() if lengths else 0


def _heads(block: bytes, view: View, n: int) -> Any:
    """(n, 3): schema, event and created moment of each row; other numbers than any schema's where there is no block."""
    if not n:
        return np.empty((0, 3), dtype=_MOMENT)
    return np.ndarray((n, 3), _MOMENT, block, 0, (view.size, 8)) if block else _STRANGE


@lru_cache
def _is_added(module: str) -> bool:
    """Whether an installed package names the module; asked at every request, so it is looked up once."""
    return module in {entry.module for entry in TRANSFORMS.entries().values()}


def apply_transforms(plan: Mapping[str, Any], columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The on-demand features of a plan, from request fields, the timestamp (datetime64[us], UTC) and online features.

    Training and serving both call this. A plan travels in a bundle and may come from outside: only functions below
    ``feature_repo.transforms`` are called, and those of modules that a package names by an entry point::

        [project.entry-points."fairlead.transforms"]
        churn = "my_package.churn_transforms"
    """
    made: dict[str, NDArray[Any]] = {}
    for transform in plan.get("transforms", []):
        module, _, function = transform["function"].partition(":")
        if not (module.startswith(_OURS) or _is_added(module)):
            raise PlatformError(
                f"transform refused: {transform['function']}",
                detail=f"accepted: functions below {_OURS}, and of modules that fairlead.transforms names",
                fix="move it there, or install the package that has it",
                code="bad_bundle",
            )
        result = getattr(importlib.import_module(module), function)({**columns, **made})
        made |= {name: np.asarray(result[name]) for name in transform["outputs"]}
    return made

"""Online features without Feast: several views of many entities in one round trip, by a compiled plan.

Imported by services, so it needs numpy and the standard library only (redis-py when the address is Redis). `plan.py`
writes the plan. Reads packed rows, and the layouts of Feast's own SQLite and Redis stores.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.errors import PlatformError
from feature_repo.stores.backend import is_redis, open_backend
from feature_repo.stores.keys import serialise_keys
from feature_repo.stores.packed import Layout, to_micros
from feature_repo.stores.values import NOT_FOUND, OUTSIDE_MAX_AGE, PRESENT, UNAVAILABLE, Read, ViewRead

__all__ = ["NOT_FOUND", "OUTSIDE_MAX_AGE", "PRESENT", "UNAVAILABLE", "OnlineReader", "Read", "apply_transforms"]

_TRANSFORMS = "feature_repo.transforms."
_REST = 1.0  # seconds without asking a server that just failed, so that not every request waits for the deadline


class OnlineReader:
    """Reads many entities of several views. Safe to share between threads.

    Args:
        plan: see `plan.compile_plan`.
        online: address of the store (`backend.py`); for Redis its options say what happens when reading fails.
    """

    def __init__(self, plan: Mapping[str, Any], online: str) -> None:
        self._plan, self._backend = plan, open_backend(str(online))
        self._views = [_View(view) for view in plan["views"]]
        self._packed: dict[str, bool] = {}
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
        for view in self._views:
            if view.names not in cache:
                cache[view.names] = serialise_keys(view.join_keys, keys)
        return self.read_keys([cache[view.names] for view in self._views], moment)

    def read_keys(self, keys: Sequence[list[bytes]], moment: datetime | None = None) -> Read:
        """As `read`, for serialised keys of each view of the plan."""
        now = to_micros(moment) if moment else time.time_ns() // 1_000
        wanted = list(zip(self._views, keys, strict=True))
        try:
            if self._resting_until > time.monotonic():
                raise PlatformError("the online store failed a moment ago", code="online_unavailable")
            found = self._fetch(wanted)
        except PlatformError as err:
            if err.code != "online_unavailable" or not self._defaults_on_failure:
                raise
            self._rest()
            return Read([ViewRead.unavailable(v.name, v.layout, v.features, len(k)) for v, k in wanted])
        return Read([self._view(view, rows, now) for (view, _), rows in zip(wanted, found, strict=True)])

    def _rest(self) -> None:
        if self._resting_until <= time.monotonic():
            self._resting_until = time.monotonic() + _REST

    def _fetch(self, wanted: list[tuple[_View, list[bytes]]]) -> list[list[bytes | None]]:
        project = self._plan["project"]
        if self._feast_redis:
            from feature_repo.stores.feast_layout import read_redis

            ask = [(view.document, view.layout, keys) for view, keys in wanted]
            return self._backend.reading(lambda: read_redis(self._backend.client, project, ask))
        packed = [self._is_packed(view.name) for view, _ in wanted]
        if all(packed):
            return self._backend.fetch(project, [(view.name, keys) for view, keys in wanted])
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

    def _view(self, view: _View, rows: list[bytes | None], now: int) -> ViewRead:
        decoded = view.layout.decode(rows)
        if decoded is None:
            from feature_repo.stores.evolve import translate

            rows = translate(rows, view, lambda digest: self._backend.schema(self._plan["project"], digest))
            decoded = view.layout.decode(rows)
            assert decoded is not None
        return ViewRead.of(view.name, view.layout, view.features, decoded, now, view.ttl_micros)

    def close(self) -> None:
        """Give connections back."""
        self._backend.close()


class _View:
    """What is needed of one view of the plan."""

    def __init__(self, view: Mapping[str, Any]) -> None:
        self.document, self.name, self.join_keys = view, view["name"], view["join_keys"]
        self.names = tuple(f"{key['name']}:{key['dtype']}" for key in view["join_keys"])
        self.layout = Layout(view.get("fields") or view["features"])
        self.features = [feature["name"] for feature in view["features"]]
        self.ttl_micros = view["ttl_seconds"] * 1_000_000


def apply_transforms(plan: Mapping[str, Any], columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The on-demand features of a plan, from request fields, the timestamp (datetime64[us], UTC) and online features.

    Training and serving both call this. Only functions below ``feature_repo.transforms`` are called, since a plan
    travels in a bundle and may come from outside.
    """
    made: dict[str, NDArray[Any]] = {}
    for transform in plan.get("transforms", []):
        module, _, function = transform["function"].partition(":")
        if not module.startswith(_TRANSFORMS):
            raise PlatformError(
                f"transform refused: {transform['function']}",
                detail=f"accepted: functions below {_TRANSFORMS}",
                fix="move it there and publish the model again",
                code="bad_bundle",
            )
        result = getattr(importlib.import_module(module), function)({**columns, **made})
        made |= {name: np.asarray(result[name]) for name in transform["outputs"]}
    return made

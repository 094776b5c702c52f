"""An entity that the online store of a served model has, for a request that one can try."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from contracts.errors import PlatformError

_ROWS = 50  # of each view, among which entities that all views know are looked for
_CANDIDATES = 20


@dataclass(frozen=True, kw_only=True)
class Entity:
    """Keys that are online, without those of views that have none, and a moment at which features are not too old."""

    keys: dict[str, Any]
    moment: datetime


def stored_entity(plan: Mapping[str, Any], online: str) -> Entity | None:
    """An entity that as many views as possible know, now or else when its history ends; None: the store has none."""
    from feature_repo.stores.reader import PRESENT, OnlineReader

    try:
        rows = _stored(plan, online)
        plan = {**plan, "views": [view for view in plan["views"] if rows[view["name"]]]}
        found = _candidates(plan, rows)
        if not found:
            return None
        keys = {name: [one[name] for one in found] for name in found[0]}
        reader = OnlineReader(plan, online)
        now = datetime.now(UTC)
        best: tuple[int, Entity] | None = None
        for moment in (now, _end(plan, reader, keys)):
            read = reader.read(keys, moment)
            for at, one in enumerate(found):
                known = sum(str(read.status[view["name"]][at]) == PRESENT for view in plan["views"])
                if best is None or known > best[0]:
                    best = known, Entity(keys=one, moment=moment)
        reader.close()
    except (PlatformError, sqlite3.Error, OSError):
        return None
    return best[1] if best else None


def _stored(plan: Mapping[str, Any], online: str) -> dict[str, list[dict[str, Any]]]:
    """Some keys of each view."""
    from feature_repo.stores.backend import open_backend
    from feature_repo.stores.keys import deserialise_key

    backend = open_backend(online)
    try:
        return {
            view["name"]: [deserialise_key(key) for key, _ in backend.sample(plan["project"], view["name"], _ROWS)]
            for view in plan["views"]
        }
    finally:
        backend.close()


def _candidates(plan: Mapping[str, Any], stored: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Keys of all views together; views that share a key get the same value where both know it."""
    made: list[dict[str, Any]] = [{} for _ in range(_CANDIDATES)]
    for view in sorted(plan["views"], key=lambda one: -len(one["join_keys"])):
        for at, one in enumerate(made):
            rows = stored[view["name"]]
            fitting = [row for row in rows if all(one.get(name, value) == value for name, value in row.items())]
            if fitting:
                made[at] = {**fitting[at % len(fitting)], **one}
    names = {key["name"] for view in plan["views"] for key in view["join_keys"]}
    return [one for one in made if one and one.keys() == names]


def _end(plan: Mapping[str, Any], reader: Any, keys: Mapping[str, list[Any]]) -> datetime:
    """When the history ends: the last moment that the plan knows, or a later one that is online."""
    import numpy as np

    known = datetime.fromisoformat(plan["known_until"])
    ages = [np.asarray(ages, dtype=float) for ages in reader.read(keys, known).age_seconds.values()]
    later = -min((float(np.nanmin(one)) for one in ages if not np.isnan(one).all()), default=0.0)
    return known + timedelta(seconds=max(0.0, later))

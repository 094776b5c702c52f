"""Reading what Feast's own SQLite and Redis stores wrote, into packed rows, so that the reader needs one way only."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from feature_repo.stores.backend_sqlite import SqliteBackend, not_materialised
from feature_repo.stores.feast_protobuf import decode_timestamp, decode_value
from feature_repo.stores.packed_rows import FIXED, NEVER, Layout, to_bytes

Found = tuple[int, dict[str, Any]]  # microseconds since 1970, values by name
_CHUNK = 500


def read_sqlite(
    backend: SqliteBackend, project: str, view: Mapping[str, Any], layout: Layout, keys: Sequence[bytes]
) -> list[bytes | None]:
    """Rows of Feast's table ``<project>_<view>``: one line per entity and feature.

    Raises:
        PlatformError: there is no such table.
    """
    table = f"{project}_{view['name']}".replace('"', '""')
    found: dict[bytes, Found] = {}
    distinct = list(dict.fromkeys(keys))
    for start in range(0, max(1, len(distinct)), _CHUNK):
        part = distinct[start : start + _CHUNK]
        marks = ",".join("?" * len(part))
        query = f'SELECT entity_key, feature_name, value, event_ts FROM "{table}" WHERE entity_key IN ({marks})'
        try:
            rows = backend.reading().execute(query, part).fetchall()
        except sqlite3.OperationalError as err:
            if "no such table" not in str(err):
                raise
            raise not_materialised(f"no table of feature view {view['name']} in {backend.file}") from err
        for key, name, value, stamp in rows:
            found.setdefault(key, (_micros(stamp), {}))[1][name] = decode_value(value)
    return pack(layout, [found.get(key) for key in keys])


def read_redis(
    client: Any, project: str, wanted: Sequence[tuple[Mapping[str, Any], Layout, Sequence[bytes]]]
) -> list[list[bytes | None]]:
    """Rows of Feast's hashes (one per entity, for all views), in one pipeline.

    A field is found by the hash of ``view:feature``, which the plan knows (`plan.py`).
    """
    pipe = client.pipeline(transaction=False)
    for view, layout, keys in wanted:
        fields = [bytes.fromhex(view["feast_fields"][name]) for name, _ in layout.fields]
        for key in keys:
            pipe.hmget(key + project.encode(), [*fields, f"_ts:{view['name']}".encode()])
    answers, made = iter(pipe.execute()), []
    for _, layout, keys in wanted:
        found: list[Found | None] = []
        for _ in keys:
            *values, stamp = next(answers)
            names = (name for name, _ in layout.fields)
            found.append(_redis_row(dict(zip(names, values, strict=True)), stamp))
        made.append(pack(layout, found))
    return made


def _redis_row(values: dict[str, bytes | None], stamp: bytes | None) -> Found | None:
    if stamp is None:  # Feast calls this present, with nulls
        return None
    return decode_timestamp(stamp), {name: decode_value(value) for name, value in values.items() if value is not None}


def pack(layout: Layout, found: Sequence[Found | None]) -> list[bytes | None]:
    """Found values as packed rows."""
    rows = [row for row in found if row]
    if not rows:
        return [None] * len(found)
    values: dict[str, Any] = {}
    nulls: dict[str, list[bool]] = {}
    for name, dtype in layout.fields:
        column = [row[1].get(name) for row in rows]
        if dtype == "timestamp":  # pandas' "not a time", which Feast writes for null
            column = [None if value == NEVER else value for value in column]
        nulls[name] = [value is None for value in column]
        if dtype in FIXED:
            scale = 1_000_000 if dtype == "timestamp" else 1  # Feast keeps timestamps in whole seconds
            values[name] = [0 if value is None else value * scale for value in column]
        else:
            values[name] = [to_bytes(value, dtype) for value in column]
    packed = iter(layout.encode(values, nulls, [row[0] for row in rows], [NEVER] * len(rows)))
    return [next(packed) if row else None for row in found]


def _micros(stored: int | str) -> int:
    """Feast's own stores a moment as ISO text, naive and UTC; earlier versions of our store wrote seconds."""
    if isinstance(stored, str):
        moment = datetime.fromisoformat(stored)
        stored_at = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return round(stored_at.timestamp() * 1_000_000)
    return stored * 1_000_000

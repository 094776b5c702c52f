"""Online features without Feast: reads the SQLite layout that `feast materialize` fills, by a compiled plan.

Imported by services, so it needs numpy and the standard library only. `plan.py` writes the plan.
"""

from __future__ import annotations

import importlib
import sqlite3
import struct
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.errors import PlatformError

PRESENT, NOT_FOUND, OUTSIDE_MAX_AGE = "PRESENT", "NOT_FOUND", "OUTSIDE_MAX_AGE"
_TRANSFORMS = "feature_repo.transforms."
_CHUNK = 500  # keys of one query; SQLite admits 999 parameters in old builds
# feast.ValueType numbers, as they stand in serialised entity keys.
_KEY_TYPES = {"string": 2, "int32": 3, "int64": 4}


@dataclass(frozen=True, kw_only=True)
class Read:
    """What was read for n entities.

    Attributes:
        columns: feature -> array of n; a missing number is NaN, a missing string None.
        status: view -> n of PRESENT, NOT_FOUND, OUTSIDE_MAX_AGE (older than the view's time to live: not served).
        age_seconds: view -> n ages at the moment of the read; NaN when not found.
    """

    columns: dict[str, NDArray[Any]]
    status: dict[str, list[str]]
    age_seconds: dict[str, list[float]]


class OnlineReader:
    """Reads many entities of several views. Safe to share between threads: each has a connection of its own."""

    def __init__(self, plan: Mapping[str, Any], online: str) -> None:
        self._plan, self._file, self._local = plan, Path(online), threading.local()

    def read(self, keys: Mapping[str, Sequence[Any]], moment: datetime | None = None) -> Read:
        """Features as served at `moment` (default: now), for ``keys[join_key][i]``, i = 0..n-1.

        Raises:
            PlatformError: a join key is missing, or the store was never materialised.
        """
        now = (moment or datetime.now(UTC)).astimezone(UTC).replace(tzinfo=None)
        read = Read(columns={}, status={}, age_seconds={})
        for view in self._plan["views"]:
            found = self._rows(view, serialise_keys(view["join_keys"], keys))
            statuses, ages, values = [], [], []
            for row in found:
                age = (now - row[1]).total_seconds() if row else float("nan")
                old = bool(row) and 0 < view["ttl_seconds"] < age
                statuses.append(OUTSIDE_MAX_AGE if old else PRESENT if row else NOT_FOUND)
                ages.append(age)
                values.append(row[0] if row and not old else {})
            read.status[view["name"]], read.age_seconds[view["name"]] = statuses, ages
            for feature in view["features"]:
                name = feature["name"]
                read.columns[name] = _column([row.get(name) for row in values], feature["dtype"])
        return read

    def _rows(self, view: Mapping[str, Any], keys: list[bytes]) -> list[tuple[dict[str, Any], datetime] | None]:
        table = f"{self._plan['project']}_{view['name']}".replace('"', '""')
        found: dict[bytes, tuple[dict[str, Any], datetime]] = {}
        wanted = list(dict.fromkeys(keys))
        for start in range(0, len(wanted), _CHUNK):
            part = wanted[start : start + _CHUNK]
            marks = ",".join("?" * len(part))
            query = f'SELECT entity_key, feature_name, value, event_ts FROM "{table}" WHERE entity_key IN ({marks})'
            try:
                rows = self._connection().execute(query, part).fetchall()
            except sqlite3.OperationalError as err:
                if "no such table" not in str(err):
                    raise
                raise _not_materialised(f"no table of feature view {view['name']} in {self._file}") from err
            for key, name, value, stamp in rows:
                if key not in found:
                    found[key] = ({}, _moment(stamp))
                found[key][0][name] = decode_value(value)
        return [found.get(key) for key in keys]

    def _connection(self) -> sqlite3.Connection:
        made: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if made is None:
            if not self._file.exists():
                raise _not_materialised(f"no online store at {self._file}")
            made = sqlite3.connect(f"{self._file.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)
            self._local.connection = made
        return made


def _moment(stored: int | str) -> datetime:
    """When a row became known, naive UTC: seconds since 1970 by our store, ISO text by Feast's own."""
    if isinstance(stored, str):
        return datetime.fromisoformat(stored).replace(tzinfo=None)
    return datetime.fromtimestamp(stored, UTC).replace(tzinfo=None)


def _not_materialised(detail: str) -> PlatformError:
    return PlatformError(
        "the online store has not been materialised",
        detail=detail,
        fix="run the task once, which materialises its features: fairlead run TASK",
        code="not_materialised",
    )


def serialise_keys(join_keys: Sequence[Mapping[str, str]], keys: Mapping[str, Sequence[Any]]) -> list[bytes]:
    """Entity keys as Feast serialises them (version 3): names sorted, then values, each with type and length."""
    ordered = sorted(join_keys, key=lambda key: key["name"])
    if missing := [key["name"] for key in ordered if key["name"] not in keys]:
        raise PlatformError(
            f"entity key {missing[0]!r} is missing",
            detail=f"got: {', '.join(keys) or 'none'}",
            fix="give a value for every join key of the feature views",
            code="missing_key",
            key=missing[0],
        )
    head = struct.pack("<I", len(ordered))
    for key in ordered:
        name = key["name"].encode()
        head += struct.pack("<II", _KEY_TYPES["string"], len(name)) + name
    encoded = [[_encode_key(value, key["dtype"]) for value in keys[key["name"]]] for key in ordered]
    return [head + b"".join(parts) for parts in zip(*encoded, strict=True)]


def _encode_key(value: Any, dtype: str) -> bytes:
    whole = "<i" if dtype == "int32" else "<q"
    data = str(value).encode() if dtype == "string" else struct.pack(whole, int(value))
    return struct.pack("<II", _KEY_TYPES[dtype], len(data)) + data


def decode_value(data: bytes) -> Any:
    """One serialised ``feast.types.Value`` of a scalar; an empty message is null (None).

    See https://protobuf.dev/programming-guides/encoding/: one tag, then a varint, 4 or 8 bytes, or length and bytes.
    """
    if not data:
        return None
    field, wire = data[0] >> 3, data[0] & 7
    if wire == 1:
        return struct.unpack_from("<d", data, 1)[0]
    if wire == 5:
        return struct.unpack_from("<f", data, 1)[0]
    number, at = _varint(data, 1)
    if wire == 2:
        raw = data[at : at + number]
        return raw.decode() if field == 2 else raw
    if field == 7:
        return bool(number)
    return number - (1 << 64) if number >= 1 << 63 else number


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at


def _column(values: list[Any], dtype: str) -> NDArray[Any]:
    if dtype == "string":
        return np.array(values, dtype=object)
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


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
        made |= {name: result[name] for name in transform["outputs"]}
    return made

"""A packed row: all features of one entity in one feature view, as the bytes that the online store keeps.

    schema (8 bytes: hash of names and types) | event, created (int64 each: microseconds since 1970, UTC)
    fixed-width values, grouped by type | null bitmap | where each variable value ends (uint32 each) | variable values

Before the variable values, all rows of a schema have one size, so many are decoded by one structured dtype of numpy.
Little-endian. The hash stands first and the moments second because the Redis script compares them (`backend_redis.py`).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contracts.errors import PlatformError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NEVER = -(2**63)  # a created moment that is not known
FIXED = {"float64": "<f8", "int64": "<i8", "timestamp": "<i8", "float32": "<f4", "int32": "<i4", "bool": "u1"}
_FORMAT = 1  # part of the hash: rows of another format are never misread
_END = np.dtype("<u4")
_ITEM = {"string": None, "bytes": None, **FIXED}


class Rows(NamedTuple):
    """n rows of one layout, as far as they have one size; `records` of absent rows are zeros."""

    records: NDArray[Any]
    found: NDArray[np.bool_]
    raw: Sequence[bytes | None]


class Layout:
    """How rows of a schema are laid out.

    Args:
        fields: ``{"name", "dtype"}`` of every feature of the view; array types are written ``array<float32>``.
    """

    def __init__(self, fields: Sequence[Mapping[str, str]]) -> None:
        self.fields = [(field["name"], field["dtype"]) for field in fields]
        for name, dtype in self.fields:
            if dtype not in _ITEM and item_type(dtype) not in _ITEM:
                raise PlatformError(
                    f"field {name} has type {dtype}", detail=f"accepted: {', '.join(_ITEM)}, array<...>"
                )
        text = f"{_FORMAT}|" + "|".join(f"{name}:{dtype}" for name, dtype in self.fields)
        self.digest = hashlib.sha256(text.encode()).digest()[:8]
        self.groups = {group: [n for n, d in self.fields if d == group] for group in FIXED}
        self.filled = [(group, names) for group, names in self.groups.items() if names]
        self.variable = [(name, dtype) for name, dtype in self.fields if dtype not in FIXED]
        self._only_text = all(dtype == "string" for _, dtype in self.variable)
        self.bit = {name: bit for bit, (name, _) in enumerate(self.fields)}
        self.place = {name: (group, at) for group, names in self.groups.items() for at, name in enumerate(names)}
        parts: list[Any] = [("schema", "<u8"), ("event", "<i8"), ("created", "<i8")]
        parts += [(group, FIXED[group], (len(names),)) for group, names in self.filled]
        parts.append(("nulls", "u1", (max(1, (len(self.fields) + 7) // 8),)))
        if self.variable:
            parts.append(("ends", "<u4", (len(self.variable),)))
        self.dtype = np.dtype(parts)
        self.number = int.from_bytes(self.digest, "little")
        self.null_bytes = max(1, (len(self.fields) + 7) // 8)
        self.null_offset: int = self.dtype.fields["nulls"][1]  # type: ignore[index]
        self._blank = bytes(self.dtype.itemsize)

    @cached_property
    def document(self) -> list[dict[str, str]]:
        """The fields as JSON-ready data; ``Layout(layout.document)`` is the same layout."""
        return [{"name": name, "dtype": dtype} for name, dtype in self.fields]

    def encode(self, values: Mapping[str, Any], nulls: Mapping[str, Any], event: Any, created: Any) -> list[bytes]:
        """Pack n rows.

        Args:
            values: feature -> array of n (fixed types), or n bytes (variable types, from `to_bytes`).
            nulls: feature -> bool array of n, True where there is no value; a feature may be left out.
            event, created: int64 arrays of n, microseconds since 1970 (`NEVER` for an unknown created moment).
        """
        records = np.zeros(len(event), dtype=self.dtype)
        records["schema"], records["event"], records["created"] = self.number, event, created
        missing = np.zeros((len(event), len(self.fields)), dtype=bool)
        for name, bit in self.bit.items():
            if name in nulls:
                missing[:, bit] = nulls[name]
        for name, (group, at) in self.place.items():
            records[group][:, at] = np.where(missing[:, self.bit[name]], 0, values[name])
        if self.fields:
            records["nulls"] = np.packbits(missing, axis=1, bitorder="little")
        if self.variable:
            lengths = np.array([[len(value) for value in values[name]] for name, _ in self.variable], dtype=np.int64)
            records["ends"] = np.cumsum(lengths, axis=0).T
        size, packed = self.dtype.itemsize, records.tobytes()
        heads = [packed[at : at + size] for at in range(0, size * len(event), size)]
        if not self.variable:
            return heads
        return [b"".join(row) for row in zip(heads, *(values[name] for name, _ in self.variable), strict=True)]

    def decode(self, raw: Sequence[bytes | None]) -> Rows | None:
        """The rows of this schema; None when one of them has another (`split_by_schema` tells which).

        Raises:
            PlatformError: a row is shorter or longer than its schema says.
        """
        block = self.heads(raw)
        if block is None:
            return None
        records = np.frombuffer(block, dtype=self.dtype)
        found = records["schema"] == self.number
        if records["schema"][~found].any():
            self._explain(raw)
            return None
        self.ends(raw, block)
        return Rows(records, found, raw)

    def heads(self, raw: Sequence[bytes | None]) -> bytes | None:
        """What has one size of all rows, one after the other, and zeros for those that are absent; None when a row is
        of another schema, which is sure to be noticed here only when it is shorter.

        Raises:
            PlatformError: a row is damaged.
        """
        size = self.dtype.itemsize
        try:
            joined = b"".join([row[:size] for row in raw] if self.variable else raw)  # type: ignore[index, arg-type]
        except TypeError:  # there is a None
            joined = b""
        if len(joined) != size * len(raw):
            joined = b"".join([row[:size] if row else self._blank for row in raw])
            if len(joined) != size * len(raw) or (not self.variable and any(row and len(row) != size for row in raw)):
                self._explain(raw)
                return None
        return joined

    def ends(self, raw: Sequence[bytes | None], block: Any) -> list[list[int]]:
        """Where the variable values of n rows end, feature by feature; `block` is of `heads`.

        Raises:
            PlatformError: the variable values of a row of this schema are not as long as it says.
        """
        if not self.variable or not len(raw):
            return [[] for _ in self.variable]
        size, count = self.dtype.itemsize, len(self.variable)
        ends: list[list[int]] = np.ndarray((count, len(raw)), _END, block, size - 4 * count, (4, size)).tolist()
        if [len(row) - size if row else 0 for row in raw] != ends[-1]:
            self._explain(raw)
        return ends

    def _explain(self, raw: Sequence[bytes | None]) -> None:
        """Raise for the first row of this schema that is damaged."""
        size = self.dtype.itemsize
        for at, row in enumerate(raw):
            if not row or (len(row) >= 8 and not row.startswith(self.digest)):
                continue
            whole = len(row) >= size and len(row) == size + (
                struct.unpack_from("<I", row, size - 4)[0] if self.variable else 0
            )
            if not whole:
                raise PlatformError(
                    f"row {at} of the online store is damaged",
                    detail=f"it has {len(row)} bytes, its schema says {size}{' and more' if self.variable else ''}",
                    fix="materialise the feature view again",
                    code="damaged_row",
                    row=at,
                )

    def nulls(self, rows: Rows) -> NDArray[np.bool_]:
        """(n, features) in the order of `fields`."""
        bits = np.unpackbits(rows.records["nulls"], axis=1, bitorder="little", count=len(self.fields))
        return bits.view(bool)

    def values(self, rows: Rows, name: str) -> NDArray[Any]:
        """One feature in its own type: zeros (or None) where it is missing; arrays and text as objects."""
        if name in self.place:
            group, at = self.place[name]
            column: NDArray[Any] = rows.records[group][:, at]
            if group == "bool":
                return column.astype(bool)
            return column.astype("M8[us]") if group == "timestamp" else column
        missing = self.nulls(rows) | ~rows.found[:, None]
        return self.variables(rows.raw, self.ends(rows.raw, rows.records), [name], missing)[name]

    def variables(
        self,
        raw: Sequence[bytes | None],
        ends: Sequence[list[int]],
        names: Sequence[str],
        missing: NDArray[np.bool_] | None,
    ) -> dict[str, NDArray[Any]]:
        """Features of variable types as objects; None where `missing`, (n, fields), says so."""
        size, made = self.dtype.itemsize, {}
        tails: Sequence[Any] = [row[size:] if row else b"" for row in raw]
        plain = self._only_text and b"".join(tails).isascii()
        if plain:  # one character is one byte: cutting text is faster than cutting bytes and making text of each
            tails = [tail.decode("ascii") for tail in tails]
        starts = [0] * len(tails)
        for (name, dtype), stops in zip(self.variable, ends, strict=True):
            if name in names:
                cut = [tail[start:stop] for tail, start, stop in zip(tails, starts, stops, strict=True)]
                column = made[name] = np.array(cut, dtype=object)
                gone = missing[:, self.bit[name]] if missing is not None else None
                if not plain:
                    for at, value in enumerate(cut):
                        column[at] = None if gone is not None and gone[at] else from_bytes(value, dtype)
                elif gone is not None:
                    column[gone] = None
            starts = stops
        return made


def to_micros(moment: datetime) -> int:
    """Microseconds since 1970; a naive moment is UTC."""
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH) // timedelta(microseconds=1)


def item_type(dtype: str) -> str:
    """``float32`` for ``array<float32>``; empty for other types."""
    return dtype[6:-1] if dtype.startswith("array<") else ""


def to_bytes(value: Any, dtype: str) -> bytes:
    """A variable-width value: text as UTF-8, arrays of numbers as they are in memory, arrays of text with lengths."""
    if value is None:
        return b""
    if dtype == "string":
        return str(value).encode()
    if dtype == "bytes":
        return bytes(value)
    item = item_type(dtype)
    if item in FIXED:
        return np.asarray(value, dtype=FIXED[item]).tobytes()
    parts = [to_bytes(part, item) for part in value]
    return struct.pack(f"<I{len(parts)}I", len(parts), *map(len, parts)) + b"".join(parts)


def from_bytes(data: bytes, dtype: str) -> Any:
    """The inverse of `to_bytes`."""
    if dtype == "string":
        return data.decode()
    if dtype == "bytes":
        return data
    item = item_type(dtype)
    if item in FIXED:
        numbers = np.frombuffer(data, dtype=FIXED[item])
        return numbers.astype(bool) if item == "bool" else numbers.astype("M8[us]") if item == "timestamp" else numbers
    (count,) = struct.unpack_from("<I", data)
    at, parts = 4 + 4 * count, []
    for length in struct.unpack_from(f"<{count}I", data, 4):
        parts.append(from_bytes(data[at : at + length], item))
        at += length
    return parts


def split_by_schema(raw: Sequence[bytes | None]) -> dict[bytes, list[int]]:
    """Which rows have which schema hash; rows that are absent are in none.

    Raises:
        PlatformError: a row is too short to have one.
    """
    groups: dict[bytes, list[int]] = {}
    for at, row in enumerate(raw):
        if row:
            if len(row) < 8:
                raise PlatformError(
                    f"row {at} of the online store is damaged",
                    detail=f"it has {len(row)} bytes",
                    fix="materialise the feature view again",
                    code="damaged_row",
                    row=at,
                )
            groups.setdefault(row[:8], []).append(at)
    return groups

"""Entity keys as Feast serialises them (version 3), many at a time and without Feast."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from contracts.errors import PlatformError

# feast.ValueType numbers, as they stand in serialised entity keys.
_TYPES = {"bytes": 1, "string": 2, "int32": 3, "int64": 4, "timestamp": 8}


def serialise_keys(join_keys: Sequence[Mapping[str, str]], keys: Mapping[str, Sequence[Any]]) -> list[bytes]:
    """One key per entity: names sorted, then values, each with its type and length, so that no separator can clash.

    Raises:
        PlatformError: a join key is missing, or a value does not fit its type.
    """
    ordered = sorted(join_keys, key=lambda key: key["name"])
    if missing := [key["name"] for key in ordered if key["name"] not in keys]:
        raise PlatformError(
            f"entity key {missing[0]!r} is missing",
            detail=f"got: {', '.join(keys) or 'none'}",
            fix="give a value for every join key of the feature views",
            code="missing_key",
            key=missing[0],
        )
    head = key_prefix(tuple(key["name"] for key in ordered))
    encoded = [_encode(keys[key["name"]], key) for key in ordered]
    if len(encoded) == 1:
        return [head + part for part in encoded[0]]
    if len({len(parts) for parts in encoded}) > 1:
        raise PlatformError(
            "entity keys have different lengths",
            detail=", ".join(f"{key['name']}: {len(keys[key['name']])}" for key in ordered),
            fix="give one value per entity for each join key",
            code="bad_key",
        )
    return [head + b"".join(parts) for parts in zip(*encoded, strict=True)]


def deserialise_key(key: bytes) -> dict[str, Any]:
    """The join keys of a serialised entity key."""
    (count,) = struct.unpack_from("<I", key)
    at, names = 4, []
    for _ in range(count):
        (length,) = struct.unpack_from("<I", key, at + 4)
        names.append(key[at + 8 : at + 8 + length].decode())
        at += 8 + length
    found: dict[str, Any] = {}
    for name in names:
        kind, length = struct.unpack_from("<II", key, at)
        raw = key[at + 8 : at + 8 + length]
        if kind == _TYPES["string"]:
            found[name] = raw.decode()
        else:
            found[name] = raw if kind == _TYPES["bytes"] else int.from_bytes(raw, "little", signed=True)
        at += 8 + length
    return found


@lru_cache(maxsize=256)
def key_prefix(names: tuple[str, ...]) -> bytes:
    """What all keys of the join keys `names` (sorted) begin with."""
    head = struct.pack("<I", len(names))
    for name in names:
        head += struct.pack("<II", _TYPES["string"], len(name.encode())) + name.encode()
    return head


def _encode(values: Sequence[Any], key: Mapping[str, str]) -> list[bytes]:
    dtype = key["dtype"]
    try:
        if dtype in ("string", "bytes"):
            raw = _texts(values) if dtype == "string" else [bytes(value) for value in values]
            heads = {length: struct.pack("<II", _TYPES[dtype], length) for length in set(map(len, raw))}
            return [heads[len(data)] + data for data in raw]
        whole = struct.Struct("<IIi" if dtype == "int32" else "<IIq")
        kind, width = _TYPES[dtype], 4 if dtype == "int32" else 8
        return [whole.pack(kind, width, int(value)) for value in values]
    except (struct.error, ValueError, TypeError, OverflowError) as err:
        raise PlatformError(
            f"entity key {key['name']!r} has a value that is no {dtype}",
            detail=str(err),
            fix=f"give {dtype} values",
            code="bad_key",
            key=key["name"],
        ) from err


def _texts(values: Sequence[Any]) -> list[bytes]:
    if set(map(type, values)) <= {str}:
        return [value.encode() for value in values]
    if any(value is None or value != value for value in values):
        raise TypeError("a key is never null")
    return [str(value).encode() for value in values]

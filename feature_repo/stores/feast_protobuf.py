"""Scalars and lists of Feast's ``Value`` message, decoded without protobuf (services read Feast's own layouts)."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

_LISTS = {11: "bytes", 12: "string", 13: "int32", 14: "int64", 15: "float64", 16: "float32", 17: "bool", 18: "int64"}


def decode_value(data: bytes) -> Any:
    """One serialised ``feast.types.Value``; an empty message and ``null_val`` are null (None).

    See https://protobuf.dev/programming-guides/encoding/: one tag, then a varint, 4 or 8 bytes, or length and bytes.
    """
    if not data:
        return None
    tag, at = varint(data, 0)
    field, wire = tag >> 3, tag & 7
    if wire == 1:
        return struct.unpack_from("<d", data, at)[0]
    if wire == 5:
        return struct.unpack_from("<f", data, at)[0]
    number, at = varint(data, at)
    if wire == 2:
        raw = data[at : at + number]
        if field in _LISTS:
            return _list(raw, _LISTS[field])
        return raw.decode() if field == 2 else raw
    if field == 19:
        return None
    if field == 7:
        return bool(number)
    return signed(number)


def _list(raw: bytes, kind: str) -> Any:
    """A message with one repeated field: packed numbers, or one entry per text."""
    if kind in ("string", "bytes"):
        found, at = [], 0
        while at < len(raw):
            length, at = varint(raw, at + 1)
            found.append(raw[at : at + length])
            at += length
        return [item.decode() for item in found] if kind == "string" else found
    if not raw:
        return np.array([], dtype=kind)
    _, at = varint(raw, 1)
    if kind.startswith("float"):
        return np.frombuffer(raw, dtype=kind, offset=at)
    numbers = []
    while at < len(raw):
        number, at = varint(raw, at)
        numbers.append(signed(number))
    return np.array(numbers, dtype=kind)


def decode_timestamp(data: bytes) -> int:
    """A ``google.protobuf.Timestamp`` as microseconds since 1970."""
    seconds = nanos = at = 0
    while at < len(data):
        tag, at = varint(data, at)
        number, at = varint(data, at)
        seconds, nanos = (signed(number), nanos) if tag >> 3 == 1 else (seconds, number)
    return seconds * 1_000_000 + nanos // 1_000


def signed(number: int) -> int:
    """A 64-bit varint as a signed number."""
    return number - (1 << 64) if number >= 1 << 63 else number


def varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and where the next begins."""
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at

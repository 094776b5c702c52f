"""Entity keys: one canonical form of each, and how Feast serialises them (version 3), many at a time and without Feast.

The canonical form is text. White space around it does not belong to it; a whole number is its digits, however it was
written: ``700593.0``, ``7.00593e5``, a float, a Decimal, a type of numpy or Arrow. Other text stays as it is, so
``007`` and ``C000001`` do, and so does ``1.5``. Refused are nulls, floats with a fraction, booleans, and floats too
large for every whole number to be one of them.
"""

from __future__ import annotations

import numbers
import re
import struct
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

from contracts.errors import PlatformError

if TYPE_CHECKING:
    import pyarrow as pa

# feast.ValueType numbers, as they stand in serialised entity keys.
_TYPES = {"bytes": 1, "string": 2, "int32": 3, "int64": 4, "timestamp": 8}
EXPECTED = "text, or a whole number that is exact (floats up to 2**53)"
# What writes floats gives them a point or a sign of the exponent; identifiers in hexadecimal have neither.
NUMERAL = r"[+-]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-][0-9]+|[0-9][eE][0-9]{1,2})"
_NUMERAL = re.compile(NUMERAL)
_WHOLE = re.compile(r"[+-]?[0-9]+")
_LINE_LIKE_NUMERAL = re.compile(r"\n[-+0-9]*+[.eE][-+.0-9eE]*\n")  # finds every line that is one, and others
_BARE = re.compile(r"[+-]?[0-9][eE][0-9]{1,2}")
_EXACT = {2: 2**11, 4: 2**24, 8: 2**53}  # bytes of a float -> up to where every whole number is one
SPACE = "".join(sign for sign in map(chr, range(0x3001)) if sign.isspace())  # what `str.strip` takes off


class RefusedKeyError(ValueError):
    """A value that cannot be a key; says why."""


def canonical_text(value: Any) -> str:
    """The one form of a key.

    Raises:
        RefusedKeyError: it is none.
    """
    if isinstance(value, str):  # also numpy's, and members of an enumeration of texts
        return _canonical_numeral(str.strip(value))
    if type(value) is int:
        return str(value)
    if hasattr(value, "as_py"):
        kind = str(value.type)
        width = {"halffloat": 2, "float": 4}.get(kind)
        value = value.as_py()
        return _of_float(value, width) if width and value is not None else canonical_text(value)
    if value is None or value is Ellipsis or type(value).__name__ in ("NAType", "NaTType"):
        raise RefusedKeyError("a key is never null")
    if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_"):
        raise RefusedKeyError("a boolean is no key")
    if isinstance(value, numbers.Integral):
        return str(int(value))
    if isinstance(value, numbers.Real):
        return _of_float(float(value), getattr(value, "itemsize", 8))
    if isinstance(value, Decimal):
        return _of_decimal(value)
    if isinstance(value, UUID):
        return str(value)
    raise RefusedKeyError(f"{type(value).__name__} is no key")


def _canonical_numeral(text: str) -> str:
    if ("." not in text and "e" not in text and "E" not in text) or not _NUMERAL.fullmatch(text):
        return text
    try:
        number = Decimal(text)
        large = abs(number) > _EXACT[8]
    except ArithmeticError:
        large = True
    if large:
        if _BARE.fullmatch(text):
            return text
        raise RefusedKeyError(f"{text[:40]} was a float too large to be exact")
    return str(int(number)) if number == number.to_integral_value() else text


def _of_float(value: float, size: int) -> str:
    if value != value:
        raise RefusedKeyError("a key is never null")
    if abs(value) > _EXACT.get(size, 2**53):
        raise RefusedKeyError(f"{value!r} is a float too large to be exact")
    if value != int(value):
        raise RefusedKeyError(f"{value!r} is no whole number")
    return str(int(value))


def _of_decimal(value: Decimal) -> str:
    if value.is_nan():
        raise RefusedKeyError("a key is never null")
    if not value.is_finite() or value.adjusted() > 400 or value != value.to_integral_value():
        raise RefusedKeyError(f"{str(value)[:40]} is no whole number")
    return str(int(value))


def canonical_texts(values: Sequence[Any], name: str) -> list[str]:
    """The canonical forms of many keys.

    Raises:
        PlatformError: one is no key; named by `name` and its row.
    """
    try:
        texts = list(map(str.strip, values))
    except TypeError:  # some are no texts
        texts = []
    if texts and not _have_numerals(texts):
        return texts
    made = []
    for row, value in enumerate(values):
        try:
            made.append(canonical_text(value))
        except RefusedKeyError as err:
            raise bad_key(name, row, str(err)) from err
    return made


def _have_numerals(texts: list[str]) -> bool:
    """Whether some text is a number with a point or an exponent. One search in all of them is far faster than
    one in each."""
    joined = "\n".join(texts)
    if "." not in joined and "e" not in joined and "E" not in joined:
        return False
    return _LINE_LIKE_NUMERAL.search(f"\n{joined}\n") is not None and any(map(_NUMERAL.fullmatch, texts))


def bad_key(name: str, row: int, reason: str) -> PlatformError:
    """The error for a value that is no key."""
    return PlatformError(
        f"row {row}: entity key {name!r} has a value that is no key",
        detail=reason,
        fix=f"give {EXPECTED}",
        code="bad_key",
        key=name,
        row=row,
    )


def canonical_column(values: Any) -> tuple[pa.Array, pa.Array]:
    """Canonical forms of an Arrow array or chunked array: the texts, null where there is no key, and where a value is
    refused (a missing one is not)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if isinstance(values, pa.ChunkedArray):  # what is too large for one
        parts = [canonical_column(chunk) for chunk in values.chunks]
        return pa.chunked_array([texts for texts, _ in parts]), pa.chunked_array([refused for _, refused in parts])
    kind = values.type
    if pa.types.is_dictionary(kind):
        texts, refused = canonical_column(values.dictionary)
        return pc.take(texts, values.indices), pc.fill_null(pc.take(refused, values.indices), False)
    if pa.types.is_null(kind):
        return values.cast(pa.string()), _no(len(values))
    if pa.types.is_integer(kind):
        return values.cast(pa.string()), _no(len(values))
    if pa.types.is_floating(kind):
        limit, wide = float(_EXACT[kind.bit_width // 8]), values.cast(pa.float64())
        whole = pc.and_(pc.equal(wide, pc.floor(wide)), pc.less_equal(pc.abs(wide), limit))
        texts = pc.if_else(whole, wide, None).cast(pa.int64()).cast(pa.string())
        return texts, pc.and_(pc.is_null(texts), pc.invert(pc.is_null(values, nan_is_null=True)))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or str(kind) == "string_view":
        return _text_column(values.cast(pa.string()))
    return _one_by_one(values)


def _text_column(values: pa.Array) -> tuple[pa.Array, pa.Array]:
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = pc.utf8_trim(values, SPACE)
    odd = pc.fill_null(pc.match_substring_regex(texts, f"^(?:{NUMERAL})$"), False)
    if not pc.any(odd, min_count=0).as_py():
        return texts, _no(len(texts))
    made, wrong = _one_by_one(texts.filter(odd))
    refused = pc.replace_with_mask(pa.array([False] * len(texts)), odd, wrong)
    return pc.replace_with_mask(texts, odd, made), refused


def _one_by_one(values: pa.Array) -> tuple[pa.Array, pa.Array]:
    import pyarrow as pa

    texts: list[str | None] = []
    refused = []
    for value in values:
        missing = value.as_py() is None
        try:
            texts.append(None if missing else canonical_text(value))
            refused.append(False)
        except RefusedKeyError:
            texts.append(None)
            refused.append(True)
    return pa.array(texts, pa.string()), pa.array(refused, pa.bool_())


def _no(rows: int) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.fill_null(pa.nulls(rows, pa.bool_()), False)


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
    if len(ordered) == 1:
        return _encode(keys[ordered[0]["name"]], ordered[0], head)
    encoded = [_encode(keys[key["name"]], key) for key in ordered]
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


def _encode(values: Sequence[Any], key: Mapping[str, str], head: bytes = b"") -> list[bytes]:
    """What the keys have of one join key, behind `head`: the type, the length and the value of each."""
    dtype = key["dtype"]
    try:
        if dtype in ("string", "bytes"):
            if dtype == "string":
                raw = _utf8(canonical_texts(values, key["name"]))
            else:
                raw = [bytes(value) for value in values]
            heads = {length: head + struct.pack("<II", _TYPES[dtype], length) for length in set(map(len, raw))}
            if len(heads) == 1:
                (same,) = heads.values()
                return [same + data for data in raw]
            return [heads[len(data)] + data for data in raw]
        width = 4 if dtype == "int32" else 8
        head += struct.pack("<II", _TYPES[dtype], width)
        number = struct.Struct("<i" if dtype == "int32" else "<q")
        return [head + data for data in map(number.pack, _whole_numbers(values, key["name"]))]
    except (struct.error, ValueError, TypeError, OverflowError) as err:
        raise PlatformError(
            f"entity key {key['name']!r} has a value that is no {dtype}",
            detail=str(err),
            fix=f"give {dtype} values",
            code="bad_key",
            key=key["name"],
        ) from err


def _utf8(texts: list[str]) -> list[bytes]:
    """The texts in UTF-8: all at once, which takes half the time, unless one of them has a line end."""
    raw = "\n".join(texts).encode().split(b"\n")
    return raw if len(raw) == len(texts) else [text.encode() for text in texts]


def _whole_numbers(values: Sequence[Any], name: str) -> Sequence[int]:
    if set(map(type, values)) <= {int}:
        return values
    texts = canonical_texts(values, name)
    digits = "".join(texts)
    if not (digits.isascii() and digits.isdecimal() and all(texts)):  # most often they are, which takes no loop
        for row, text in enumerate(texts):
            if not _WHOLE.fullmatch(text):
                raise bad_key(name, row, "expected a whole number, got text that is none")
    return list(map(int, texts))

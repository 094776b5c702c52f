"""Turns the values of one field into a checked numpy column; what is odd but servable becomes a flag.

Each function takes the field, its values (one per row) and two sinks: `flags[row]`, a list of words that go with
the answer, and `errors`, (row, message) pairs that make the request invalid. Messages name types, never values.
"""

from __future__ import annotations

import binascii
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from contracts.bundle import Input
from feature_repo.stores.keys import RefusedKeyError, canonical_text

Flags = list[list[str]]
Errors = list[tuple[int, str]]
Column = NDArray[Any]
_INT64 = 2**63
_A_KEY = "an entity key: a whole number of 64 bits (at most 2**53 where it has a point), or text of 1 to 256 characters"
UNBOUNDED = sys.float_info.max
_JSON_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array", dict: "object"}


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field of a request.

    kind: an entity key, the event's timestamp, or an input of the model or of its on-demand features.
    """

    name: str
    kind: Literal["entity", "timestamp", "input"]
    dtype: str = "string"
    default: float | int | str | None = None
    categories: frozenset[str] | None = None
    minimum: float = -UNBOUNDED
    maximum: float = UNBOUNDED
    max_chars: int = 100_000
    description: str = ""

    @classmethod
    def of(cls, source: Input, max_chars: int) -> Field:
        """The field of an input of the signature."""
        return cls(
            name=source.name,
            kind="input",
            dtype=source.dtype,
            default=source.default,
            categories=None if source.categories is None else frozenset(source.categories),
            minimum=-UNBOUNDED if source.minimum is None else source.minimum,
            maximum=UNBOUNDED if source.maximum is None else source.maximum,
            max_chars=max_chars,
            description=source.description,
        )

    def column(self, values: Sequence[Any], flags: Flags, errors: Errors) -> Column:
        """The checked column of `values`; meaningless when errors were added."""
        if self.kind != "input":
            return _DECODERS[self.kind](self, values, flags, errors)
        return _DECODERS[self.dtype](self, values, flags, errors)


def _floats(field: Field, values: Sequence[Any], flags: Flags, errors: Errors) -> Column:
    low, high = field.minimum, field.maximum
    checked: list[float] = []
    for row, value in enumerate(values):
        kind = type(value)
        if kind is float or kind is int:
            # The widest bounds are finite: what is not finite fails this comparison and is looked at below.
            if not low <= value <= high:
                if value != value or not -UNBOUNDED <= value <= UNBOUNDED:
                    errors.append((row, "expected a finite number of 64 bits; send null for a missing value"))
                    continue
                flags[row].append(f"out_of_range:{field.name}")
            checked.append(value)
        elif value is None:
            flags[row].append(f"missing:{field.name}")
            checked.append(math.nan if field.default is None else float(field.default))
        else:
            errors.append((row, _expected("a number", value)))
    return np.array(checked, np.float64)


def _integers(field: Field, values: Sequence[Any], flags: Flags, errors: Errors) -> Column:
    missing = False
    checked: list[float | int] = []
    for row, value in enumerate(values):
        whole = 0
        if type(value) is int or (type(value) is float and value.is_integer()):
            if not -_INT64 <= value < _INT64:
                errors.append((row, "expected an integer of 64 bits"))
            else:
                whole = int(value)
                if not field.minimum <= whole <= field.maximum:
                    flags[row].append(f"out_of_range:{field.name}")
        elif value is None:
            flags[row].append(f"missing:{field.name}")
            if field.default is None:
                missing = True
                checked.append(math.nan)
                continue
            whole = int(field.default)
        else:
            errors.append((row, _expected("an integer", value)))
        checked.append(whole)
    return np.array(checked, np.float64 if missing else np.int64)


def _booleans(field: Field, values: Sequence[Any], flags: Flags, errors: Errors) -> Column:
    checked: list[float | bool] = []
    for row, value in enumerate(values):
        if type(value) is bool:
            checked.append(value)
        elif value is None:
            flags[row].append(f"missing:{field.name}")
            checked.append(math.nan if field.default is None else bool(field.default))
        else:
            checked.append(False)
            errors.append((row, _expected("true or false", value)))
    return np.array(checked, bool if all(type(value) is bool for value in checked) else np.float64)


def _strings(field: Field, values: Sequence[Any], flags: Flags, errors: Errors) -> Column:
    out = np.empty(len(values), object)
    known = field.categories
    for row, value in enumerate(values):
        if type(value) is str:
            out[row] = value
            if known is not None and value not in known:
                flags[row].append(f"unknown_category:{field.name}")
            if len(value) > field.max_chars:
                errors.append((row, f"has {len(value)} characters, at most {field.max_chars} are accepted"))
        elif value is None:
            flags[row].append(f"missing:{field.name}")
            out[row] = "" if field.default is None else str(field.default)
        else:
            errors.append((row, _expected("a string", value)))
    return out


def _files(field: Field, values: Sequence[Any], flags: Flags, errors: Errors) -> Column:
    out = np.empty(len(values), object)
    for row, value in enumerate(values):
        try:
            file = binascii.a2b_base64(value, strict_mode=True) if type(value) is str else value
        except ValueError:  # also for characters outside ASCII
            errors.append((row, f"expected a file in base64, got a string of {len(value)} characters that is none"))
            continue
        if type(file) is not bytes:
            errors.append((row, _expected("a file in base64", value)))
        elif not file:
            errors.append((row, "is empty; expected a file"))
        out[row] = file
    return out


def _entities(field: Field, values: Sequence[Any], flags: Flags, errors: Errors) -> Column:
    out = np.empty(len(values), object)
    for row, value in enumerate(values):
        try:
            out[row] = canonical_text(value)
            fits = 0 < len(out[row]) <= 256 if type(value) is str else -_INT64 <= int(out[row]) < _INT64
        except RefusedKeyError:
            fits = False
        if not fits:
            errors.append((row, _expected(_A_KEY, value)))
    return out


def _moments(field: Field, values: Sequence[Any], flags: Flags, errors: Errors) -> Column:
    out = np.empty(len(values), "datetime64[us]")
    for row, value in enumerate(values):
        if value is None:
            moment = datetime.now(UTC)
        elif type(value) is str and len(value) <= 64:
            try:
                moment = datetime.fromisoformat(value)
                moment = moment.astimezone(UTC) if moment.tzinfo else moment
            except (ValueError, OverflowError):
                errors.append((row, "expected ISO 8601, for example 2026-02-01T10:00:00Z"))
                continue
        else:
            errors.append((row, _expected("a time in ISO 8601, for example 2026-02-01T10:00:00Z", value)))
            continue
        out[row] = moment.replace(tzinfo=None)
    return out


def _expected(what: str, value: Any) -> str:
    if type(value) is str:
        return f"expected {what}, got a string of {len(value)} characters"
    return f"expected {what}, got {_JSON_TYPES.get(type(value), 'null')}"


_DECODERS: dict[str, Callable[[Field, Sequence[Any], Flags, Errors], Column]] = {
    "float64": _floats,
    "int64": _integers,
    "bool": _booleans,
    "string": _strings,
    "bytes": _files,
    "entity": _entities,
    "timestamp": _moments,
}

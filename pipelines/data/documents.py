"""Documents as rows: nested fields by dotted names, each column with one type that holds every value without loss.

What a column is follows from all of its values and not from their order: true or false, whole numbers, numbers,
moments (UTC, milliseconds) or bytes where every value is one; else text. As text ids are hexadecimal, numbers of
Decimal128 and of Python are as they are written, whole floats have no point, moments are ISO 8601, bytes base64, and
lists JSON. A field that is missing is null, as one that is null; a column that is always null is left out. A dot in a
key is written ``\\.``, so that it is never taken for a level.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError

if TYPE_CHECKING:
    import pyarrow as pa

MOST_COLUMNS = 2_000
_EXACT = 2**53  # whole numbers up to it are floats without loss
Kinds = dict[str, set[str]]
"""Of each column, the kinds of its values; none where all are null."""

_KINDS = {
    "bool": "bool",
    "int": "int",
    "Int64": "int",
    "float": "float",
    "str": "text",
    "datetime": "moment",
    "DatetimeMS": "moment",
    "ObjectId": "id",
    "Decimal128": "decimal",
    "bytes": "bytes",
    "Binary": "bytes",
    "UUID": "uuid",
    "NoneType": "",
}


class Rows:
    """Documents on their way into columns."""

    def __init__(self) -> None:
        self._root = _Level("")
        self._columns: dict[str, list[Any]] = {}
        self.rows = 0

    def add(self, documents: Iterable[Mapping[str, Any]]) -> None:
        """Take documents in."""
        for document in documents:
            self._add(document, self._root)
            self.rows += 1

    def _add(self, document: Mapping[str, Any], level: _Level) -> None:
        rows, columns = self.rows, level.columns
        for key, value in document.items():
            if value.__class__ is dict:
                self._add(value, level.below.get(key) or level.deeper(key))
                continue
            column = columns.get(key)
            if column is None:
                column = columns[key] = self._columns.setdefault(level.name + _plain(key), [])
                if len(self._columns) > MOST_COLUMNS:
                    raise _too_many(self._columns)
            if len(column) < rows:
                column.extend([None] * (rows - len(column)))
            column.append(value)

    def table(self, kinds: Kinds) -> pa.Table:
        """The documents taken in as a table, and none are left; `kinds` gets what its columns hold, and decides."""
        import pyarrow as pa

        for name, values in self._columns.items():
            values.extend([None] * (self.rows - len(values)))
            kinds.setdefault(name, set()).update(_kinds_of(values))
        names = sorted(name for name in self._columns if kinds[name])
        arrays = [_array(self._columns[name], type_of(kinds[name])) for name in names]
        rows, self.rows = self.rows, 0
        self._columns, self._root = {}, _Level("")
        return pa.table(arrays, names) if names else pa.table({"_id": pa.nulls(rows, pa.string())})


class _Level:
    """The fields of documents at one place: columns, and what is nested deeper. A key may be both."""

    __slots__ = ("below", "columns", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.columns: dict[str, list[Any]] = {}
        self.below: dict[str, _Level] = {}

    def deeper(self, key: str) -> _Level:
        found = self.below[key] = _Level(f"{self.name}{_plain(key)}.")
        return found


def _plain(key: str) -> str:
    if "." in key or "\\" in key:
        return key.replace("\\", "\\\\").replace(".", "\\.")
    return key or '""'


def _too_many(columns: Iterable[str]) -> PlatformError:
    from collections import Counter

    parents = Counter(name.rpartition(".")[0] for name in columns)
    name, count = parents.most_common(1)[0]
    where = f"field {name!r} has {count:,} different keys" if name else f"documents have {count:,} different keys"
    return PlatformError(
        f"{where}: each would be a column",
        detail=f"at most {MOST_COLUMNS:,} columns are read; keys that are values, such as ids, are no columns",
        fix="name the fields that are needed in the address: fields=_id,amount,customer.id",
        code="bad_schema",
        column=name,
    )


def _kinds_of(values: Sequence[Any]) -> set[str]:
    kinds = {_KINDS.get(kind.__name__, "json") for kind in set(map(type, values))} - {""}
    if "int" in kinds and any(abs(value) > _EXACT for value in values if type(value).__name__ in ("int", "Int64")):
        kinds.add("big")
    return kinds


def type_of(kinds: set[str]) -> Any:
    """The Arrow type of a column that holds values of these kinds."""
    import pyarrow as pa

    alone = {
        "bool": pa.bool_(),
        "int": pa.int64(),
        "float": pa.float64(),
        "moment": pa.timestamp("ms", "UTC"),
        "bytes": pa.binary(),
    }
    if kinds == {"int", "float"}:
        return pa.float64()
    kind = kinds - {"big"}
    return alone.get(next(iter(kind)), pa.string()) if len(kind) == 1 else pa.string()


def disagree(kinds: set[str]) -> bool:
    """Whether documents differ in what the field is, so that its column depends on all of them."""
    return len(kinds - {"big"}) > 1


def _array(values: list[Any], kind: Any) -> pa.Array:
    import pyarrow as pa

    if pa.types.is_string(kind):
        texts = {kind: _text_of(kind) for kind in set(map(type, values))}
        return pa.array([texts[value.__class__](value) for value in values], pa.string())
    if pa.types.is_timestamp(kind):
        if all(value is None or isinstance(value, datetime) for value in values):
            return pa.array(values, pa.timestamp("ms")).cast(kind)
        return pa.array([None if value is None else milliseconds(value) for value in values], pa.int64()).cast(kind)
    return pa.array(values, kind)


def as_text(value: Any) -> str:
    """A value as text, equal for equal values."""
    found: str = _text_of(type(value))(value)
    return found


def _text_of(kind: type) -> Callable[[Any], Any]:
    """The function that makes values of a type text; null stays null."""
    return _TEXTS.get(_KINDS.get(kind.__name__, "json"), str)


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) <= _EXACT else repr(value)


def _moment(value: Any) -> str:
    import numpy as np

    return f"{np.datetime64(milliseconds(value), 'ms')}Z"


def _nested(value: Any) -> str:
    return as_text(value) if type(value).__name__ in _KINDS else str(value)


_TEXTS: dict[str, Callable[[Any], Any]] = {
    "": lambda value: None,
    "bool": lambda value: "true" if value else "false",
    "float": _number,
    "moment": _moment,
    "bytes": lambda value: base64.b64encode(value).decode(),
    "json": json.JSONEncoder(default=_nested, ensure_ascii=False).encode,
}


def milliseconds(moment: Any) -> int:
    """Since 1970, of a naive moment in UTC or of one out of Python's range."""
    if isinstance(moment, datetime):
        since = moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
        return since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000
    return int(moment)


def conformed(table: pa.Table, kinds: Kinds) -> pa.Table:
    """A table of fewer columns or narrower types with the columns that `kinds` ask for, sorted by name.

    Equal to what the same documents would have become with these kinds.
    """
    import pyarrow as pa

    arrays, names = [], sorted(name for name, found in kinds.items() if found)
    for name in names:
        kind = type_of(kinds[name])
        if name not in table.column_names:
            arrays.append(pa.chunked_array([pa.nulls(table.num_rows, kind)]))
            continue
        column = table.column(name)
        arrays.append(column if column.type == kind else _widened(column, kind))
    return pa.table(arrays, names)


def _widened(column: pa.ChunkedArray, kind: Any) -> pa.ChunkedArray:
    import pyarrow as pa

    if not pa.types.is_string(kind):
        return column.cast(kind)
    if pa.types.is_timestamp(column.type):
        import numpy as np

        values = column.cast(pa.int64()).to_pylist()
        texts = [None if value is None else f"{np.datetime64(value, 'ms')}Z" for value in values]
    else:
        texts = [as_text(value) for value in column.to_pylist()]
    return pa.chunked_array([pa.array(texts, pa.string())])

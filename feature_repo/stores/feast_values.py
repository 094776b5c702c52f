"""Between Feast's ``Value`` messages and packed rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from feast.protos.feast.types.Value_pb2 import Value

from contracts.errors import PlatformError
from feature_repo.stores.packed_rows import FIXED, NEVER, Layout, item_type, to_bytes

_FIELDS = {
    "string": "string_val",
    "bytes": "bytes_val",
    "float64": "double_val",
    "int64": "int64_val",
    "timestamp": "unix_timestamp_val",
    "float32": "float_val",
    "int32": "int32_val",
    "bool": "bool_val",
}
_SECOND = 1_000_000  # Feast's messages keep timestamps in whole seconds


def pack_messages(
    layout: Layout, data: Sequence[Mapping[str, Value]], event: Sequence[int], created: Sequence[int]
) -> list[bytes]:
    """Rows from messages; a feature that is not given, or whose message is empty, is null."""
    values: dict[str, Any] = {}
    nulls: dict[str, Any] = {}
    for name, dtype in layout.fields:
        column = [from_message(row[name], dtype) if name in row else None for row in data]
        _refuse_cut(column, name, dtype)
        nulls[name] = np.array([value is None for value in column], dtype=bool)
        if dtype in FIXED:
            values[name] = np.array([0 if value is None else value for value in column], dtype=FIXED[dtype])
        else:
            values[name] = [to_bytes(value, dtype) for value in column]
    return layout.encode(values, nulls, np.array(event, np.int64), np.array(created, np.int64))


def _refuse_cut(column: Sequence[Any], name: str, dtype: str) -> None:
    """Refuse numbers that would have to be cut to be integers of the type."""
    if dtype not in ("int32", "int64"):
        return
    limits = np.iinfo(dtype)
    for row, value in enumerate(column):
        if value is not None and (value != value // 1 or not limits.min <= value <= limits.max):
            raise PlatformError(
                f"row {row}: feature {name} is {value!r}, which does not fit {dtype}",
                fix="correct the value, or the field's type in the feature view",
                code="bad_feature_value",
                feature=name,
                row=row,
            )


def from_message(message: Value, dtype: str) -> Any:
    """The value of a message in the form that is packed; None when it is null."""
    kind = message.WhichOneof("val")
    if kind is None or kind == "null_val":
        return None
    value = getattr(message, kind)
    if kind.endswith("_list_val"):
        value = list(value.val)
        return [item * _SECOND for item in value] if item_type(dtype) == "timestamp" else value
    if dtype == "timestamp":
        return None if value == NEVER else value * _SECOND  # pandas' "not a time", which Feast gives for null
    return value


def to_message(value: Any, dtype: str) -> Value:
    """A value as `Layout.values` gives it as a message; None is null."""
    if value is None:
        return Value()
    item = item_type(dtype)
    if item:
        kind = _FIELDS[item].replace("_val", "_list_val")
        message = Value()
        getattr(message, kind).val.extend(_plain(part, item) for part in value)
        getattr(message, kind).SetInParent()
        return message
    return Value(**{_FIELDS[dtype]: _plain(value, dtype)})


def _plain(value: Any, dtype: str) -> Any:
    if dtype == "timestamp":
        return int(value.astype("M8[s]").astype(np.int64))
    return value.item() if isinstance(value, np.generic) else value

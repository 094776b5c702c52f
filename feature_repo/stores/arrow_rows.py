"""Arrow batches to packed rows, column by column."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from contracts.errors import PlatformError
from feature_repo.stores.packed_rows import FIXED, NEVER, Layout, item_type, to_bytes

EVENT, CREATED = "__event", "__created"
"""Columns of a batch: microseconds since 1970, UTC; `CREATED` may be null, or left out."""

_ARROW = {
    "float64": pa.float64(),
    "int64": pa.int64(),
    "timestamp": pa.timestamp("us", "UTC"),
    "float32": pa.float32(),
    "int32": pa.int32(),
    "bool": pa.bool_(),
    "string": pa.string(),
    "bytes": pa.binary(),
}


def pack_batch(layout: Layout, batch: pa.RecordBatch) -> tuple[NDArray[np.int64], list[bytes]]:
    """The events and the packed rows of a batch that has a column per field, `EVENT` and perhaps `CREATED`.

    Raises:
        PlatformError: a value does not fit the type of its field; it is never rounded or wrapped.
    """
    values: dict[str, Any] = {}
    nulls: dict[str, Any] = {}
    for name, dtype in layout.fields:
        column = cast_feature(batch.column(name), name, dtype)
        nulls[name] = column.is_null().to_numpy(zero_copy_only=False)
        values[name] = _fixed(column, dtype) if dtype in FIXED else _variable(column, dtype)
    event = batch.column(EVENT).to_numpy(zero_copy_only=False).astype(np.int64)
    created: Any = np.full(len(event), NEVER)
    if CREATED in batch.schema.names:
        created = batch.column(CREATED).fill_null(NEVER).to_numpy(zero_copy_only=False)
    return event, layout.encode(values, nulls, event, created)


def cast_feature(column: Any, name: str, dtype: str | pa.DataType) -> Any:
    """Values of a feature in the type of its field. A whole float is an integer; nothing is cut to fit.

    Raises:
        PlatformError: a value does not fit, by its row in `column`.
    """
    item = item_type(dtype) if isinstance(dtype, str) else ""
    target = dtype if isinstance(dtype, pa.DataType) else pa.list_(_ARROW[item]) if item else _ARROW[dtype]
    if column.type == target:
        return column
    try:
        return _cast(column, target)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as err:
        row, value = _first_misfit(column, target)
        raise PlatformError(
            f"feature {name}: the source has {column.type}, which does not fit {dtype}",
            detail=f"row {row} has {value!r}: {err}",
            fix="correct the source, or the field's type in the feature view",
            code="bad_feature_value",
            feature=name,
            row=row,
        ) from err


def _cast(column: Any, target: pa.DataType) -> Any:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_floating(column.type):
        if pa.types.is_float32(target):
            return column.cast(target, safe=False)
        if pa.types.is_integer(target):
            column = pc.if_else(pc.is_nan(column), None, column)
    return column.cast(target)


def _first_misfit(column: Any, target: pa.DataType) -> tuple[int, Any]:
    for row in range(len(column)):
        try:
            _cast(column.slice(row, 1), target)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return row, column[row].as_py()
    return 0, None


def _fixed(column: Any, dtype: str) -> NDArray[Any]:
    if dtype == "timestamp":
        column = column.cast(pa.int64())
    if column.null_count:
        column = pc.fill_null(column, False if dtype == "bool" else 0)
    numbers: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return numbers


def _variable(column: Any, dtype: str) -> list[bytes]:
    if dtype == "string":
        column = column.cast(pa.binary())
    if dtype in ("string", "bytes"):
        return [value or b"" for value in column.to_pylist()]
    if item_type(dtype) == "timestamp":
        column = column.cast(pa.list_(pa.int64()))
    return [to_bytes(value, dtype) for value in column.to_pylist()]

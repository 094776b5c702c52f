"""Strings to the task's types, a column at a time; what does not fit is reported, never repaired."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from feature_repo.stores.keys import EXPECTED as EXPECTED_KEY
from feature_repo.stores.keys import canonical_column
from pipelines.tasks.base import Column

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

EXPECTED = {
    "int64": "not a whole number",
    "float64": "not a finite number",
    "timestamp": "not a moment in ISO 8601, for example 2024-03-05T14:30:00Z",
    "string": "not a text",
}


def cast_column(values: pa.ChunkedArray, column: Column) -> tuple[pa.ChunkedArray, NDArray[np.bool_]]:
    """Cast to the column's type; empty text is a missing value, moments without a zone are UTC.

    Returns:
        The typed values (null where missing or wrong) and a mask of the rows that are wrong, shape (rows,).

    Raises:
        PlatformError: ``code="bad_schema"`` when the source's type can never become the column's.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_large_string(values.type):
        values = values.cast(pa.string())
    try:
        if column.dtype == "string":
            typed = values if pa.types.is_string(values.type) else values.cast(pa.string())
            # Text that may be missing stays as it is: an empty title is a title.
            return (typed if column.nullable else _blank_to_null(typed)), _none(values)
        text = pa.types.is_string(values.type)
        if text:
            values = _blank_to_null(pc.utf8_trim_whitespace(values))
        typed = _timestamps(values) if column.dtype == "timestamp" else _numbers(values, column.dtype)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as err:
        raise PlatformError(
            f"column {column.name!r} cannot be {column.dtype}",
            detail=f"the source has {values.type}: {str(err)[:200]}",
            fix=f"write it as {column.dtype} or as text, or choose another one: --set data.columns.{column.name}=NAME",
            code="bad_schema",
            column=column.name,
        ) from err
    if column.dtype == "float64":
        typed = pc.if_else(pc.is_finite(typed), typed, None)
        missing = pc.or_kleene(pc.is_null(values), _is_nan(values))
    else:
        missing = _is_nan(values)
    wrong = pc.and_(pc.is_null(typed), pc.invert(missing))
    return typed, wrong.to_numpy()


KEY_EXPECTED = f"not an entity key: {EXPECTED_KEY}"


def cast_key(values: pa.ChunkedArray, column: Column) -> tuple[pa.ChunkedArray, NDArray[np.bool_]]:
    """As `cast_column`, for a column of entity keys: in the form that feature stores know them by."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts, refused = canonical_column(values)
    texts = _blank_to_null(texts)
    if isinstance(texts, pa.Array):
        texts = pa.chunked_array([texts])
    if column.dtype == "string":
        return texts, refused.to_numpy(zero_copy_only=False)
    typed, wrong = cast_column(texts, column)
    return typed, wrong | pc.fill_null(refused, False).to_numpy(zero_copy_only=False)


def _none(values: pa.ChunkedArray) -> NDArray[np.bool_]:
    import numpy as np

    return np.zeros(len(values), dtype=bool)


def _blank_to_null(values: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values)


def _is_nan(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Missing, in the source's own terms: null, and NaN of floats or as text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_floating(values.type):
        return pc.is_null(values, nan_is_null=True)
    if pa.types.is_string(values.type):
        named = pc.is_in(pc.utf8_lower(values), value_set=pa.array(["nan", "null", "none", "na", "n/a"]))
        return pc.or_(pc.is_null(values), named)
    return pc.is_null(values)


def _numbers(values: pa.ChunkedArray, dtype: str) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = pa.int64() if dtype == "int64" else pa.float64()
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    if not pa.types.is_string(values.type):
        if dtype == "int64" and pa.types.is_floating(values.type):
            return _whole(values)
        return values.cast(kind)
    try:
        return values.cast(kind)
    except pa.ArrowInvalid:
        import pandas as pd

        # Only now the slow way, and only for values that Arrow does not read.
        readable = pc.match_substring_regex(values, r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")
        floats = pa.chunked_array([pa.array(pd.to_numeric(pc.if_else(readable, values, None).to_pandas()))])
        floats = floats.cast(pa.float64())
        if dtype == "float64":
            return floats
        digits = pc.match_substring_regex(values, r"^-?\d{1,18}$")
        return pc.coalesce(pc.if_else(digits, values, None).cast(kind), _whole(floats))


def _whole(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Floats that are whole numbers of at most 2**53 as int64; null for others."""
    import pyarrow as pa
    import pyarrow.compute as pc

    fits = pc.and_(pc.equal(values, pc.round(values)), pc.less_equal(pc.abs(values), float(2**53)))
    return pc.if_else(fits, values, None).cast(pa.int64())


def _timestamps(values: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    utc, naive = pa.timestamp("us", tz="UTC"), pa.timestamp("us")
    if pa.types.is_timestamp(values.type):
        # Finer than microseconds is cut off: no event is known better.
        return pc.cast(values, utc if values.type.tz else naive, safe=False).cast(utc)
    if pa.types.is_date(values.type):
        return values.cast(naive).cast(utc)
    if not pa.types.is_string(values.type):
        raise pa.ArrowTypeError(f"cannot read {values.type} as a moment")
    for kind in (naive, utc):
        try:
            return values.cast(kind).cast(utc)
        except pa.ArrowInvalid:
            continue
    import pandas as pd

    moments = pd.to_datetime(values.to_pandas(), errors="coerce", utc=True, format="ISO8601")
    return pa.chunked_array([pa.array(moments.dt.as_unit("us"), type=utc)])


def missing_column(rows: int, column: Column) -> Any:
    """Values of an optional column that the source does not have."""
    import pyarrow as pa

    kinds: dict[str, Any] = {
        "string": pa.string(),
        "int64": pa.int64(),
        "float64": pa.float64(),
        "timestamp": pa.timestamp("us", tz="UTC"),
    }
    return pa.chunked_array([pa.nulls(rows, kinds[column.dtype])])

"""Strings to the task's types, a column at a time; what does not fit is reported, never repaired."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from feature_repo.stores.keys import EXPECTED as EXPECTED_KEY
from feature_repo.stores.keys import canonical_column
from pipelines.data.moments import moments
from pipelines.data.value_format import NUMBER, PLAIN, ValueFormat, number_pattern
from pipelines.data.values_guess import guess_setting
from pipelines.task import Column

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

EXPECTED = {
    "int64": "not a whole number",
    "float64": "not a finite number",
    "timestamp": "not a moment in ISO 8601, for example 2024-03-05T14:30:00Z",
    "string": "not a text",
    "bytes": "not a file",
}
MISSING = ("nan", "null", "none", "na", "n/a")
TRUE = ("true", "t", "yes", "y", "ja", "j", "oui", "si", "sí", "sim", "vrai", "wahr", "是", "真")
FALSE = ("false", "f", "no", "n", "nein", "non", "não", "faux", "falsch", "否", "假")


def expected(column: Column, form: ValueFormat) -> str:
    """What a wrong value of `column` is not."""
    if column.dtype == "timestamp" and column.name in form.times:
        return f"not a moment of the form {form.times[column.name]}"
    return EXPECTED[column.dtype]


def cast_column(
    values: pa.ChunkedArray, column: Column, form: ValueFormat = PLAIN
) -> tuple[pa.ChunkedArray, NDArray[np.bool_]]:
    """Cast to the column's type; empty text is a missing value.

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
            if column.categories is not None:
                typed = pc.utf8_trim_whitespace(typed)
            # Text that may be missing stays as it is: an empty title is a title.
            return (typed if column.nullable else _blank_to_null(typed)), _none(values)
        if column.dtype == "bytes":
            return values.cast(pa.binary()), _none(values)
        if pa.types.is_string(values.type):
            values = _blank_to_null(pc.utf8_trim_whitespace(values))
        if column.dtype == "timestamp":
            typed = moments(values, form.times.get(column.name, ""), form.zone)
        else:
            typed = _numbers(values, column, form)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as err:
        fix = f"write it as {column.dtype} or as text, or choose another one: --set data.columns.{column.name}=NAME"
        raise PlatformError(
            f"column {column.name!r} cannot be {column.dtype}",
            detail=f"the source has {values.type}: {str(err)[:200]}",
            fix=guess_setting(column, sample_of(values), form) or fix,
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


def sample_of(values: pa.ChunkedArray, most: int = 200) -> list[str]:
    """Some of the values as text, those that are missing left out."""
    return [str(value) for value in values.slice(0, 2000).drop_null().to_pylist()[:most]]


KEY_EXPECTED = f"not an entity key: {EXPECTED_KEY}"


def cast_key(
    values: pa.ChunkedArray, column: Column, form: ValueFormat = PLAIN
) -> tuple[pa.ChunkedArray, NDArray[np.bool_]]:
    """As `cast_column`, for a column of entity keys: in the form that feature stores know them by."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts, refused = canonical_column(values)
    texts = _blank_to_null(texts)
    if isinstance(texts, pa.Array):
        texts = pa.chunked_array([texts])
    if column.dtype == "string":
        return texts, refused.to_numpy(zero_copy_only=False)
    typed, wrong = cast_column(texts, column, form)
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
        named = pc.is_in(pc.utf8_lower(values), value_set=pa.array(MISSING))
        return pc.or_(pc.is_null(values), named)
    return pc.is_null(values)


def _numbers(values: pa.ChunkedArray, column: Column, form: ValueFormat) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    dtype = column.dtype
    kind = pa.int64() if dtype == "int64" else pa.float64()
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    if pa.types.is_decimal(values.type):
        values = values.cast(pa.string())
    if not pa.types.is_string(values.type):
        if dtype == "int64" and pa.types.is_floating(values.type):
            return _whole(values)
        return values.cast(kind)
    if form.thousands or form.decimal != ".":
        values = _in_plain_form(values, form)
    try:
        return values.cast(kind)
    except pa.ArrowInvalid:
        import pandas as pd

        # Only now the slow way, and only for values that Arrow does not read.
        if dtype == "int64" and (column.minimum, column.maximum) == (0, 1):
            values = _truth(values)
        readable = pc.match_substring_regex(values, NUMBER)
        floats = pa.chunked_array([pa.array(pd.to_numeric(pc.if_else(readable, values, None).to_pandas()))])
        floats = floats.cast(pa.float64())
        if dtype == "float64":
            return floats
        digits = pc.match_substring_regex(values, r"^-?\d{1,18}$")
        return pc.coalesce(pc.if_else(digits, values, None).cast(kind), _whole(floats))


def _in_plain_form(values: pa.ChunkedArray, form: ValueFormat) -> pa.ChunkedArray:
    """Numbers with the signs of `form` as ``1234.5``; what is none in that form becomes "?", which is no number."""
    import pyarrow.compute as pc

    pattern, group = number_pattern(form.decimal, form.thousands)
    fits = pc.match_substring_regex(values, pattern)
    plain = pc.replace_substring_regex(values, group, "") if group else values
    return pc.if_else(fits, pc.replace_substring(plain, form.decimal, "."), "?")


def _truth(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Words for true and false as 1 and 0, other values as they are."""
    import pyarrow as pa
    import pyarrow.compute as pc

    word = pc.utf8_lower(values)
    other = pc.if_else(pc.is_in(word, value_set=pa.array(FALSE)), "0", values)
    return pc.if_else(pc.is_in(word, value_set=pa.array(TRUE)), "1", other)


def _whole(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Floats that are whole numbers of at most 2**53 as int64; null for others."""
    import pyarrow as pa
    import pyarrow.compute as pc

    fits = pc.and_(pc.equal(values, pc.round(values)), pc.less_equal(pc.abs(values), float(2**53)))
    return pc.if_else(fits, values, None).cast(pa.int64())


def missing_column(rows: int, column: Column) -> Any:
    """Values of an optional column that the source does not have."""
    import pyarrow as pa

    kinds: dict[str, Any] = {
        "string": pa.string(),
        "bytes": pa.binary(),
        "int64": pa.int64(),
        "float64": pa.float64(),
        "timestamp": pa.timestamp("us", tz="UTC"),
    }
    return pa.chunked_array([pa.nulls(rows, kinds[column.dtype])])

"""Moments as people write them, to microseconds in UTC: ISO 8601, counts since 1970, days of Excel, other forms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": -1_000}  # microseconds; negative: so many make one
_EXCEL_DAYS = 25_569  # from Excel's day 0, 1899-12-30, to 1970
_FIRST, _LAST = -2_208_988_800_000_000, 4_102_444_800_000_000  # 1900 to 2100: else the unit is a wrong one
_ORDER = r"^(\d{1,2})[./-](\d{1,2})[./-](\d{4})(.*)$"


def moments(values: pa.ChunkedArray, how: str, zone: str) -> pa.ChunkedArray:
    """Moments, ``timestamp[us, UTC]``; null for what cannot be read. `values` are text, numbers, dates or timestamps.

    Args:
        how: "" (ISO 8601), a key of `UNITS`, "excel", "dayfirst", "monthfirst" or a format of strptime.
        zone: of moments that name none; one that does not exist or comes twice there (summer time) cannot be read.
    """
    import pyarrow as pa

    if pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
        return _typed(values, zone)
    if how in UNITS or how == "excel":
        return _counted(values, how)
    if not pa.types.is_string(values.type):
        raise pa.ArrowTypeError(f"cannot read {values.type} as a moment")
    if not how and (plain := _plain(values, zone)) is not None:
        return plain
    import pandas as pd

    texts = values.to_pandas()
    order = how in ("dayfirst", "monthfirst")
    if how and not order:
        named = pd.Series("%z" in how, index=texts.index)
        return _localised(pd.to_datetime(texts, errors="coerce", utc=True, format=how), named, zone)
    if order:
        texts = texts.str.replace(_ORDER, _iso(how), regex=True)
    texts = texts.str.replace(r"\s*(UTC|GMT)$", "Z", regex=True)
    named = texts.str.contains(r"(?:Z|[T ].*[+-]\d{2}(?::?\d{2})?)$", na=False)
    return _localised(pd.to_datetime(texts, errors="coerce", utc=True, format="ISO8601"), named, zone)


def _typed(values: pa.ChunkedArray, zone: str) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    utc, naive = pa.timestamp("us", tz="UTC"), pa.timestamp("us")
    if pa.types.is_timestamp(values.type) and values.type.tz:
        return pc.cast(values, utc, safe=False)  # finer than microseconds is cut off: no event is known better
    plain = pc.cast(values, naive, safe=False)
    if zone == "UTC":
        return plain.cast(utc)
    local = plain.to_pandas().dt.tz_localize(zone, ambiguous="NaT", nonexistent="NaT")
    return pa.chunked_array([pa.array(local.dt.tz_convert("UTC"), type=utc)])


def _plain(values: pa.ChunkedArray, zone: str) -> pa.ChunkedArray | None:
    """The fast way, for text that is all of one usual form."""
    import pyarrow as pa

    utc, naive = pa.timestamp("us", tz="UTC"), pa.timestamp("us")
    for kind in (naive, utc) if zone == "UTC" else (utc,):
        try:
            return values.cast(kind).cast(utc)
        except pa.ArrowInvalid:
            continue
    return None


def _counted(values: pa.ChunkedArray, how: str) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_string(values.type):
        readable = pc.match_substring_regex(values, r"^[+-]?\d{1,18}(\.\d*)?([eE][+]?\d{1,2})?$")
        long = pc.match_substring_regex(values, r"^[+-]?(\d{1,18}|[1-8]\d{18})$")
        whole = pc.if_else(long, values, None)
        whole = (
            whole.cast(pa.int64()) if pc.sum(long).as_py() else pa.chunked_array([pa.nulls(len(values), pa.int64())])
        )
        exact = _scaled(whole, how)
        rest = pc.if_else(pc.and_kleene(readable, pc.invert(long)), values, None).cast(pa.float64())
        return _within(pc.coalesce(exact, _scaled(rest, how)))
    if pa.types.is_decimal(values.type):
        values = values.cast(pa.float64())
    return _within(_scaled(values, how))


def _scaled(values: pa.ChunkedArray, how: str) -> pa.ChunkedArray:
    """Counts as microseconds since 1970, int64; null beyond its range."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if how == "excel":
        days = pc.subtract(values.cast(pa.float64()), float(_EXCEL_DAYS))
        return _rounded(pc.round(pc.multiply(days, 86_400_000.0)), 1000)
    factor = UNITS[how]
    if pa.types.is_integer(values.type):
        values = values.cast(pa.int64())
        if factor < 0:
            return pc.divide(values, -factor)
        limit = (2**63 - 1) // factor
        fits = pc.and_(pc.less_equal(values, limit), pc.greater_equal(values, -limit))
        return pc.multiply(pc.if_else(fits, values, None), factor)
    number = values.cast(pa.float64())
    return _rounded(pc.divide(number, float(-factor)) if factor < 0 else pc.multiply(number, float(factor)), 1)


def _rounded(values: pa.ChunkedArray, factor: int) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    fits = pc.less(pc.abs(values), 2.0**62 / factor)
    return pc.multiply(pc.round(pc.if_else(fits, values, None)).cast(pa.int64()), factor)


def _within(values: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    fits = pc.and_(pc.greater_equal(values, _FIRST), pc.less(values, _LAST))
    return pc.if_else(fits, values, None).cast(pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC"))


def _iso(how: str) -> Any:
    def write(found: Any) -> str:
        one, two, year, rest = found.groups()
        day, month = (one, two) if how == "dayfirst" else (two, one)
        return f"{year}-{month:0>2}-{day:0>2}{rest}"

    return write


def _localised(moments: Any, named: Any, zone: str) -> pa.ChunkedArray:
    """Moments that were read as UTC, where they name no zone as moments of `zone`."""
    import pyarrow as pa

    if zone != "UTC":
        local = moments.dt.tz_localize(None).dt.tz_localize(zone, ambiguous="NaT", nonexistent="NaT")
        moments = moments.where(named, local.dt.tz_convert("UTC"))
    return pa.chunked_array([pa.array(moments.dt.as_unit("us"), type=pa.timestamp("us", tz="UTC"))])

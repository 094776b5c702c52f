"""Rows that are pushed: what both stores take, and with which types."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from feast import FeatureView, RepoConfig

from contracts.errors import PlatformError
from feature_repo.stores.arrow_rows import cast_feature
from feature_repo.stores.keys import bad_key, canonical_column, canonical_texts
from feature_repo.stores.plan import compile_view

_UTC = pa.timestamp("us", "UTC")


def checked_rows(config: RepoConfig, view: FeatureView, frame: pd.DataFrame) -> pa.Table:
    """The rows with their keys in canonical form, moments in UTC and features in the types of the view.

    Raises:
        PlatformError: a value does not fit, by column and row (0 is the first).
    """
    compiled = compile_view(view)
    ahead = getattr(config.online_store, "max_future_seconds", None)
    not_after = None if ahead is None else datetime.now(UTC) + timedelta(seconds=ahead)
    named = {theirs: mine for mine, theirs in compiled["columns"].items()}
    keys = {key["name"]: key["dtype"] for key in compiled["join_keys"]}
    fields = {field["name"]: field["dtype"] for field in compiled["fields"]}
    made: dict[str, Any] = {}
    for name in map(str, frame.columns):
        mine, values = named.get(name, name), frame[name]
        if mine in keys:
            made[name] = _keys(values, name, keys[mine])
        elif name == compiled["timestamp_field"]:
            made[name] = _moments(values, name, not_after)
        elif name == compiled["created_field"]:
            made[name] = _moments(values, name, None, nullable=True)
        elif mine in fields:
            made[name] = cast_feature(_arrow(values, name), mine, fields[mine])
        else:
            made[name] = _arrow(values, name)
    wanted = [compiled["columns"].get(name, name) for name in (*keys, *fields)]
    missing = [name for name in (*wanted, compiled["timestamp_field"]) if name not in made]
    if missing := [name for name in missing if named.get(name, name) not in made]:
        raise PlatformError(
            f"the rows have no column {missing[0]!r}",
            detail=f"feature view {view.name} needs it; the rows have: {', '.join(made)}",
            fix="give all keys, features and the moment of the view",
            code="missing_column",
            column=missing[0],
        )
    return pa.table(made)


def _keys(values: pd.Series[Any], name: str, dtype: str) -> Any:
    if dtype in ("bytes", "timestamp"):
        return _arrow(values, name)
    try:
        texts, refused = canonical_column(pa.Array.from_pandas(values))
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # of several types
        return pa.array(canonical_texts(values.tolist(), name), pa.string())
    if texts.null_count:
        row = texts.is_null().index(True).as_py()
        raise bad_key(name, row, f"got {values.iloc[row]!r}" if refused[row].as_py() else "a key is never null")
    return texts if dtype == "string" else cast_feature(texts, name, dtype)


def _moments(values: pd.Series[Any], name: str, not_after: datetime | None, *, nullable: bool = False) -> pa.Array:
    """UTC; times without a zone are of it already, ISO 8601 as text is read."""
    try:
        given = pa.Array.from_pandas(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        given = pa.array(
            values.map(lambda value: value.isoformat() if hasattr(value, "isoformat") else value), pa.string()
        )
    kind = given.type
    if pa.types.is_timestamp(kind):
        made = given.cast(_UTC if kind.tz else pa.timestamp("us"), safe=False).cast(_UTC)
    elif pa.types.is_date(kind):
        made = given.cast(pa.timestamp("us")).cast(_UTC)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        read = pd.to_datetime(given.to_pandas(), errors="coerce", utc=True, format="ISO8601")
        made = pa.Array.from_pandas(read.dt.as_unit("us")).cast(_UTC)
    else:
        made = pa.nulls(len(given), _UTC)
    wrong = made.is_null() if not nullable else pc.and_(made.is_null(), given.is_valid())
    if wrong.true_count:
        row = wrong.index(True).as_py()
        raise _bad_moment(name, row, f"got {values.iloc[row]!r}; accepted: times, and ISO 8601 as text")
    if not_after is not None and len(made) and pc.max(made).as_py() > not_after:
        row = pc.greater(made, pa.scalar(not_after, _UTC)).index(True).as_py()
        raise _bad_moment(name, row, f"an event in the future: {made[row].as_py()}, it would keep later rows out")
    return made


def _bad_moment(column: str, row: int, reason: str) -> PlatformError:
    return PlatformError(
        f"row {row}: column {column!r} has no moment that can be stored",
        detail=reason,
        fix="write it as 2026-01-31T12:00:00Z; without a zone it is UTC",
        code="bad_moment",
        column=column,
        row=row,
    )


def _arrow(values: pd.Series[Any], name: str) -> pa.Array:
    try:
        return pa.Array.from_pandas(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as err:
        raise PlatformError(
            f"column {name!r} has values of several types",
            detail=str(err),
            fix="give values of one type",
            code="bad_feature_value",
            column=name,
        ) from err

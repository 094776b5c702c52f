"""Rows that were written with another schema, read by that schema: never by the wrong one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from contracts.errors import PlatformError
from feature_repo.stores.packed_rows import FIXED, Layout, split_by_schema, to_bytes


class Wanted(Protocol):
    """What is needed of a view: its name, its layout now, and the features that will be used."""

    name: str
    layout: Layout
    features: list[str]


def translate(
    rows: Sequence[bytes | None], view: Wanted, schema: Callable[[bytes], Sequence[Mapping[str, str]] | None]
) -> list[bytes | None]:
    """Rows of any known schema as rows of ``view.layout``. A feature that a row does not have yet is null.

    Raises:
        PlatformError: a schema is not known to the store, or a feature that is used had another type then.
    """
    made = list(rows)
    for digest, places in split_by_schema(rows).items():
        if digest == view.layout.digest:
            continue
        fields = schema(digest)
        if fields is None:
            raise _changed(view.name, f"the store does not know schema {digest.hex()}")
        before = Layout(fields)
        part = [rows[at] for at in places]
        for at, row in zip(places, _convert(part, before, view), strict=True):
            made[at] = row
    return made


def _convert(rows: Sequence[bytes | None], before: Layout, view: Wanted) -> list[bytes]:
    decoded = before.decode(rows)
    assert decoded is not None
    types, missing = dict(before.fields), before.nulls(decoded)
    values: dict[str, Any] = {}
    nulls: dict[str, Any] = {}
    for name, dtype in view.layout.fields:
        known = types.get(name)
        if known is not None and known != dtype and name in view.features:
            raise _changed(view.name, f"feature {name} was {known} and is {dtype}")
        if known == dtype:
            nulls[name] = missing[:, before.bit[name]]
            column = before.values(decoded, name)
            values[name] = _stored(column, dtype)
        else:
            nulls[name] = np.ones(len(rows), dtype=bool)
            values[name] = np.zeros(len(rows)) if dtype in FIXED else [b""] * len(rows)
    return view.layout.encode(values, nulls, decoded.records["event"], decoded.records["created"])


def _stored(column: Any, dtype: str) -> Any:
    if dtype not in FIXED:
        return [to_bytes(value, dtype) for value in column]
    return column.astype(np.int64) if dtype == "timestamp" else column


def _changed(view: str, detail: str) -> PlatformError:
    return PlatformError(
        f"feature view {view} has changed since it was materialised",
        detail=detail,
        fix="materialise the view again; services whose bundle has the earlier schema keep reading the features that "
        "did not change",
        code="schema_changed",
        view=view,
    )

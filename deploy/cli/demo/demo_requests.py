"""Requests made from payments that the model has not learned from."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError

if TYPE_CHECKING:
    from contracts.bundle import BundleDocument
    from contracts.endpoints import Endpoints

_WEEK = timedelta(days=7)


def held_out_requests(
    endpoints: Endpoints, document: BundleDocument, days: int, count: int, seed: int
) -> list[dict[str, Any]]:
    """`count` request bodies of one payment each, drawn from the last `days` days of the model's data version.

    The online store knows everything up to the end of the data, so the payments are asked about as if they came in
    after that: their moments are moved by whole weeks, which keeps weekday and hour.
    """
    signature = document.signature
    stamp = signature.timestamp
    if stamp is None:
        raise PlatformError(f"{document.name} has no timestamp in its requests", fix="use the task fraud")
    fields = [*signature.entities, *(item.name for item in signature.request if item.name != stamp)]
    rows = _last_days(endpoints.path("data") / document.task / document.lineage.data_version, [*fields, stamp], days)
    picked = (
        random.Random(seed).choices(rows, k=count) if len(rows) < count else random.Random(seed).sample(rows, count)
    )
    shift = _WEEK * -(-days // 7)
    bodies = []
    for row in picked:
        moment: datetime = row[stamp] + shift
        instance = {**{name: row[name] for name in fields}, stamp: moment.isoformat()}
        bodies.append({"instances": [instance]})
    return bodies


def _last_days(folder: Path, columns: list[str], days: int) -> list[dict[str, Any]]:
    """Rows of a dataset version in its last `days` days; the last column is the timestamp."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import parquet

    files = sorted(folder.glob("part-*.parquet"))
    if not files:
        raise PlatformError(f"no dataset version at {folder}", fix="run it again: fairlead demo --no-cache")
    table = pa.concat_tables([parquet.read_table(file, columns=columns) for file in files])
    moments = table[columns[-1]].cast(pa.timestamp("us", tz="UTC"))
    table = table.set_column(len(columns) - 1, columns[-1], moments)
    last: datetime = pc.max(moments).as_py()
    start = last.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days - 1)
    rows: list[dict[str, Any]] = table.filter(pc.greater_equal(moments, pa.scalar(start, moments.type))).to_pylist()
    return rows

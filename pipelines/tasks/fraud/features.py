"""The history of features: one row whenever something becomes known about a customer or a terminal.

A payment is known one microsecond after it happened, so that it never sees itself; its label is known
`LABEL_DELAY_DAYS` later. Windows are exact at the row's moment. Training joins the last row before a payment, the
online store keeps the last row of each entity: both see the same numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.tasks.base import Progress
from pipelines.tasks.fraud.simulator import LABEL_DELAY_DAYS
from pipelines.tasks.fraud.windows import DAY, Floats, Ints, Timeline, blocks

if TYPE_CHECKING:
    import pyarrow as pa

DELAY = LABEL_DELAY_DAYS * DAY
WINDOWS = (1, 7, 30)
_REACH = max(WINDOWS) * DAY + DELAY + DAY
_COLUMNS = ["event_time", "customer_id", "terminal_id", "amount", "fraud"]


def write_history(clean: Path, out: Path, progress: Progress) -> None:
    """Write ``customer_windows.parquet`` and ``terminal_windows.parquet`` from the validated parts in `clean`."""
    import pyarrow.dataset as ds

    data = ds.dataset(sorted(str(p) for p in clean.glob("part-*.parquet")), format="parquet").to_table(columns=_COLUMNS)
    out.mkdir(parents=True, exist_ok=True)
    moment = _micros(data["event_time"])
    _write(data["customer_id"], moment, _customer(data["amount"].to_numpy()), out / "customer_windows.parquet")
    progress(1, 2)
    _write(data["terminal_id"], moment, _terminal(data["fraud"].to_numpy()), out / "terminal_windows.parquet")
    progress(2, 2)


def _micros(column: pa.ChunkedArray) -> Ints:
    import pyarrow as pa

    values: Ints = column.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()
    return values


def _write(ids: pa.ChunkedArray, moment: Ints, windows: Any, path: Path) -> None:
    """`windows(rows, entity, moment)` gives (entity, stamp, columns) of a block's history, in order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    codes = ids.combine_chunks().dictionary_encode()
    entity = codes.indices.to_numpy().astype(np.int64)
    key = "customer_id" if path.name.startswith("customer") else "terminal_id"
    span = int(moment.max() - moment.min()) + 4 * _REACH if len(moment) else 1
    writer = None
    for block in blocks(entity, span):
        at, stamp, columns = windows(block.rows, block.entity, moment[block.rows])
        names = pa.DictionaryArray.from_arrays(pa.array((at + block.first).astype(np.int32)), codes.dictionary)
        table = pa.table({key: names, "known_at": pa.array(stamp, type=pa.timestamp("us", tz="UTC")), **columns})
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd", compression_level=1)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _customer(amount: Floats) -> Any:
    def windows(rows: Ints, entity: Ints, moment: Ints) -> tuple[Ints, Ints, dict[str, Any]]:
        line = Timeline(entity, moment, _REACH)
        at, stamp = _unique(entity, moment + 1)
        value = amount[rows]
        sums, squares = line.cumulative(value), line.cumulative(value * value)
        end = line.position(at, stamp)
        columns: dict[str, Any] = {}
        for days in WINDOWS:
            begin = line.position(at, stamp - days * DAY)
            count = end - begin
            mean = (sums[end] - sums[begin]) / count  # never empty: the payment that made the row is in it
            columns[f"customer_payments_{days}d"] = count
            columns[f"customer_mean_{days}d"] = mean
        variance = (squares[end] - squares[begin]) / count - mean * mean
        columns["customer_std_30d"] = np.sqrt(np.maximum(variance, 0.0))
        columns["customer_last_payment"] = (stamp - 1) / 1e6
        return at, stamp, columns

    return windows


def _terminal(fraud: Ints) -> Any:
    def windows(rows: Ints, entity: Ints, moment: Ints) -> tuple[Ints, Ints, dict[str, Any]]:
        line = Timeline(entity, moment, _REACH)
        at, stamp = _unique(np.concatenate([entity, entity]), np.concatenate([moment + 1, moment + DELAY]))
        frauds = line.cumulative(fraud[rows])
        end = line.position(at, stamp)
        known = line.position(at, stamp - DELAY, inclusive=True)  # payments whose label has arrived
        columns: dict[str, Any] = {}
        for days in WINDOWS:
            columns[f"terminal_payments_{days}d"] = end - line.position(at, stamp - days * DAY)
            begin = line.position(at, stamp - DELAY - days * DAY, inclusive=True)
            labelled = known - begin
            risk = np.divide(frauds[known] - frauds[begin], labelled, out=np.zeros(len(at)), where=labelled > 0)
            columns[f"terminal_labelled_{days}d"] = labelled
            columns[f"terminal_risk_{days}d"] = risk
        return at, stamp, columns

    return windows


def _unique(entity: Ints, stamp: Ints) -> tuple[Ints, Ints]:
    """Sorted by (entity, stamp), each pair once: all that happened at a moment is in one row."""
    order = np.lexsort((stamp, entity))
    entity, stamp = entity[order], stamp[order]
    new = np.ones(len(entity), dtype=bool)
    new[1:] = (entity[1:] != entity[:-1]) | (stamp[1:] != stamp[:-1])
    return entity[new], stamp[new]

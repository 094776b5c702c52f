"""The history of features: one row whenever something becomes known about a customer or a terminal.

A payment is known one microsecond after it happened, so that it never sees itself; its label is known
`LABEL_DELAY_DAYS` later. Windows are exact at the row's moment. Training joins the last row before a payment, the
online store keeps the last row of each entity: both see the same numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.task import Progress
from pipelines.tasks.fraud.simulator import LABEL_DELAY_DAYS
from pipelines.tasks.fraud.windows import DAY, Floats, Ints, Timeline, blocks, trailing_median

if TYPE_CHECKING:
    import pyarrow as pa

DELAY = LABEL_DELAY_DAYS * DAY
WINDOWS = (1, 7, 30)
_EARLIER = (60, 14)  # days ago: a customer's habit before a possible theft of the card
_LARGE = 2.5  # times the median
_MEDIAN_OF = 30  # payments
_REACH = (max(*WINDOWS, *_EARLIER) + LABEL_DELAY_DAYS + 1) * DAY
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

        def begin(days: int) -> Ints:
            return line.position(at, stamp - days * DAY)

        columns: dict[str, Any] = {f"customer_payments_{days}d": end - begin(days) for days in WINDOWS}
        for days in WINDOWS:  # never empty: the payment that made the row is in it
            columns[f"customer_mean_{days}d"] = _share(sums[end] - sums[begin(days)], end - begin(days))
        spread = _share(squares[end] - squares[begin(30)], end - begin(30)) - columns["customer_mean_30d"] ** 2
        columns["customer_std_30d"] = np.sqrt(np.maximum(spread, 0.0))
        columns["customer_mean_before_7d"] = _share(sums[begin(7)] - sums[begin(30)], begin(7) - begin(30))
        far, near = (begin(days) for days in _EARLIER)
        columns["customer_mean_earlier"] = _share(sums[near] - sums[far], near - far)
        median = trailing_median(entity[line.order], value[line.order], _MEDIAN_OF, 5)
        columns["customer_median"] = median[end - 1]
        large = _large(entity[line.order], value[line.order], median)
        for days in (3, 7, 14):
            columns[f"customer_large_{days}d"] = (large[end] - large[begin(days)]).astype(np.int64)
        columns["customer_last_payment"] = (stamp - 1) / 1e6
        return at, stamp, columns

    return windows


def _large(entity: Ints, value: Floats, median: Floats) -> Floats:
    """Cumulative count of payments far above the median of those before; arrays in sorted order."""
    same = np.concatenate([[False], entity[1:] == entity[:-1]])
    usual = np.where(same, np.roll(median, 1), np.nan)
    return np.concatenate([[0.0], np.cumsum(value > _LARGE * usual)])


def _terminal(fraud: Ints) -> Any:
    def windows(rows: Ints, entity: Ints, moment: Ints) -> tuple[Ints, Ints, dict[str, Any]]:
        line = Timeline(entity, moment, _REACH)
        at, stamp = _unique(np.concatenate([entity, entity]), np.concatenate([moment + 1, moment + DELAY]))
        label = fraud[rows]
        frauds = line.cumulative(label)
        end = line.position(at, stamp)
        known = line.position(at, stamp - DELAY, inclusive=True)  # payments whose label has arrived
        columns: dict[str, Any] = {}
        for days in WINDOWS:
            columns[f"terminal_payments_{days}d"] = end - line.position(at, stamp - days * DAY)
            begin = line.position(at, stamp - DELAY - days * DAY, inclusive=True)
            columns[f"terminal_labelled_{days}d"] = known - begin
            columns[f"terminal_risk_{days}d"] = _share(frauds[known] - frauds[begin], known - begin, empty=0.0)
        first = line.start(at)
        for last in (2, 3, 5):
            begin = np.maximum(known - last, first)
            columns[f"terminal_risk_last_{last}"] = _share(frauds[known] - frauds[begin], known - begin)
        is_fraud = label == 1
        columns |= _fraud_moments(Timeline(entity[is_fraud], moment[is_fraud], _REACH), moment[is_fraud], at, stamp)
        return at, stamp, columns

    return windows


def _fraud_moments(line: Timeline, moment: Ints, at: Ints, stamp: Ints) -> dict[str, Any]:
    """Known frauds of the last 30 days: how many, and when the first and the last were (seconds since 1970)."""
    begin = line.position(at, stamp - DELAY - 30 * DAY, inclusive=True)
    end = line.position(at, stamp - DELAY, inclusive=True)
    second = np.append(moment[line.order] / 1e6, np.nan)
    some = end > begin
    return {
        "terminal_frauds_30d": end - begin,
        "terminal_first_fraud": second[np.where(some, begin, -1)],
        "terminal_last_fraud": second[np.where(some, end - 1, -1)],
    }


def _share(total: Floats, count: Ints, empty: float = np.nan) -> Floats:
    """`total` / `count`, and `empty` where there is nothing to count."""
    share: Floats = np.divide(total, count, out=np.full(len(count), empty), where=count > 0)
    return share


def _unique(entity: Ints, stamp: Ints) -> tuple[Ints, Ints]:
    """Sorted by (entity, stamp), each pair once: all that happened at a moment is in one row."""
    order = np.lexsort((stamp, entity))
    entity, stamp = entity[order], stamp[order]
    new = np.ones(len(entity), dtype=bool)
    new[1:] = (entity[1:] != entity[:-1]) | (stamp[1:] != stamp[:-1])
    return entity[new], stamp[new]

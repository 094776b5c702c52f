"""The history of features: one row whenever something becomes known about a customer or a terminal.

A payment is known one microsecond after it happened, so that it never sees itself; its label is known
`LABEL_DELAY_DAYS` later. Windows are exact at the row's moment. Training joins the last row before a payment, the
online store keeps the last row of each entity: both see the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from feature_repo.stores.parts import map_parts
from pipelines.data_engines import current
from pipelines.task import Progress
from pipelines.tasks.fraud.simulator import LABEL_DELAY_DAYS
from pipelines.tasks.fraud.windows import DAY, Floats, Ints, Timeline, blocks, trailing_median

if TYPE_CHECKING:
    import pyarrow as pa

_Windows: TypeAlias = tuple[tuple[Ints, Ints], Callable[[Ints, Ints], dict[str, Any]]]
DELAY = LABEL_DELAY_DAYS * DAY
WINDOWS = (1, 7, 30)
_EARLIER = (60, 14)  # days ago: a customer's habit before a possible theft of the card
_LARGE = 2.5  # times the median
_MEDIAN_OF = 30  # payments
_REACH = (max(*WINDOWS, *_EARLIER) + LABEL_DELAY_DAYS + 1) * DAY
_ASKED = 500_000  # moments of one group of rows: one key may have a third of all payments
_KEY = {"customer_windows": "customer_id", "terminal_windows": "terminal_id"}
_READ = {"customer_windows": "amount", "terminal_windows": "fraud"}


def write_history(clean: Path, out: Path, progress: Progress) -> None:
    """Write ``customer_windows.parquet`` and ``terminal_windows.parquet`` from the validated parts in `clean`.

    Each is computed by its key, so that the engine of the run may compute it by parts: then it is a folder of them.
    """
    files = sorted(str(part) for part in clean.glob("part-*.parquet"))
    out.mkdir(parents=True, exist_ok=True)
    for done, (name, key) in enumerate(_KEY.items(), start=1):
        columns = ["event_time", key, _READ[name]]
        map_parts(current(), files, key, columns, f"{__name__}:{name}", out / f"{name}.parquet")
        progress(done, len(_KEY))


def customer_windows(files: Sequence[str], out: str) -> None:
    """Write the history of the customers whose payments are in `files`, all of them, in order."""
    _write("customer_windows", files, out, _customer)


def terminal_windows(files: Sequence[str], out: str) -> None:
    """Write the history of the terminals whose payments are in `files`, all of them, in order."""
    _write("terminal_windows", files, out, _terminal)


def _micros(column: pa.ChunkedArray) -> Ints:
    import pyarrow as pa

    values: Ints = column.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()
    return values


def _write(name: str, files: Sequence[str], out: str, made: Callable[[Any, Ints, Ints], _Windows]) -> None:
    """`made(values, entity, moment)` gives a block's history: entity and stamp of its rows, in order, and columns."""
    import pyarrow as pa
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    key = _KEY[name]
    data = ds.dataset(list(files), format="parquet").to_table(columns=["event_time", key, _READ[name]])
    moment, values = _micros(data["event_time"]), data[_READ[name]].to_numpy()
    codes = data[key].combine_chunks().dictionary_encode()
    del data
    entity = codes.indices.to_numpy().astype(np.int64)
    span = int(moment.max() - moment.min()) + 4 * _REACH if len(moment) else 1
    writer = None
    for block in blocks(entity, span):
        (at, stamp), columns = made(values[block.rows], block.entity, moment[block.rows])
        for start in range(0, len(at), _ASKED):
            which, when = at[start : start + _ASKED], stamp[start : start + _ASKED]
            names = pa.DictionaryArray.from_arrays(pa.array((which + block.first).astype(np.int32)), codes.dictionary)
            known = pa.array(when, type=pa.timestamp("us", tz="UTC"))
            table = pa.table({key: names, "known_at": known, **columns(which, when)})
            writer = writer or pq.ParquetWriter(out, table.schema, compression="zstd", compression_level=1)
            writer.write_table(table)
    if writer is not None:
        writer.close()


def _customer(amount: Floats, entity: Ints, moment: Ints) -> _Windows:
    line = Timeline(entity, moment, _REACH)
    value = amount[line.order]
    sums, squares = line.totals(value), line.totals(value * value)
    median = trailing_median(entity[line.order], value, _MEDIAN_OF, 5)
    large = _large(entity[line.order], value, median)

    def columns(at: Ints, stamp: Ints) -> dict[str, Any]:
        end, first = line.position(at, stamp), line.start(at)

        def begin(days: int) -> Ints:
            return line.position(at, stamp - days * DAY)

        def total(of: Floats, since: Ints, until: Ints) -> Floats:
            return line.before(of, until, first) - line.before(of, since, first)

        found: dict[str, Any] = {f"customer_payments_{days}d": end - begin(days) for days in WINDOWS}
        for days in WINDOWS:  # never empty: the payment that made the row is in it
            found[f"customer_mean_{days}d"] = _share(total(sums, begin(days), end), end - begin(days))
        spread = _share(total(squares, begin(30), end), end - begin(30)) - found["customer_mean_30d"] ** 2
        found["customer_std_30d"] = np.sqrt(np.maximum(spread, 0.0))
        found["customer_mean_before_7d"] = _share(total(sums, begin(30), begin(7)), begin(7) - begin(30))
        far, near = (begin(days) for days in _EARLIER)
        found["customer_mean_earlier"] = _share(total(sums, far, near), near - far)
        found["customer_median"] = median[end - 1]
        for days in (3, 7, 14):
            found[f"customer_large_{days}d"] = (large[end] - large[begin(days)]).astype(np.int64)
        found["customer_last_payment"] = (stamp - 1) / 1e6
        return found

    return _unique(entity, moment + 1), columns


def _large(entity: Ints, value: Floats, median: Floats) -> Floats:
    """Cumulative count of payments far above the median of those before; arrays in sorted order."""
    same = np.concatenate([[False], entity[1:] == entity[:-1]])
    usual = np.where(same, np.roll(median, 1), np.nan)
    return np.concatenate([[0.0], np.cumsum(value > _LARGE * usual)])


def _terminal(label: Ints, entity: Ints, moment: Ints) -> _Windows:
    line = Timeline(entity, moment, _REACH)
    frauds = line.cumulative(label)
    is_fraud = label == 1
    fraud_line, fraud_moment = Timeline(entity[is_fraud], moment[is_fraud], _REACH), moment[is_fraud]

    def columns(at: Ints, stamp: Ints) -> dict[str, Any]:
        end = line.position(at, stamp)
        known = line.position(at, stamp - DELAY, inclusive=True)  # payments whose label has arrived
        found: dict[str, Any] = {}
        for days in WINDOWS:
            found[f"terminal_payments_{days}d"] = end - line.position(at, stamp - days * DAY)
            begin = line.position(at, stamp - DELAY - days * DAY, inclusive=True)
            found[f"terminal_labelled_{days}d"] = known - begin
            found[f"terminal_risk_{days}d"] = _share(frauds[known] - frauds[begin], known - begin, empty=0.0)
        first = line.start(at)
        for last in (2, 3, 5):
            begin = np.maximum(known - last, first)
            found[f"terminal_risk_last_{last}"] = _share(frauds[known] - frauds[begin], known - begin)
        return found | _fraud_moments(fraud_line, fraud_moment, at, stamp)

    asked = np.concatenate([entity, entity]), np.concatenate([moment + 1, moment + DELAY])
    return _unique(*asked), columns


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

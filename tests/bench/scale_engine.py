"""The engine ray beside one process on the same cores: windows and point-in-time joins of payments, equal row by row.

Part ``engine`` of `tests.bench.scale`. FAIRLEAD_BENCH_ROWS says how many payments, 20 million if it is not set.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.report import Row

ROWS = int(os.environ.get("FAIRLEAD_BENCH_ROWS", "20000000"))
FILES, WORKERS, MEMORY = 200, 2, "2Gi"
_DAY = 86_400_000_000
_START = 1_735_689_600_000_000  # 2025, in microseconds
VIEW = {
    "name": "customer_windows",
    "join_keys": [{"name": "customer_id", "dtype": "string"}],
    "features": [
        {"name": "customer_payments_7d", "dtype": "int64"},
        {"name": "customer_mean_30d", "dtype": "float64"},
    ],
    "ttl_seconds": 7 * 86_400,
    "source": "customer_windows.parquet",
    "timestamp_field": "known_at",
    "created_field": "",
}


def engine(folder: Path) -> Iterator[Row]:
    """Seconds, memory of a worker, and rows that differ, with even keys and with one that has 30 % of the rows."""
    for case, skew in (("", 0.0), (", one customer with 30 %", 0.3)):
        data = folder / f"payments-{skew}"
        payments(data, skew)
        yield from _windows(data, folder / f"windows-{skew}", f"windows of {ROWS / 1e6:g} M payments{case}")
        if not skew:
            history = folder / "windows-0.0" / "one"
            yield from _join(history, folder / "join", f"point-in-time join of {ROWS // 20:,} rows")
            yield from _spilled(history, f"join of one process, memory limit a third of {ROWS / 1e6:g} M rows")


def payments(folder: Path, skew: float) -> None:
    """`ROWS` payments of a year in `FILES` files; one customer has a share `skew` of them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True)
    rows = ROWS // FILES
    for number in range(FILES):
        rng = np.random.default_rng([21, number])
        moment = np.sort(_START + (number + rng.random(rows)) * 365 * _DAY / FILES).astype(np.int64)
        customer = np.where(rng.random(rows) < skew, 0, rng.integers(0, ROWS // 100, rows))
        table = {
            "event_time": pa.array(moment).cast(pa.timestamp("us", "UTC")),
            "customer_id": pa.array(customer).cast(pa.string()),
            "terminal_id": pa.array(rng.integers(0, ROWS // 1000, rows)).cast(pa.string()),
            "amount": np.round(rng.gamma(1.5, 40, rows), 2),
            "fraud": (rng.random(rows) < 0.01).astype(np.int64),
        }
        pq.write_table(pa.table(table), folder / f"part-{number:05d}.parquet", compression="zstd", compression_level=1)


def _windows(data: Path, folder: Path, case: str) -> Iterator[Row]:
    from pipelines.tasks.fraud.features import write_history

    def made(name: str) -> Callable[[], None]:
        return lambda: write_history(data, folder / name, lambda *_, **__: None)

    one = _seconds(made("one"))
    with _ray(folder / "place") as watched:
        even = _seconds(made("ray"))
        with watched.killing():
            killed = _seconds(made("killed"))
    yield from _beside(case, one, even, killed, watched, 1.1)
    names = ("customer_windows", "terminal_windows")
    sums = [[_checksum(folder / which / f"{name}.parquet") for name in names] for which in ("one", "ray", "killed")]
    yield _differ(case, sums)


def _join(history: Path, folder: Path, case: str) -> Iterator[Row]:
    from feature_repo.stores.join import point_in_time_join
    from pipelines.data_engines import current

    found: dict[str, Any] = {}

    def made(name: str) -> Callable[[], None]:
        def join() -> None:
            engine = current()
            found[name] = point_in_time_join(
                {"timestamp": "at", "views": [VIEW]}, history, _asked(), engine=engine if engine.workers > 1 else None
            )

        return join

    one = _seconds(made("one"))
    with _ray(folder / "place") as watched:
        even = _seconds(made("ray"))
        with watched.killing():
            killed = _seconds(made("killed"))
    yield from _beside(case, one, even, killed, watched, 2.0)
    yield _differ(case, [_hashes(found[name]) for name in ("one", "ray", "killed")])


def _spilled(history: Path, case: str) -> Iterator[Row]:
    from feature_repo.stores.join import point_in_time_join

    limit = f"{max(ROWS * 44 // 3 >> 20, 48)}MiB"  # key, moment, position, time of making: about 44 bytes a row
    plan, found = {"timestamp": "at", "views": [VIEW]}, []
    took = _seconds(lambda: found.append(point_in_time_join(plan, history, _asked(), memory_limit=limit)))
    yield Row(case=case, contestant=f"fairlead: DuckDB with {limit}", value=took, unit="s")
    yield _differ(case, [_hashes(found[0]), _hashes(point_in_time_join(plan, history, _asked()))])


def _asked() -> Any:
    import pandas as pd

    rng = np.random.default_rng(22)
    rows = ROWS // 20
    moment = _START + (rng.random(rows) * 365 * _DAY).astype(np.int64)
    at = pd.to_datetime(moment, unit="us", utc=True)
    return pd.DataFrame({"customer_id": rng.integers(0, ROWS // 100, rows).astype(str), "at": at})


def _beside(case: str, one: float, even: float, killed: float, watched: _Watched, goal: float) -> Iterator[Row]:
    yield Row(case=case, contestant="one process", value=one, unit="s")
    yield Row(case=case, contestant=f"fairlead: {WORKERS} workers of Ray", value=even, unit="s")
    yield Row(case=case, contestant="fairlead: of which one is killed", value=killed, unit="s")
    yield Row(
        case=case + ", by one process", contestant="fairlead: ratio", value=even / one, unit="x", goal=f"<= {goal}"
    )
    yield Row(
        case=case + ", memory",
        contestant="fairlead: a worker at most",
        value=watched.peak / 2**30,
        unit="GiB",
        goal="<= 2",
    )


def _differ(case: str, sums: list[Any]) -> Row:
    different = sum(one != sums[0] for one in sums[1:])
    return Row(
        case=case + ", sums over all rows", contestant="fairlead: that differ", value=different, unit="", goal="<= 0"
    )


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _checksum(path: Path) -> tuple[Any, ...]:
    """Rows, and the sum of their hashes, which no order changes."""
    from feature_repo.stores.parquet_sources import connect, source_files, text

    files = ", ".join(map(text, source_files(path.name, path.parent, path.stem)))
    with connect("1GB") as connection:
        query = f"SELECT count(*), sum(hash(rows)::HUGEINT) FROM read_parquet([{files}]) rows"
        return tuple(connection.execute(query).fetchall()[0])


def _hashes(frame: Any) -> int:
    import pandas as pd

    return int(pd.util.hash_pandas_object(frame).sum())


class _Watched:
    """The workers below this process: the most memory that one of them had, and one that is killed."""

    def __init__(self) -> None:
        self.peak, self._kill, self._over = 0, threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    @contextmanager
    def killing(self) -> Iterator[None]:
        """Kill one worker two seconds after the block began."""
        timer = threading.Timer(2.0, self._kill.set)
        timer.start()
        yield
        timer.cancel()
        assert not self._kill.is_set(), "no worker was there to be killed"

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._over.wait(0.1):
            for entry in Path("/proc").iterdir():
                try:
                    if not entry.name.isdigit() or b"ray::answered" not in (entry / "cmdline").read_bytes():
                        continue
                    status = dict(line.split(":", 1) for line in (entry / "status").read_text().splitlines())
                    self.peak = max(self.peak, int(status["VmHWM"].split()[0]) * 1024)
                    if self._kill.is_set():
                        os.kill(int(entry.name), signal.SIGKILL)
                        self._kill.clear()
                except (OSError, KeyError):
                    continue


@contextmanager
def _ray(place: Path) -> Iterator[_Watched]:
    from pipelines.data_engines import described, opened

    settings = {"data.engine": "ray", "data.workers": WORKERS, "data.memory": MEMORY}
    watched = _Watched()
    try:
        with opened("bench", described(settings, str(place))) as engine:
            engine.map("builtins:len", [{}] * WORKERS)  # Ray has started before the clock does
            yield watched
    finally:
        watched.close()

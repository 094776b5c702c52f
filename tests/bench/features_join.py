"""Point-in-time joins for the benchmark of features: ours, one written by hand, and Feast's own stores."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench import features_peers as peers
from tests.bench.report import Row

NAMES = [f"x{i}__f32" for i in range(10)]
HAND, OURS, SHIPPED = "hand-written DuckDB (floor)", "fairlead", "fairlead as shipped, in 1,200 MB"
Run = Callable[[], tuple[Any, float]]
"""Gives the joined frame and the seconds that it took."""

FEAST = Path("build") / "peers" / "feast" / "bin" / "python"


def history(path: Path, rows: int, keys: int, unique: bool = False) -> None:
    """``driver``, ``event`` and ten float32, a million rows at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    r, writer = np.random.default_rng(0), None
    for start in range(0, rows, 1_000_000):
        n = min(1_000_000, rows - start)
        driver = r.permutation(n) + start if unique else r.integers(0, keys, n)
        event = pa.array(r.integers(0, 10**12, n) + 1_760_000_000_000_000, pa.timestamp("us", "UTC"))
        table = pa.table({"driver": driver, "event": event, **{name: r.random(n, dtype=np.float32) for name in NAMES}})
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def peak_memory() -> float:
    """GiB of this process at most so far. `ru_maxrss` counts what the parent had when it started this one."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**20


def join(folder: Path) -> Iterator[Row]:
    """A million rows of history, 20 thousand entity rows, ten features; Feast's dask and duckdb stores too."""
    _write(folder, 1_000_000, 2_000, 20_000)
    with _feast_duckdb(folder) as theirs:
        runs = {**_runs(folder), "feast dask": _feast_dask(folder), **theirs}
        yield from _compare("join of 1,000,000 rows of history with 20,000", runs, turns=3, asked=20_000)


def large(folder: Path) -> Iterator[Row]:
    """20 million rows of history, a million entity rows; both may use 4 GB, and ours as it is shipped less."""
    _write(folder, 20_000_000, 100_000, 1_000_000)
    case, peak = "join of 20,000,000 rows of history with 1,000,000", [0.0]
    runs = {SHIPPED: lambda: _in_a_process(folder, peak), **_runs(folder)}
    yield from _compare(case, runs, turns=3, asked=1_000_000)
    yield Row(case=f"{case}, peak memory of the process", contestant=SHIPPED, value=peak[0], unit="GiB")


def _write(folder: Path, rows: int, keys: int, asked: int) -> None:
    import pandas as pd

    history(folder / "v.parquet", rows, keys)
    r = np.random.default_rng(1)
    moments = pd.to_datetime(r.integers(0, 10**12, asked) + 1_760_000_000_000_000, unit="us", utc=True)
    frame = pd.DataFrame({"driver": r.integers(0, keys, asked), "event_timestamp": moments, "nr": np.arange(asked)})
    frame.to_parquet(folder / "entities.parquet")


def _compare(case: str, runs: dict[str, Run], turns: int, asked: int) -> Iterator[Row]:
    taken: dict[str, list[float]] = {name: [] for name in runs}
    results = {}
    for _ in range(turns):
        for name, run in runs.items():
            results[name], seconds = run()
            taken[name].append(seconds)
    for name, took in taken.items():
        kept, same = len(results[name]) / asked, _equal(results[name], results[HAND])
        yield Row(case=case, contestant=name, value=float(np.median(took)), unit="s")
        yield Row(case=f"{case}: rows kept", contestant=name, value=kept, unit="share")
        yield Row(case=f"{case}: values equal to the floor's", contestant=name, value=same, unit="share")
    for name in (OURS, SHIPPED):
        if name in taken:
            ratio = float(np.median(taken[name]) / np.median(taken[HAND]))
            yield Row(case=f"{case}, over the floor", contestant=name, value=ratio, unit="x", goal="<= 1.5")


def _equal(made: Any, expected: Any) -> float:
    """Share of values that are the same, row by row of the entity frame; rows that were dropped have none."""
    both = expected[["nr", *NAMES]].merge(made[["nr", *NAMES]], on="nr", how="left", suffixes=("", "_made"))
    left, right = (both[[f"{name}{end}" for name in NAMES]].to_numpy(np.float32) for end in ("", "_made"))
    there = both["nr"].isin(made["nr"]).to_numpy()[:, None]
    return float((there & ((left == right) | (np.isnan(left) & np.isnan(right)))).mean())


def _plan() -> dict[str, Any]:
    from feature_repo.stores.plan import compile_view
    from tests import feature_stores as stores

    view, _ = stores.view_of("v", NAMES, driver=stores.Int64)
    return {"timestamp": "event_timestamp", "views": [compile_view(view)]}


def _runs(folder: Path) -> dict[str, Run]:
    import pandas as pd

    from feature_repo.stores.join import point_in_time_join

    plan, frame = _plan(), pd.read_parquet(folder / "entities.parquet")
    return {
        HAND: lambda: _timed(lambda: _by_hand(folder / "v.parquet", frame)),
        OURS: lambda: _timed(lambda: point_in_time_join(plan, folder, frame, memory_limit="4GB")),
    }


def _timed(run: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return run(), time.perf_counter() - start


def _by_hand(file: Path, frame: Any) -> Any:
    """What somebody who knows DuckDB would write: both sides as tables, one ASOF join."""
    import duckdb

    columns = ", ".join(f"h.{name}" for name in NAMES)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone='UTC'; SET memory_limit='4GB'")
        connection.register("given", frame)
        connection.execute("CREATE TEMP TABLE e AS SELECT * FROM given")
        connection.execute(f"CREATE TEMP TABLE h AS SELECT * FROM read_parquet('{file}')")
        query = f"""SELECT e.driver, e.event_timestamp, e.nr, {columns} FROM e ASOF LEFT JOIN h
            ON e.driver = h.driver AND e.event_timestamp >= h.event ORDER BY e.nr"""
        return connection.execute(query).df()


def _feast_dask(folder: Path) -> Run:
    import pandas as pd
    from feast import Entity, FeatureView, ValueType

    from tests import feature_stores as stores

    view, _ = stores.view_of("v", NAMES, driver=stores.Int64)
    entity = Entity(name="driver", join_keys=["driver"], value_type=ValueType.INT64)
    mine = FeatureView(name="v", entities=[entity], ttl=None, source=view.batch_source, schema=view.schema)
    theirs = {"offline_store": {"type": "file"}, "batch_engine": {"type": "local"}}
    online = {"type": "sqlite", "path": str(folder / "feast.db")}
    store = stores.make_store(folder, [(mine, [entity])], online=online, **theirs)
    refs, frame = [f"v:{name}" for name in NAMES], pd.read_parquet(folder / "entities.parquet")

    def run() -> tuple[Any, float]:
        with peers.quiet():
            return _timed(lambda: store.get_historical_features(features=refs, entity_df=frame).to_df())

    return run


@contextlib.contextmanager
def _feast_duckdb(folder: Path) -> Iterator[dict[str, Run]]:
    """Feast's duckdb store wants other libraries than the platform: it runs, and is timed, in a process of its own."""
    import pandas as pd

    script = Path(__file__).with_name("peers") / "use_feast_duckdb.py"
    with (folder / "peer.log").open("w") as log:
        process = subprocess.Popen(
            [str(FEAST), str(script), str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
    asks, says = process.stdin, process.stdout
    assert asks is not None
    assert says is not None

    def heard(word: str) -> list[str]:
        """The rest of the next line that begins with `word`: Feast prints as well."""
        for line in says:
            if line.startswith(word):
                return line.split()[1:]
        raise SystemExit(f"Feast's duckdb store ended: {(folder / 'peer.log').read_text()[-2000:]}")

    def run() -> tuple[Any, float]:
        asks.write("join\n")
        asks.flush()
        (seconds,) = heard("took")
        return pd.read_parquet(folder / "joined.parquet"), float(seconds)

    try:
        heard("ready")
        yield {"feast duckdb": run}
    finally:
        process.kill()
        process.wait()


def _in_a_process(folder: Path, peak: list[float]) -> tuple[Any, float]:
    import pandas as pd

    command = [sys.executable, "-m", "tests.bench.features_join", str(folder)]
    seconds, peak[0] = map(float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    return pd.read_parquet(folder / "shipped.parquet"), seconds


def main(folder: Path) -> None:
    """Ours with the memory limit that it has by default; prints seconds, and the peak of the process in GiB."""
    import pandas as pd

    from feature_repo.stores.join import point_in_time_join

    frame = pd.read_parquet(folder / "entities.parquet")
    plan = _plan()
    made, seconds = _timed(lambda: point_in_time_join(plan, folder, frame))
    print(seconds, peak_memory())  # noqa: T201 - read by the parent
    made.to_parquet(folder / "shipped.parquet")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

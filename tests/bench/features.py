"""Speed of the feature store: ``make bench-features [ARGS="read load views million materialise join large"]``.

All contestants of a part take turns call by call, on one Redis (read) or one Parquet file (join), so that what else the
machine does hits all of them. ``large`` joins 20 million rows with a million.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench import features_join as joins
from tests.bench import features_peers as peers
from tests.bench.features_join import history
from tests.bench.report import Row, write

BATCHES = (1, 10, 50, 500)
_WARM = 20  # then 300 reads of each; of those that take long, fewer


def read(folder: Path) -> Iterator[Row]:
    """Median and p99 of reading, beside the floor and Feast."""
    server = peers.servers.Server(folder / "redis")
    try:
        for case in peers.CASES:
            peers.fill(server.address, case)
        with peers.quiet():
            store = peers.feast_store(folder, server.port)
        with peers.feast_server(folder) as over_http:
            for case in peers.CASES:
                readers: dict[str, Callable[[list[str]], Any]] = {
                    "raw MGET (floor)": peers.floor(server.address, case, server.port),
                    "fairlead reader": peers.ours(server.address, case),
                    **peers.feast_readers(store, case),
                    "feast HTTP server": over_http(case),
                }
                for batch in BATCHES:
                    yield from _compare(case.label, batch, readers)
    finally:
        server.stop()


def million(folder: Path) -> Iterator[Row]:
    """The floor and ours with a million entities in the store, asked for all over it."""
    server, many = peers.servers.Server(folder / "million"), 1_000_000
    known = np.array(peers.names(many))[:: many // 5_000]
    try:
        for case in peers.CASES[:2]:
            peers.fill(server.address, case, many)
            readers = {
                "raw MGET (floor)": peers.floor(server.address, case, server.port),
                "fairlead reader": peers.ours(server.address, case),
            }
            for batch in BATCHES:
                yield from _compare(f"1 M entities, {case.label}", batch, readers, known)
    finally:
        server.stop()


def _compare(
    label: str, batch: int, readers: Mapping[str, Callable[[list[str]], Any]], known: Any = None
) -> Iterator[Row]:
    taken = _take_turns(batch, readers, known)
    what = f"{label}, {batch} entit{'y' if batch == 1 else 'ies'}"
    for name, seconds in taken.items():
        yield Row(case=f"read: {what}, median", contestant=name, value=float(np.median(seconds)) * 1e3, unit="ms")
        yield Row(case=f"read: {what}, p99", contestant=name, value=_p99(seconds) * 1e3, unit="ms")
    base, mine = taken["raw MGET (floor)"], taken["fairlead reader"]
    ratio = float(np.median(mine) / np.median(base))
    yield Row(case=f"over the floor: {what}, median", contestant="fairlead", value=ratio, unit="x", goal="<= 2")
    yield Row(
        case=f"over the floor: {what}, p99", contestant="fairlead", value=_p99(mine) / _p99(base), unit="x", goal="<= 3"
    )


def _p99(seconds: list[float]) -> float:
    return float(np.percentile(seconds, 99))


def _take_turns(
    batch: int, readers: Mapping[str, Callable[[list[str]], Any]], known: Any = None
) -> dict[str, list[float]]:
    r = np.random.default_rng(batch)
    if known is None:
        known = np.array(peers.names(peers.FEAST_ENTITIES))
    asked = [r.choice(known, batch, replace=False).tolist() for _ in range(50)]
    taken: dict[str, list[float]] = {name: [] for name in readers}
    gc.collect()
    gc.disable()  # nobody pays for what another one left behind
    slow = {1: 40, 10: 30, 50: 12}.get(batch, 5)
    for turn in range(-_WARM, 300):
        turns = list(readers.items())
        for name, reader in turns if turn % 2 else reversed(turns):  # who comes after a slow one finds caches cold
            if "floor" not in name and "fairlead" not in name and (turn >= slow or turn < -2):
                continue
            drivers = asked[turn % len(asked)]
            if prepare := getattr(reader, "prepare", None):
                prepare(drivers)
            start = time.perf_counter()
            reader(drivers)
            if turn >= 0:
                taken[name].append(time.perf_counter() - start)
        if turn < slow:
            gc.collect()
    gc.enable()
    return taken


def load(folder: Path) -> Iterator[Row]:
    """1,000 requests a second, come what may, for 10 s, with 3 views: latency counts from when a request was due."""
    case = peers.Case("l", "3 views x 10 mixed", 3, tuple(peers.MIXED))
    server, cores = peers.servers.Server(folder / "load"), os.sched_getaffinity(0)
    try:
        peers.fill(server.address, case)
        reader, known = peers.ours(server.address, case), peers.names(peers.ENTITIES)
        os.sched_setaffinity(0, {min(cores)})
        assert server.process is not None
        os.sched_setaffinity(server.process.pid, {max(cores)})
        for at in range(200):
            reader([known[at]])
        gc.collect()
        late, start = [], time.perf_counter() + 0.01
        for at in range(10_000):
            due = start + at / 1000
            while time.perf_counter() < due:
                pass
            reader([known[at % len(known)]])
            late.append(time.perf_counter() - due)
    finally:
        os.sched_setaffinity(0, cores)
        server.stop()
    name = "1,000 requests/s, open loop, 3 views, one core"
    yield Row(case=f"{name}: median", contestant="fairlead reader", value=float(np.median(late)) * 1e3, unit="ms")
    yield Row(case=f"{name}: p99", contestant="fairlead reader", value=_p99(late) * 1e3, unit="ms", goal="<= 10")


def _columns(reader: Any, drivers: list[str]) -> Any:
    return reader.read({"driver": drivers}).columns


def views(folder: Path) -> Iterator[Row]:
    """The same read with 10 and with 500 views in the registry."""
    server = peers.servers.Server(folder / "views")
    from tests import feature_stores as stores

    readers: dict[str, Callable[[list[str]], Any]] = {}
    try:
        for count in (10, 500):
            place = folder / str(count)
            place.mkdir()
            made = [stores.view_of(f"v{at}", [f"v{at}_f{i}__f32" for i in range(5)]) for at in range(count)]
            online = {"type": "feature_repo.stores.online.PackedOnlineStore", "address": server.address}
            store = stores.make_store(place, made[:count], online=online, project=f"p{count}")
            from feast import FeatureService

            store.apply([FeatureService(name="three", features=[view for view, _ in made[:3]])])
            from feature_repo.stores.plan import compile_plan
            from feature_repo.stores.reader import OnlineReader

            reader = OnlineReader(compile_plan(store, "three", "event"), server.address)
            readers[f"fairlead reader, {count} views"] = partial(_columns, reader)
        taken = _take_turns(10, readers)
    finally:
        server.stop()
    medians = {name: float(np.median(seconds)) * 1e3 for name, seconds in taken.items()}
    for name, value in medians.items():
        yield Row(case="3 views of a registry, 10 entities", contestant=name, value=value, unit="ms")
    few, many = medians.values()
    yield Row(
        case="500 views beside 10 in the registry", contestant="fairlead", value=many / few, unit="x", goal="<= 1.2"
    )


def materialise(folder: Path) -> Iterator[Row]:
    """A million rows of 10 float32, in a process of its own for its memory; in turn with raw SETs of the same bytes."""
    rows, server = 1_000_000, peers.servers.Server(folder / "materialise")
    command = [sys.executable, "-m", "tests.bench.features", "_materialise", str(folder), server.address, str(rows)]
    took, sets, memory = [], [], 0.0
    try:
        for _ in range(3):
            server.client.flushdb()
            made = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            took.append(float(made[-2]))
            memory = max(memory, float(made[-1]))
            sets.append(_raw_sets(server.client, rows))
    finally:
        server.stop()
    seconds, raw = float(np.median(took)), float(np.median(sets))
    case = "materialise 1 M rows x 10 float32"
    yield Row(case=case, contestant="raw pipelined SET (floor)", value=rows / raw, unit="rows/s")
    yield Row(case=case, contestant="fairlead", value=rows / seconds, unit="rows/s", goal=f">= {rows / raw / 2:.0f}")
    yield Row(case=f"{case}, peak memory", contestant="fairlead", value=memory, unit="GiB", goal="<= 1")


def _raw_sets(client: Any, rows: int) -> float:
    """Seconds to write again what is there, 10,000 SETs at a time; the bytes are read before the clock starts."""
    found = []
    for names in _chunks(list(client.scan_iter(match="fl:*", count=20_000)), 10_000):
        found += zip(names, client.mget(names), strict=True)
    assert len(found) == rows, len(found)
    client.flushdb()
    start = time.perf_counter()
    for part in _chunks(found, 10_000):
        pipe = client.pipeline(transaction=False)
        for name, row in part:
            pipe.set(name, row, ex=86_400)
        pipe.execute()
    return time.perf_counter() - start


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    return (items[at : at + size] for at in range(0, len(items), size))


def _materialise_here(folder: str, address: str, rows: str) -> None:
    from tests import feature_stores as stores

    history(Path(folder) / "v.parquet", int(rows), int(rows), unique=True)
    view, _ = stores.view_of("v", [f"x{i}__f32" for i in range(10)], ttl=stores.timedelta(days=1), driver=stores.Int64)
    engine = stores.engine(Path(folder), address)
    start = time.perf_counter()
    stores.materialise_view(engine, view, stores.second(-(10**9)), stores.second(10**6))
    seconds = time.perf_counter() - start
    print(seconds, joins.peak_memory())  # noqa: T201 - read by the parent


PARTS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "read": read,
    "load": load,
    "views": views,
    "million": million,
    "materialise": materialise,
    "join": joins.join,
    "large": joins.large,
}


def main(chosen: list[str]) -> int:
    if chosen[:1] == ["_materialise"]:
        _materialise_here(*chosen[1:])
        return 0
    rows: list[Row] = []
    for name in chosen or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            rows += PARTS[name](Path(folder))
    return write("features", "make bench-features", rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

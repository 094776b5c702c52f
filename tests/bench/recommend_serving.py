"""A million items behind the real service: lists of 20 of 500 candidates, 100 requests a second at random moments.

The items are made: unit vectors of 64 numbers around centres of 500, with 24 attributes; 50,000 people have 30 items of
a few centres each, and a fifth of the requests are sessions that bring items. Index, histories, rules, re-ranking by
DPP, measures of the list and the log of the service are those of every bundle. The bundle is kept in the folder of the
results, because to build the index takes minutes; delete it to build again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from contracts.ports import free_port
from tests.bench.report import FOLDER, Row
from tests.bench.serving_load import open_loop

ITEMS, WIDTH, NEAR, PEOPLE, TAKEN, ATTRIBUTES = 1_000_000, 64, 500, 50_000, 30, 24
CANDIDATES, LISTED, RATE, SECONDS = 500, 20, 100.0, 30.0
_HOME = FOLDER / "recommend-serving"


def made(items: int) -> tuple[Any, list[list[int]]]:
    """A recommender of towers, and the histories of people."""
    from contracts import tower
    from contracts.recommender import Recommender, RecommendSpec

    rng = np.random.default_rng(19)
    count = items // NEAR
    centres = rng.normal(size=(count, WIDTH)).astype(np.float32)
    of = rng.integers(0, count, items)
    factors = centres[of] + 0.5 * rng.normal(size=(items, WIDTH)).astype(np.float32)
    factors /= np.linalg.norm(factors, axis=1, keepdims=True)
    has = np.zeros((items, ATTRIBUTES), dtype=np.float32)
    for shift in (0, 5):
        has[np.arange(items), (of + shift * rng.integers(1, 4, items)) % ATTRIBUTES] = 1
    hidden = 128
    layers = [0.05 * rng.normal(size=shape) for shape in ((WIDTH, hidden), (hidden,), (hidden, WIDTH), (WIDTH,))]
    people = rng.pareto(1.2, items).astype(np.float32) + 1
    arrays = {
        "people": people,
        "trend": people / people.max(),
        "fresh": np.zeros(items, dtype=bool),
        "vectors": has / np.linalg.norm(has, axis=1, keepdims=True),
        "factors": factors,
        tower.ASKS: factors,
        **dict(zip(tower.LAYERS, (one.astype(np.float32) for one in layers), strict=True)),
    }
    spec = RecommendSpec(
        method="tower", k=LISTED, diversity=0.3, pool=CANDIDATES, recency=10, everybody=PEOPLE, attributed=True
    )
    order = np.argsort(of, kind="stable")
    ends = np.searchsorted(of[order], np.arange(count + 1))
    histories = []
    for _ in range(PEOPLE):
        liked = [order[ends[one] : ends[one + 1]] for one in rng.choice(count, rng.integers(1, 4), replace=False)]
        histories.append(rng.choice(np.concatenate(liked), TAKEN, replace=False).tolist())
    names = [f"attribute{at}" for at in range(ATTRIBUTES)]
    return Recommender(spec, [f"i{at}" for at in range(items)], names, arrays), histories


def bundle(home: Path, items: int) -> tuple[Path, dict[str, float]]:
    """The published bundle, and what building its index took: seconds, cpu seconds and its recall."""
    from contracts.engines.recommend import request_inputs, write_model
    from contracts.nearest import write_nearest
    from tests.problem_bundles import publish

    told = home / f"built-{items}.json"
    if told.exists():
        known: dict[str, Any] = json.loads(told.read_text())
        return Path(known["bundle"]), known["index"]
    model, histories = made(items)
    folder = home / f"items-{items}" / "source" / "model"
    write_model(folder, model, [f"u{at}" for at in range(PEOPLE)], histories)
    start, cpu = time.perf_counter(), time.process_time()
    asked = [model.asked(histories[at]) for at in range(0, PEOPLE, PEOPLE // 200)]
    spec = write_nearest(folder, model.arrays["factors"], asked, CANDIDATES, threads=2)
    index = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu, "recall": spec.recall}
    output = {"problem": "ranking", "k": LISTED, "longest": 100, "catalogue": items}
    inputs = [item.model_dump() for item in request_inputs(model.spec)]
    found = publish(home / f"items-{items}", "recommend", "recommend", output, inputs=inputs)
    told.write_text(json.dumps({"bundle": str(found.path), "index": index}))
    return found.path, index


@contextlib.contextmanager
def served(path: Path, log: Path) -> Iterator[tuple[int, int]]:
    """The port and the process of a service of the bundle."""
    port = free_port()
    argv = [sys.executable, "-m", "services.server.launch", "recommend", "--port", str(port)]
    env = {**os.environ, "FAIRLEAD_SERVICE_BUNDLE": str(path), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with log.open("wb") as out:
        process = subprocess.Popen(argv, env=env, stdout=out, stderr=out, start_new_session=True)
        try:
            _wait(process, port, log)
            yield port, process.pid
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=30)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        url = f"http://127.0.0.1:{port}/v2/health/ready"
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(0.2)
    sys.exit(f"the service did not start: {log.read_text()[-2000:]}")


def _used(pid: int) -> tuple[float, float]:
    """Processor seconds of a process and its children so far, and their memory in GB."""
    import psutil

    whole = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    seconds = sum(one.cpu_times().user + one.cpu_times().system for one in whole)
    return seconds, sum(one.memory_info().rss for one in whole) / 1e9


def bodies(items: int) -> list[str]:
    """People who are known, and sessions that bring five items."""
    rng = np.random.default_rng(3)
    made = []
    for at in range(1_000):
        who: dict[str, Any] = {"user": f"u{rng.integers(PEOPLE)}"}
        if at % 5 == 0:
            who = {"items": [f"i{one}" for one in rng.integers(0, items, 5)]}
        made.append(json.dumps({**who, "k": LISTED}))
    return made


def serving(home: Path, items: int = ITEMS) -> Iterator[Row]:
    """Latency of the whole answer at a fixed rate, and what the index and the process take."""
    _HOME.mkdir(parents=True, exist_ok=True)
    path, index = bundle(_HOME.absolute(), items)
    case = f"serving, {items:,} items of {WIDTH} numbers"
    with served(path, home / "service.log") as (port, pid):
        before, _ = _used(pid)
        start = time.perf_counter()
        got = asyncio.run(open_loop(port, "/recommend", bodies(items), rate=RATE, seconds=SECONDS, warm=3.0))
        after, memory = _used(pid)
        spent = 1e3 * (after - before) / (RATE * (time.perf_counter() - start))
    load = os.getloadavg()[0]
    sys.stdout.write(f"serving: {got}, load of the machine {load:.1f}, index {index}\n")
    for metric, value, goal in (("p50", got.p50, "<= 8"), ("p99", got.p99, "<= 20"), ("processor time", spent, "")):
        yield Row(
            case=f"{case}, {RATE:.0f} requests/s, {metric}", contestant="fairlead", value=value, unit="ms", goal=goal
        )
    yield Row(case=f"{case}, answers that were no 200", contestant="fairlead", value=got.errors, unit="", goal="<= 0")
    yield Row(
        case=f"{case}, recall of the index", contestant="usearch", value=index["recall"], unit="share", goal=">= 0.98"
    )
    yield Row(case=f"{case}, index built", contestant="usearch", value=index["cpu"], unit="cpu s")
    yield Row(case=f"{case}, memory of the service", contestant="fairlead", value=memory, unit="GB")
    yield Row(case=f"{case}, load of the machine", contestant="machine", value=load, unit="processes")

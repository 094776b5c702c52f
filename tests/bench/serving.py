"""``make bench-serving``: what our runtime costs and keeps up with, beside other frameworks on the same core.

Contestants take turns in every round, each alone on CPU 0 with the load on CPU 1; a number is the median of the rounds.
Peers live in virtual environments of their own (``--peers FOLDER``); one that is missing or does not start is left out,
and the table says so.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from contracts.engines import load_engine
from tests.bench import report
from tests.bench.serving_fraud import fraud
from tests.bench.serving_load import Result, closed_loop, open_loop
from tests.bench.serving_models import FLOATS, four_floats
from tests.bench.serving_restarts import restarts
from tests.bench.serving_text import text

SERVER_CPU, LOAD_CPU = 0, 1
OURS = "fairlead"
ROWS_AT_ONCE = 32
CAPACITY = ROWS_AT_ONCE / (0.005 + 0.0005 * ROWS_AT_ONCE)  # requests of one row per second
JSON_BODY = '{"instances":[{"a":0.5,"b":1.5,"c":-2.0,"d":3.0}]}'
V2_BODY = json.dumps(
    {
        "inputs": [
            {"name": n, "shape": [1], "datatype": "FP64", "data": [v]}
            for n, v in zip(FLOATS, (0.5, 1.5, -2.0, 3.0), strict=True)
        ]
    }
)


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """How a server is started, and where it is asked."""

    name: str
    argv: tuple[str, ...]
    path: str
    body: str = JSON_BODY
    noop: str = ""


class NotStartedError(Exception):
    """A contestant does not answer; the others go on."""


class Arena:
    """Starts contestants one at a time on the server's CPU."""

    def __init__(self, folder: Path, peers: Path) -> None:
        self.folder, self.peers = folder, peers
        self.left_out: dict[str, str] = {}
        self.bundle = four_floats(folder)
        model = str(self.bundle.model_path / "model.onnx")
        self.env = {**os.environ, "BENCH_MODEL": model, "BENCH_FOLDER": str(folder), "OMP_NUM_THREADS": "1"}
        self.env |= {"FAIRLEAD_SERVICE_BUNDLE": str(self.bundle.path), "FAIRLEAD_SERVICE_MAX_CONCURRENCY": "2000"}
        self.env |= {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONWARNINGS": "ignore"}

    def peer(
        self, name: str, environment: str, path: str = "/predict", *arguments: str, **more: str
    ) -> Contestant | None:
        """A contestant of ``peers/use_NAME.py``; None when its environment is missing."""
        python = Path(sys.executable) if environment == "own" else self.peers / environment / "bin" / "python"
        if not python.exists():
            self.left_out[name] = "not installed"
            return None
        script = str(Path(__file__).parent / "peers" / f"use_{name}.py")
        return Contestant(name=name, argv=(str(python), script, *arguments), path=path, **more)

    def ours(self, module: str = "services.server.launch") -> Contestant:
        """Our tabular service."""
        argv = (sys.executable, "-m", module, "tabular", "--port")
        return Contestant(name=OURS, argv=argv, path="/predict", noop="/v2/health/live")

    @contextlib.contextmanager
    def serving(self, one: Contestant) -> Iterator[int]:
        """The port of a running contestant."""
        port = _free_port()
        log = (self.folder / f"{one.name}.log").open("ab")
        argv = ["taskset", "-c", str(SERVER_CPU), *one.argv, str(port)]
        process = subprocess.Popen(argv, env=self.env, stdout=log, stderr=log, start_new_session=True)
        try:
            self._wait(process, port, one)
            yield port
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=10)
            log.close()

    def _wait(self, process: subprocess.Popen[bytes], port: int, one: Contestant) -> None:
        request = urllib.request.Request(f"http://127.0.0.1:{port}{one.path}", one.body.encode(), _JSON)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=5) as answer:
                if answer.status == 200:
                    return
            if process.poll() is not None:
                break
            time.sleep(0.1)
        raise NotStartedError(f"{one.name} did not start: {(self.folder / f'{one.name}.log').read_text()[-2000:]}")


def _free_port() -> int:
    """One of three free ports in a row, which MLServer takes, below those that the load's connections come from."""
    while True:
        port = random.randrange(20_000, 30_000)
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for at in range(3):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port + at))
            return port


_JSON = {"content-type": "application/json"}


@contextlib.contextmanager
def _noted(arena: Arena, name: str) -> Iterator[None]:
    """Goes on without a contestant that does not start, and says so."""
    try:
        yield
    except NotStartedError as err:
        sys.stderr.write(f"{err}\n")
        arena.left_out[name] = "did not start"


def _median(results: list[Result], of: Callable[[Result], float]) -> float:
    return statistics.median(of(one) for one in results)


def requests(arena: Arena, rounds: int, seconds: float) -> list[report.Row]:
    """A request that asks nothing, and one of four numbers, closed loop."""
    found = [
        arena.ours(),
        arena.peer("starlette", "web", noop="/noop"),
        arena.peer("fastapi", "web", noop="/noop"),
        arena.peer("litserve", "web"),
        arena.peer("bentoml", "own"),
        arena.peer("mlserver", "mlserver", "/v2/models/floats/infer", body=V2_BODY),
        arena.peer("ray", "ray"),
    ]
    contestants = [one for one in found if one is not None]
    results: dict[tuple[str, int, str], list[Result]] = {}
    for _ in range(rounds):
        for one in contestants:
            with _noted(arena, one.name), arena.serving(one) as port:
                for path, body, case in ((one.noop, "", "no-op"), (one.path, one.body, "4 floats")):
                    for connections in (1, 16, 64) if path else ():
                        url = f"http://127.0.0.1:{port}{path}"
                        got = closed_loop(url, body, connections=connections, seconds=seconds, cpu=LOAD_CPU)
                        results.setdefault((case, connections, one.name), []).append(got)
    return _request_rows(arena, results)


def _request_rows(arena: Arena, results: dict[tuple[str, int, str], list[Result]]) -> list[report.Row]:
    rows = []
    for (case, connections, name), got in sorted(results.items(), key=lambda item: item[0][:2]):
        rate, label = _median(got, lambda one: one.rate), f"{case}, c={connections}"
        rows.append(report.Row(case=f"{label}, throughput", contestant=name, value=rate, unit="requests/s"))
        for share, of in (("p50", lambda one: one.p50), ("p99", lambda one: one.p99)):
            value = _median(got, of)
            rows.append(report.Row(case=f"{label}, {share}", contestant=name, value=value, unit="ms"))
        if errors := sum(one.errors for one in got):
            rows.append(report.Row(case=f"{label}, errors", contestant=name, value=errors, unit="requests"))
        rival = results.get((case, connections, "fastapi"), [])
        if name == OURS and rival:
            worst = min(mine.rate / theirs.rate for mine, theirs in zip(got, rival, strict=False))
            what = f"{label}, over fastapi in the worst round"
            rows.append(report.Row(case=what, contestant=name, value=worst, unit="times", goal=">= 1"))
    best = max(
        _median(got, lambda one: one.rate) for key, got in results.items() if key[0] == "no-op" and key[2] == OURS
    )
    rows.append(report.Row(case="no-op, best", contestant=OURS, value=best, unit="requests/s", goal=">= 4000"))
    alone, bare50, bare99 = results[("4 floats", 1, OURS)], *bare_call(arena)
    for share, value, goal in (
        ("p50", _median(alone, lambda one: one.p50) - bare50, "<= 0.4"),
        ("p99", _median(alone, lambda one: one.p99) - bare99, "<= 2"),
    ):
        rows.append(report.Row(case=f"over the bare call, {share}", contestant=OURS, value=value, unit="ms", goal=goal))
    return rows


def bare_call(arena: Arena) -> tuple[float, float]:
    """p50 and p99 of the engine's call in this process, in milliseconds."""
    engine, columns = load_engine(arena.bundle), {name: np.array([1.0]) for name in FLOATS}
    times = []
    for _ in range(5000):
        start = time.perf_counter()
        engine.predict(columns)
        times.append((time.perf_counter() - start) * 1e3)
    return float(np.percentile(times, 50)), float(np.percentile(times, 99))


def batching(arena: Arena, rounds: int, seconds: float) -> list[report.Row]:
    """A model of 5 ms and 0.5 ms a row under Poisson arrivals."""
    found = [
        arena.ours("tests.bench.serving_models"),
        arena.peer("bentoml", "own", "/batched", "batching", body='{"x": [1.0]}'),
        arena.peer("litserve", "web", "/predict", "batching", body='{"x": 1.0}'),
    ]
    arena.env["FAIRLEAD_SERVICE_MAX_BATCH_ROWS"] = str(ROWS_AT_ONCE)
    results: dict[tuple[int, str], list[Result]] = {}
    os.sched_setaffinity(0, {LOAD_CPU})
    for _ in range(rounds):
        for one in (one for one in found if one is not None):
            for load in (50, 80, 95):
                with (
                    _noted(arena, one.name),
                    arena.serving(one) as port,
                ):  # a fresh one: a queue that grew would spoil the next load
                    rate = CAPACITY * load / 100
                    story = open_loop(port, one.path, one.body, rate=rate, seconds=seconds)
                    results.setdefault((load, one.name), []).append(asyncio.run(story))
    rows = []
    for (load, name), got in sorted(results.items(), key=lambda item: item[0]):
        rivals = [_median(r, lambda one: one.p99) for (at, rival), r in results.items() if at == load and rival != OURS]
        ours = name == OURS
        share = _median(got, lambda one: one.rate) / (CAPACITY * load / 100) * 100
        case = f"batching at {load} % of capacity"
        throughput = ">= 90" if ours else ""
        limit = f"<= {min(rivals):.3f}" if ours and rivals else ""
        p50, p99 = _median(got, lambda one: one.p50), _median(got, lambda one: one.p99)
        rows += [
            report.Row(case=f"{case}, answered", contestant=name, value=share, unit="% of ideal", goal=throughput),
            report.Row(case=f"{case}, p50", contestant=name, value=p50, unit="ms"),
            report.Row(case=f"{case}, p99", contestant=name, value=p99, unit="ms", goal=limit),
            report.Row(case=f"{case}, errors", contestant=name, value=sum(o.errors for o in got), unit="requests"),
        ]
    return rows


CASES: dict[str, Callable[[Arena, int, float], list[report.Row]]] = {
    "requests": requests,
    "batching": batching,
    "fraud": fraud,
    "text": text,
    "restarts": restarts,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the cases and write ``build/bench/serving-<case>.json``; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(prog="tests.bench.serving", description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["requests", "batching", "fraud", "text"])
    parser.add_argument("--peers", type=Path, default=Path("build") / "peers")
    parser.add_argument("--rounds", type=int, default=3, help="of each case; minutes of the case restarts")
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args(arguments)
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is missing: apt-get install wrk")
    status = 0
    for case in options.cases:
        with tempfile.TemporaryDirectory(prefix="fairlead-bench-") as folder:
            arena = Arena(Path(folder), options.peers)
            rows = CASES[case](arena, options.rounds, options.seconds)
            rows += [
                report.Row(case="left out", contestant=name, value=math.nan, unit=why)
                for name, why in arena.left_out.items()
            ]
        status |= report.write(f"serving-{case}", f"make bench-serving ARGS='--cases {case}'", rows)
    return status


if __name__ == "__main__":
    sys.exit(main())

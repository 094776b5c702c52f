"""What the prediction log costs a request: the time to add a record, and a server with and without a log."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import psutil

from contracts.bundle import Signature
from contracts.ports import free_port
from services.metrics.service_metrics import ServiceMetrics
from services.model.prediction_log import PredictionLog, new_id
from services.model.request_schema import Batch
from services.server.launch import serve_command
from services.settings import PredictionLogSettings
from tests.bench.report import Row
from tests.bench.serving_load import Result, closed_loop
from tests.problem_bundles import linear_prices
from tests.servers import running, wait_for

GOAL, OURS = "<= 50", "fairlead"
_TEXT = (
    "the bank said that the company had expected a profit of several millions in the second quarter of the year " * 2
)
_RECORDS = 2_000


class Sent(NamedTuple):
    """What one server answered, and the processor time of each answer in us."""

    result: Result
    busy: float


def records() -> list[Row]:
    """Processor time to add a record, median of the thread that answers requests."""
    grams = sorted({_TEXT[at : at + 3] for at in range(len(_TEXT) - 2)})
    photo = np.random.default_rng(0).integers(0, 255, (1, 224, 224, 3), np.uint8)
    cases: dict[str, dict[str, Any]] = {
        "30 numbers": {f"x{at}": np.array([at + 0.5]) for at in range(30)},
        "4 texts": {f"text{at}": np.array([_TEXT], object) for at in range(4)},
        "an image of 224x224": {"photo": photo},
    }
    normal = {"inputs": {f"text{at}": {"kind": "text", "grams": grams} for at in range(4)}}
    return [
        Row(case=f"a record of {name}: processor time on the request path", contestant=OURS, value=_added(each, normal),
            unit="us", goal=GOAL)
        for name, each in cases.items()
    ]  # fmt: skip


def _added(columns: dict[str, Any], normal: Mapping[str, Any]) -> float:
    kinds = {"f": "float64", "O": "string", "u": "bytes"}
    inputs = [{"name": name, "dtype": kinds[values.dtype.kind]} for name, values in columns.items()]
    output = {"problem": "classification", "classes": ["no", "yes"]}
    signature, took = Signature.model_validate({"inputs": inputs, "output": output}), []
    with tempfile.TemporaryDirectory() as folder:
        metrics = ServiceMetrics("m", "1")
        log = PredictionLog(
            PredictionLogSettings(folder=folder), signature, {"model": "m", "version": "1"}, metrics, normal
        )
        batch = Batch(schema="by_features", rows=1, columns=columns, flags=[[]])
        scored: Any = SimpleNamespace(ood=[], answers=np.array([[0.5, 0.5]]), decided=[("yes", 0.5)], inputs=columns)
        for number in range(_RECORDS):
            began = time.thread_time_ns()
            log.add(new_id(), 0, batch, scored, 1.0)
            took.append((time.thread_time_ns() - began) / 1000)
            if number % 100 == 99:
                time.sleep(0.02)  # as between requests, so that the writer comes to work
        log.close()
        assert (metrics.logged.value, metrics.lost.value) == (_RECORDS, 0)
    return statistics.median(took)


def requests(rounds: int) -> list[Row]:
    """What the log adds to a request: two servers of one bundle, one with a log, one connection, asked in turns."""
    found: dict[str, list[Sent]] = {"": [], "log": []}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder, ports = Path(name), {which: free_port() for which in found}
        bundle, servers = linear_prices(folder / "made"), {}
        for which, port in ports.items():
            log = str(folder / which) if which else ""
            command = serve_command("tabular", str(bundle.path), port=port, name="m", version="1", predictions=log)
            said = folder / f"{port}.log"
            servers[which] = stack.enter_context(running(list(command.argv), command.env, said))
            wait_for(f"http://127.0.0.1:{port}/v2/health/ready", said)
        for _ in range(rounds):
            for which, port in ports.items():
                found[which].append(_asked(port, servers[which]))
        assert any((folder / "log").rglob("*.jsonl"))
    pairs = list(zip(found["log"], found[""], strict=True))
    p50, p99 = (
        1000 * statistics.median(getattr(on.result, name) - getattr(off.result, name) for on, off in pairs)
        for name in ("p50", "p99")
    )
    tails = [1000 * one.result.p99 for one in found[""]]
    noise = statistics.quantiles(tails, n=4)[2] - statistics.median(tails)
    busy = statistics.median(on.busy - off.busy for on, off in pairs)
    case = f"logging, median of {rounds} pairs in turns"
    return [
        Row(case=f"{case}: added at p50", contestant=OURS, value=p50, unit="us", goal=GOAL),
        Row(case=f"{case}: processor time added to a request", contestant=OURS, value=busy, unit="us", goal=GOAL),
        Row(case=f"{case}: added at p99", contestant=OURS, value=p99, unit="us"),
        Row(case="p99 without a log, upper quartile over the median", contestant=OURS, value=noise, unit="us"),
    ]


def _asked(port: int, server: int) -> Sent:
    body, cpu = json.dumps({"instances": [{"size": 50.0, "rooms": 2.0}]}), min(os.sched_getaffinity(0))
    before = _processor(server)
    result = closed_loop(f"http://127.0.0.1:{port}/predict", body, connections=1, seconds=1.0, cpu=cpu)
    assert result.errors == 0
    return Sent(result, 1e6 * (_processor(server) - before) / result.rate)


def _processor(server: int) -> float:
    """Seconds that a server and its children have worked."""
    found = psutil.Process(server)
    spent = [one.cpu_times() for one in (found, *found.children(recursive=True))]
    return sum(one.user + one.system for one in spent)

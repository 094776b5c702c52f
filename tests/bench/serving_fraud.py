"""The fraud model with online features from a real Redis, at 300 requests a second, and where the time goes."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from contracts.metric_names import FEATURE_STATUS, REQUEST_SECONDS, STAGE_SECONDS, STAGES
from tests.bench import report
from tests.bench.serving_load import Result, open_loop
from tests.integration import redis_servers

if TYPE_CHECKING:
    from tests.bench.serving import Arena

RATE = 300.0
ASKED = 2_000  # different payments, of the newest
PREDICT = {"route": "/predict"}


def fraud(arena: Arena, rounds: int, seconds: float) -> list[report.Row]:
    """Train on simulated payments with Redis as the online store, and ask for predictions of its newest payments."""
    from tests.bench.serving import LOAD_CPU

    server = redis_servers.Server(arena.folder / "redis")
    try:
        home = arena.folder / "home"
        bundle = _trained(home, server.address)
        bodies = _payments(home)
        arena.env |= {"FAIRLEAD_SERVICE_BUNDLE": bundle, "FAIRLEAD_SERVICE_ONLINE": server.address}
        os.sched_setaffinity(0, {LOAD_CPU})
        if server.process is not None:
            os.sched_setaffinity(server.process.pid, {LOAD_CPU})
        one = replace(arena.ours(), body=bodies[0])
        results: list[Result] = []
        shares: list[dict[str, float]] = []
        for _ in range(rounds):
            with arena.serving(one) as port:
                before = _sums(port)
                results.append(asyncio.run(open_loop(port, one.path, bodies, rate=RATE, seconds=max(10.0, seconds))))
                shares.append(_shares(before, _sums(port)))
    finally:
        server.stop()
    return _rows(results, shares)


def _trained(home: Path, online: str) -> str:
    """The folder of a fraud bundle; its features are in `online`."""
    asked = {"run_id": "bench", "task": "fraud", "endpoints": {"home": str(home), "online": online}}
    home.mkdir(parents=True)
    command = [sys.executable, "-m", "pipelines", "run", json.dumps(asked)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (bundle,) = (home / "bundles" / "fraud").glob("*/bundle.json")
    return str(bundle.parent)


def _payments(home: Path) -> list[str]:
    """Requests for the newest payments, at the moment of the last one."""
    import pyarrow.parquet as pq

    (folder,) = (path.parent for path in (home / "data" / "fraud").glob("*/manifest.json"))
    table = pq.read_table(sorted(folder.glob("part-*.parquet"))[-1])
    newest = table.slice(max(0, table.num_rows - ASKED)).to_pylist()
    moment = f"{newest[-1]['event_time']:%Y-%m-%dT%H:%M:%SZ}"
    names = ("customer_id", "terminal_id", "amount")
    return [
        json.dumps({"instances": [{**{name: row[name] for name in names}, "event_time": moment}]}) for row in newest
    ]


def _sums(port: int) -> dict[str, float]:
    """Seconds until now of requests and of each stage, and reads of features that found nothing."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    sums = dict.fromkeys(["request", "absent", *STAGES], 0.0)
    for sample in (sample for family in families for sample in family.samples):
        if sample.name == f"{STAGE_SECONDS}_sum":
            sums[sample.labels["stage"]] += sample.value
        elif sample.name == f"{REQUEST_SECONDS}_sum" and PREDICT.items() <= sample.labels.items():
            sums["request"] += sample.value
        elif sample.name == FEATURE_STATUS and sample.labels["status"] != "PRESENT":
            sums["absent"] += sample.value
    return sums


def _shares(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Percent of the requests' time by stage; what is left is the way through the server."""
    spent = {name: after[name] - before[name] for name in after}
    shares = {stage: 100 * spent[stage] / spent["request"] for stage in STAGES if spent[stage]}
    return {**shares, "else": 100 - sum(shares.values()), "absent": spent["absent"]}


def _rows(results: Sequence[Result], shares: Sequence[dict[str, float]]) -> list[report.Row]:
    case = f"fraud with online features, {RATE:.0f} requests/s"

    def row(what: str, value: float, unit: str, goal: str = "") -> report.Row:
        return report.Row(case=f"{case}, {what}", contestant="fairlead", value=value, unit=unit, goal=goal)

    parts = [
        row(f"share of {stage}", statistics.median(one[stage] for one in shares), "% of the request")
        for stage in shares[0]
        if stage != "absent"
    ]
    return [
        row("p50", statistics.median(one.p50 for one in results), "ms", "<= 2.5"),
        row("p99", statistics.median(one.p99 for one in results), "ms", "<= 8"),
        row("answered", statistics.median(one.rate for one in results), "requests/s"),
        row("errors", sum(one.errors for one in results), "requests", "<= 0"),
        row("reads that found nothing", sum(one["absent"] for one in shares), "reads"),
        *parts,
    ]

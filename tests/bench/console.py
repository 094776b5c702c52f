"""Time of the console's pages with many models: ``python -m tests.bench.console [--models 100]``."""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from starlette.testclient import TestClient

from contracts.endpoints import Endpoints
from deploy.cli.console.home_source import HomeSource
from deploy.cli.console.releases import Machine
from services.console.app import build_app
from tests.bench.report import Row, write
from tests.console_home import register

PAYMENTS = Path(__file__).parents[1] / "version_1" / "payments"
VERSIONS, INPUTS, LOOKS = 3, 30, 20


def make_home(home: Path, models: int) -> None:
    """A home of models with bundles on disk and a monitor's report each."""
    shares = [0.1] * 10
    one = {"kind": "number", "drifted": False, "psi": 0.01, "js": 0.001, "missing": 0.0, "absent": 0.0,
           "bins": [str(at) for at in range(10)], "then": shares, "now": shares}  # fmt: skip
    report = {"versions": {str(VERSIONS): {"rows": 1000, "inputs": {f"input_{at}": one for at in range(INPUTS)}}}}
    paths = {}
    for number in range(models):
        name = f"model_{number:03d}"
        paths[name] = [home / "bundles" / name / str(version) for version in range(VERSIONS)]
        for path in paths[name]:
            shutil.copytree(PAYMENTS, path)
        folder = home / "predictions" / name / "monitor"
        folder.mkdir(parents=True)
        (folder / "report.json").write_text(json.dumps(report))
    register(home, paths)


def milliseconds(console: TestClient, path: str) -> tuple[float, float]:
    """Time of one page by the clock, and of the processor."""
    began, worked = time.perf_counter(), time.process_time()
    assert console.get(path).status_code == 200
    return 1000 * (time.perf_counter() - began), 1000 * (time.process_time() - worked)


def pages(models: int) -> list[Row]:
    """The first look and the looks after it, at the page of all models and at that of one."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        make_home(home, models)
        names = [f"model_{number:03d}" for number in range(models)]
        down = {name: f"http://127.0.1.{number}:9" for number, name in enumerate(names, 1)}
        for where, places in (("no endpoint", dict.fromkeys(names, "")), ("endpoints that are down", down)):
            source = HomeSource(Endpoints(home=str(home)), served=Machine("local", places), steer=print)
            console = TestClient(build_app(source), base_url="http://127.0.0.1")
            for page, path in ((f"{models} models", "/"), ("one model", "/models/model_007")):
                first, *others = (milliseconds(console, path) for _ in range(LOOKS + 1))
                clock, processor = zip(*others, strict=True)
                goal = "<= 200" if path == "/" else ""
                found = {"first look": first[0], "p50": statistics.median(clock), "worst": max(clock),
                         "p50, processor": statistics.median(processor)}  # fmt: skip
                rows += [
                    Row(case=f"console, {page}, {what}", contestant=where, value=value, unit="ms",
                        goal=goal if what in ("p50", "worst") else "")
                    for what, value in found.items()
                ]  # fmt: skip
    return rows


def main() -> int:
    """Measure the pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=100)
    models = parser.parse_args().models
    return write("console", f"python -m tests.bench.console --models {models}", pages(models))


if __name__ == "__main__":
    raise SystemExit(main())

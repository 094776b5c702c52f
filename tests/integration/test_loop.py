"""The loop on this machine, with real runs of the toy task: drift to candidate, a killed watch, runs that fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from contracts.audit import AuditLog
from contracts.endpoints import Endpoints
from contracts.ports import free_port
from contracts.registry import Registry
from tests.toy.toy_task import toy_frame

pytestmark = pytest.mark.integration
ROOT, TOY = Path(__file__).parents[2], Path(__file__).parents[1] / "toy"
POLICY = ["--set", "loop.cooldown_hours=0.0001", "--set", "loop.runs_per_week=9"]


@dataclass(frozen=True)
class Shell:
    """``fairlead`` with a home of its own, in which the toy task is known."""

    home: Path
    watches: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __call__(self, *arguments: str, code: int = 0) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "deploy.cli", *arguments, "--json"],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == code, f"{arguments}: {done.stdout}\n{done.stderr}"
        return json.loads(done.stdout)

    def watch(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "deploy.cli", "watch", "--interval", "1", *arguments]
        self.watches.append(subprocess.Popen(command, env=self.environment, stdout=subprocess.DEVNULL))
        return self.watches[-1]

    def once(self, *arguments: str) -> dict[str, Any]:
        (line,) = self("watch", "toy", "--once", *arguments)
        return line

    @property
    def environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(TOY), str(ROOT)])
        return os.environ | {"PYTHONPATH": path, "FAIRLEAD_HOME": str(self.home), "COLUMNS": "100"}

    @property
    def log(self) -> AuditLog:
        return AuditLog.of(Endpoints(home=str(self.home)))

    def state(self) -> dict[str, Any]:
        file = self.home / "bundles" / ".loop" / "toy" / "state.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def drifts(self, *inputs: str) -> None:
        """What the monitor would say now of the champion."""
        one = {"inputs": {name: {"drifted": True, "psi": 0.4} for name in inputs}, "drifted": list(inputs)}
        file = self.home / "predictions" / "toy" / "monitor" / "report.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        time = datetime.now(UTC).isoformat()
        file.write_text(json.dumps({"form": 1, "model": "toy", "time": time, "versions": {"1": one}}))


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory, with_tables: Callable[[Path], Path]) -> Iterator[Shell]:
    made = Shell(with_tables(tmp_path_factory.mktemp("loop") / "home"))
    assert made("run", "toy", "--set", "loop.runs_per_week=5")["result"]["champion"] is True
    yield made
    for child in made.watches:
        child.kill()
        child.wait()


def until(true: Callable[[], Any], what: str, patience: float = 300.0) -> Any:
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.1)
    raise AssertionError(what)


def test_drift_becomes_a_candidate_although_the_watch_is_killed(shell: Shell, tmp_path: Path) -> None:
    source = tmp_path / "rows.parquet"
    toy_frame(500, seed=8).to_parquet(source)
    quiet = shell.once()
    assert (quiet["phase"], quiet["reason"]) == ("watching", "no report of the monitor")
    assert quiet["policy"]["runs_per_week"] == 5  # the champion's bundle has it
    shell.drifts("distance")
    watch = shell.watch("toy", "--set", f"loop.source={source}", *POLICY)
    run = until(lambda: shell.state().get("phase") == "running" and shell.state()["run"], "no run began")
    record = shell.home / "runs" / run / "run.json"
    until(record.exists, "the run wrote no record")
    watch.send_signal(signal.SIGKILL)
    watch.wait()
    until(lambda: json.loads(record.read_text())["status"] == "succeeded", "the run did not go on by itself")
    after = shell.once()
    assert (after["phase"], after["run"], after["candidate"]) == ("watching", "", "2")
    assert after["reason"] == "toy:2 passed the gate and waits: fairlead promote toy:2"
    told = [(e.actor, e.action, e.subject) for e in shell.log.read()]
    assert told[0][1:] == ("promote", "toy:1")
    assert told[1:] == [
        ("controller", "start_run", "toy"),
        ("controller", "end_run", "toy"),
        ("controller", "name_candidate", "toy:2"),
    ]
    assert shell.log.read()[1].evidence["triggers"][0]["inputs"] == {"distance": {"drifted": True, "psi": 0.4}}
    assert shell("audit", "verify")["intact"] is True
    registry = Registry(Endpoints(home=str(shell.home)))
    assert (registry.resolve("toy").version, registry.resolve("toy:2").gate_passed) == ("1", True)
    assert registry.fetch("toy:2").document.loop.source == str(source)
    assert [each["run_id"] for each in shell("runs")].count(run) == 1


def test_runs_that_fail_stop_the_loop_and_metrics_say_so(shell: Shell, tmp_path: Path) -> None:
    source, port = tmp_path / "rows.csv", free_port()
    source.write_text("no,such,columns\n1,2,3\n")
    shell.watch("toy", "--set", f"loop.source={source}", "--metrics-port", str(port), *POLICY)

    def stopped() -> bool:
        if shell.state().get("phase") == "watching":
            shell.drifts("distance")
        return bool(shell.state().get("phase") == "stopped")

    until(stopped, "the loop did not stop")
    assert shell.state()["failures"] == 3
    assert [e.action for e in shell.log.read()][-7:] == [*["start_run", "end_run"] * 3, "stop_loop"]
    address = f"http://127.0.0.1:{port}/metrics"

    def counted() -> str:
        text = urllib.request.urlopen(address, timeout=5).read().decode()
        return text if 'fairlead_run_consecutive_failures{task="toy"} 3.0' in text else ""

    text = until(counted, "three failures are not exported")
    for sample in ("run_last_timestamp_seconds{outcome=", "step_duration_seconds{step=", "model_trained_timestamp"):
        assert f"fairlead_{sample}" in text
    shell.watches[-1].send_signal(signal.SIGTERM)
    assert shell.watches[-1].wait(20) == 130
    shell("watch", "approve", "toy", code=1)
    assert shell("watch", "resume", "toy")["said"] == "resume"
    after = shell.once("--set", "loop.on_drift=false")
    assert (after["phase"], after["failures"]) == ("watching", 0)
    assert shell("audit", "verify")["intact"] is True

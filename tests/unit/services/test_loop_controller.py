"""The controller: at most once under crashes at every point, the lease, and what it reads of monitor and Prometheus."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from contracts import storage
from contracts.audit import AuditLog
from contracts.errors import PlatformError
from contracts.lease import Lease
from contracts.loop_policy import LoopPolicy
from services.controller.controller import Controller
from services.controller.observations import Finding, Observations, Report, RunSeen
from services.controller.signals import firing, read_report, report_address
from services.controller.state import States, WatchState
from tests.monitor_log import Log
from tests.s3_folder import FolderClient

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
POLICY = LoopPolicy(cooldown_hours=1)
DIGEST = "ab12" * 16


class Killed(BaseException):
    """The controller is killed."""


class World:
    """A machine on which runs and rollouts start; it is killed at one of its points, before or after an effect."""

    def __init__(self, folder: Path, kill_at: int = -1) -> None:
        self.states, self.log = States(str(folder / "loop")), AuditLog(folder / "audit")
        self.runs: dict[str, str] = {}
        self.starts: list[str] = []
        self.rollouts: list[str] = []
        self.now, self.drifts, self._points, self._kill_at = NOW, True, itertools.count(), kill_at
        self.reached = 0
        self._wrapped(self.states, "write")
        self._wrapped(self.log, "append")

    def _wrapped(self, owner: Any, name: str) -> None:
        call = getattr(owner, name)

        def with_points(*given: Any, **named: Any) -> Any:
            self.point()
            made = call(*given, **named)
            self.point()
            return made

        setattr(owner, name, with_points)

    def point(self) -> None:
        self.reached = next(self._points)
        if self.reached == self._kill_at:
            raise Killed

    def observe(self, policy: LoopPolicy, state: WatchState) -> Observations:
        finding = Finding(kind="drift", what="amount drifts")
        status = self.runs.get(state.run)
        return Observations(
            version="1",
            report=Report(version="1", at=self.now, findings=(finding,) if self.drifts else ()),
            run=RunSeen(status=status, version="2") if status else None,
            can_roll_out=True,
        )

    def start_run(self, policy: LoopPolicy, state: WatchState, run: str) -> None:
        self.point()
        if run not in self.runs:
            self.starts.append(run)
            self.runs[run] = "running"
        self.point()

    def start_rollout(self, policy: LoopPolicy, ref: str, action: str, compared: bool) -> None:
        self.point()
        if action not in self.rollouts:
            self.rollouts.append(action)
        self.point()

    def passes(self) -> Iterator[WatchState]:
        """A run that drift starts, that ends well, and a day without drift; killed passes are made again."""
        for change in (None, "succeeded", None, None):
            for run in self.runs if change else ():
                self.runs[run] = change or ""
            self.drifts = self.drifts and change is None and not self.runs
            yield self.one()
            self.now += timedelta(minutes=1)

    def one(self) -> WatchState:
        while True:
            try:
                return Controller(self.states, self.log, self, lambda: self.now).watch("fraud", "fraud", POLICY)
            except Killed:
                self._kill_at = -1
                self.now += timedelta(seconds=5)


def told(log: AuditLog) -> list[str]:
    return [entry.action for entry in log.read()]


def test_a_run_that_drift_starts_ends_in_a_rollout_and_all_of_it_is_in_the_log(tmp_path: Path) -> None:
    world = World(tmp_path)
    states = list(world.passes())
    assert [each.phase for each in states] == ["running", "watching", "watching", "watching"]
    assert told(world.log) == ["start_run", "end_run", "start_rollout"]
    assert {entry.actor for entry in world.log.read()} == {"controller"}
    assert (states[-1].candidate, states[-1].pending) == ("2", ())


def test_killed_at_any_point_it_goes_on_and_does_everything_once(tmp_path: Path) -> None:
    whole = World(tmp_path / "whole")
    assert len(list(whole.passes())) == 4
    for point in range(whole.reached + 1):
        world = World(tmp_path / str(point), kill_at=point)
        last = list(world.passes())[-1]
        assert (len(world.starts), len(world.rollouts)) == (1, 1), point
        assert told(world.log) == ["start_run", "end_run", "start_rollout"], point
        assert (last.pending, last.candidate, last.count) == ((), "2", 1), point
        assert world.log.verify().intact


def test_a_run_that_cannot_be_started_counts_and_a_store_that_is_away_is_tried_again(tmp_path: Path) -> None:
    world, errors = World(tmp_path), iter(["storage_unreachable", "bad_source"])

    def refuse(policy: LoopPolicy, state: WatchState, run: str) -> None:
        raise PlatformError("no", code=next(errors))

    world.start_run = refuse
    with pytest.raises(PlatformError):
        world.one()
    before = world.states.read("fraud")
    assert before is not None
    assert len(before.pending) == 1
    after = world.one()
    assert (after.run, after.failures, after.pending) == ("", 1, ())
    assert told(world.log) == ["start_run", "end_run"]


def test_a_state_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    states = States(str(tmp_path))
    assert states.read("fraud") is None
    storage.write_bytes(str(tmp_path / "fraud" / "state.json"), b"{half")
    with pytest.raises(PlatformError, match="the state of fraud cannot be read"):
        states.read("fraud")


def clock(*moments: datetime) -> Callable[[], datetime]:
    return itertools.chain(moments, itertools.repeat(moments[-1])).__next__


def test_one_holds_the_lease_until_it_gives_it_back(tmp_path: Path) -> None:
    first, second = Lease(str(tmp_path), 60), Lease(str(tmp_path), 60)
    assert [first.take(), second.take(), first.take()] == [True, False, True]
    assert second.holder == first.holder
    first.release()
    assert [second.take(), first.take()] == [True, False]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_lease_and_states_may_be_in_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = FolderClient(tmp_path)
    (tmp_path / "lake").mkdir()
    monkeypatch.setattr(storage, "_client", lambda: client)
    first, second = Lease("s3://lake/.loop/lease", 60), Lease("s3://lake/.loop/lease", 60)
    assert [first.take(), second.take(), first.take()] == [True, False, True]
    first.release()
    assert second.take()
    states = States("s3://lake/.loop")
    assert (states.read("fraud"), states.said("fraud", "approve")) == (None, None)
    states.write(WatchState(model="fraud", task="fraud", since=NOW, run="fraud-1"))
    states.say("fraud", "approve", NOW)
    assert states.read("fraud") == WatchState(model="fraud", task="fraud", since=NOW, run="fraud-1")
    assert states.said("fraud", "approve") == NOW


def test_a_lease_that_was_not_renewed_is_taken(tmp_path: Path) -> None:
    assert Lease(str(tmp_path), 60, lambda: NOW).take()
    assert not Lease(str(tmp_path), 60, lambda: NOW + timedelta(seconds=59)).take()
    assert Lease(str(tmp_path), 60, lambda: NOW + timedelta(seconds=60)).take()


def test_the_lease_of_a_process_that_is_gone_is_taken_at_once(tmp_path: Path) -> None:
    code = "import sys; from contracts.lease import Lease; print(Lease(sys.argv[1], 600).take())"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
    assert Lease(str(tmp_path), 60).take()


def test_of_many_that_want_it_at_once_one_gets_it(tmp_path: Path) -> None:
    for round_ in range(10):
        wanting = [Lease(str(tmp_path / str(round_)), 60) for _ in range(6)]
        barrier = threading.Barrier(6)
        with ThreadPoolExecutor(6) as threads:
            got = list(threads.map(lambda lease: (barrier.wait(), lease.take())[1], wanting))  # noqa: B023
        assert sum(got) == 1


def report(folder: Path, document: Any) -> str:
    storage.write_bytes(report_address(str(folder), "fraud"), json.dumps(document).encode())
    return str(folder)


def test_the_monitors_report_says_what_drifts_and_what_dropped(tmp_path: Path) -> None:
    amount = {"drifted": True, "psi": 0.4, "now": [0.1, 0.9]}
    quality = [{"metric": "auc", "slice": "night", "dropped": True, "low": 0.6}, {"metric": "auc", "dropped": False}]
    one = {"inputs": {"amount": amount, "hour": {"drifted": False}}, "quality": quality}
    log = report(tmp_path, {"model": "fraud", "time": NOW.isoformat(), "versions": {"1": {}, "2": one}})
    found = read_report(log, "fraud", "2", DIGEST)
    assert found is not None
    assert (found.version, found.at) == ("2", NOW)
    assert [(one.kind, one.what) for one in found.findings] == [
        ("drift", "amount drifts"),
        ("quality", "auc of night dropped"),
    ]
    assert found.findings[0].evidence == {"inputs": {"amount": {"drifted": True, "psi": 0.4}}}
    other = read_report(log, "fraud", "3", DIGEST)
    assert other is not None
    assert other.version == "2"
    assert read_report(str(tmp_path), "news", "1", DIGEST) is None


def test_a_version_that_is_served_by_another_name_is_known_by_its_bundle(tmp_path: Path) -> None:
    served = {"digest": DIGEST[:12], "inputs": {"amount": {"drifted": True}}}
    versions = {"demo": served, "later": {"digest": "cd" * 6, "inputs": {}}}
    log = report(tmp_path, {"model": "fraud", "time": NOW.isoformat(), "versions": versions})
    found = read_report(log, "fraud", "1", DIGEST)
    assert found is not None
    assert (found.version, [one.what for one in found.findings]) == ("1", ["amount drifts"])
    other = read_report(log, "fraud", "1", "ef" * 32)
    assert other is not None
    assert (other.version, other.findings) == ("later", ())


def test_what_the_monitor_itself_writes_of_a_drift_is_read(tmp_path: Path) -> None:
    log = Log(tmp_path)
    monitor = log.monitor()
    log.write(60)
    log.look(monitor)
    quiet = read_report(str(log.folder), "m", "1", DIGEST)
    assert quiet is not None
    assert quiet.findings == ()
    log.write(50, shift=0.5)
    log.look(monitor)
    found = read_report(str(log.folder), "m", "1", DIGEST)
    assert found is not None
    assert (found.version, found.at) == ("1", log.at.replace(microsecond=0))
    assert [one.what for one in found.findings] == ["size drifts"]
    assert found.findings[0].evidence["inputs"]["size"]["psi"] > 0.1


@pytest.mark.parametrize(
    "document", [[], {}, {"time": "soon", "versions": {}}, {"time": 1, "versions": {"1": {"inputs": 3}}}]
)
def test_a_report_of_another_form_is_named(tmp_path: Path, document: Any) -> None:
    with pytest.raises(PlatformError, match="the monitor's report of fraud cannot be read"):
        read_report(report(tmp_path, document), "fraud", "1", DIGEST)


@contextmanager
def prometheus(answer: bytes) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def alert(name: str, state: str = "firing", **labels: str) -> dict[str, Any]:
    return {"labels": {"alertname": name, "model": "fraud", **labels}, "state": state, "activeAt": NOW.isoformat()}


def test_alerts_that_fire_for_the_model_are_findings() -> None:
    alerts = [
        alert("FairleadDrift", input="amount"),
        alert("FairleadQualityDropped", state="pending"),
        alert("FairleadDrift", model="news"),
        alert("FairleadTargetDown"),
    ]
    with prometheus(json.dumps({"data": {"alerts": alerts}}).encode()) as address:
        found = firing(address, "fraud")
    assert [(one.kind, one.what) for one in found] == [("drift", "alert FairleadDrift of amount")]


@pytest.mark.parametrize("answer", [b"<html>", b'{"data": {}}', b'{"data": {"alerts": [{}]}}'])
def test_a_prometheus_that_does_not_say_what_fires_is_an_error(answer: bytes) -> None:
    with prometheus(answer) as address, pytest.raises(PlatformError) as err:
        firing(address, "fraud")
    assert err.value.code == "no_prometheus"
    with pytest.raises(PlatformError, match="Prometheus does not say"):
        firing("http://127.0.0.1:1", "fraud")

"""Rollouts with the real router: who stays, who goes, and what clients see of it."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from contracts.bundle import Signature
from contracts.ports import free_port
from contracts.rollout_policy import Limit, RolloutPolicy
from deploy.cli.machine.kept_processes import KeptProcess
from deploy.cli.serving.fleet import LocalFleet, Notes
from deploy.cli.serving.router import envoy_program
from services.rollout.app import discovery_app
from services.rollout.bootstrap import bootstrap, rest_source
from services.rollout.envoy import Address, Routing
from services.rollout.keeper import Keeper
from services.rollout.labels import LabelWatch
from services.rollout.observation import Labelled
from services.rollout.state import new_rollout
from services.rollout.store import Request, Store
from tests.rollout_stand_in import LOOK, MODEL, Labels, keeper_of

pytestmark = pytest.mark.integration

POLICY = RolloutPolicy.model_validate(
    {
        "weights": (30, 60, 100),
        "step_samples": 15,
        "step_seconds": 0.5,
        "warm_seconds": 0.5,
        "errors": {"tolerated": 0, "margin": 0.2},
        "refusals": {"tolerated": 0.1, "margin": 0.3},
        "latency": {"tolerated": 0.3, "margin": 0.6},
        "answers": {"tolerated": 0.2, "margin": 0.5},
        "flags": {"tolerated": 0.1, "margin": 0.3},
    }
)


class Traffic:
    """Clients that ask without a pause; `seen` counts status and version, a broken connection is the status 0."""

    def __init__(self, port: int, clients: int = 2) -> None:
        self.seen: Counter[tuple[int, str]] = Counter()
        self._port, self._ended = port, threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        while not self._ended.wait(0.008):
            try:
                connection.request("POST", "/predict", b"{}", {"content-type": "application/json"})
                answer = connection.getresponse()
                self.seen[answer.status, answer.read().decode()] += 1
            except (OSError, http.client.HTTPException):
                self.seen[0, ""] += 1
                connection.close()

    def stop(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    @property
    def answered(self) -> int:
        return self.seen.total() - self.failed.total()

    @property
    def failed(self) -> Counter[tuple[int, str]]:
        return Counter({key: count for key, count in self.seen.items() if key[0] != 200})


@contextlib.contextmanager
def served(
    folder: Path, policy: RolloutPolicy = POLICY, labels: Labels = dict, log: str = "", **candidate: Any
) -> Iterator[tuple[Keeper, LocalFleet, Traffic]]:
    """Version 1 with traffic, and version 2 asked for; with a `log` both keep their answers and labels there."""
    usual = {"seconds": 0.002, "log": log}
    for version, behaviour in (("1", usual), ("2", usual | candidate)):
        (folder / "bundles" / version).mkdir(parents=True)
        (folder / "bundles" / version / "bundle.json").write_text(json.dumps(behaviour))
    port = free_port()
    keeper, fleet = keeper_of(folder, port, [], labels)
    traffic = None
    try:
        until(lambda: keeper.tick(time.time()) or (fleet.router.seen() or {}).get("1", (False, 0))[0])
        traffic = Traffic(port)
        request = Request(id="r1", command="start", actor="test", candidate="2", policy=policy)
        Store(folder / "state").ask(MODEL, request)
        yield keeper, fleet, traffic
    finally:
        if traffic is not None:
            traffic.stop()
        fleet.stop()


def until(done: Callable[[], Any], patience: float = 60.0) -> None:
    end = time.monotonic() + patience
    while not done():
        assert time.monotonic() < end
        time.sleep(LOOK)


def phase_of(keeper: Keeper) -> str:
    keeper.tick(time.time())
    return keeper.served.rollout.phase if keeper.served.rollout else ""


def test_a_good_version_gets_all_traffic_and_the_old_one_ends(tmp_path: Path) -> None:
    with served(tmp_path) as (keeper, fleet, traffic):
        until(lambda: phase_of(keeper) == "promoted")
        until(lambda: keeper.tick(time.time()) or fleet.running == ["2"])
        assert keeper.served.version == "2"
        assert not traffic.failed
        assert traffic.seen[200, "2"] > 30


STRICT = POLICY.model_copy(update={"errors": Limit(tolerated=0, margin=0.02), "warm_seconds": 30})


@pytest.mark.parametrize(
    ("behaviour", "criterion"),
    [({"errors": 0.02}, "errors"), ({"seconds": 0.06}, "latency"), ({"shifted": 0.5}, "answers")],
    ids=["erroring in 2 %", "slow", "shifted"],
)
def test_a_bad_version_is_rolled_back_and_costs_only_its_own_errors(
    tmp_path: Path, behaviour: dict[str, Any], criterion: str
) -> None:
    with served(tmp_path, STRICT, **behaviour) as (keeper, _, traffic):
        until(lambda: phase_of(keeper) in ("rolled_back", "promoted"))
        assert keeper.served.rollout is not None
        assert keeper.served.rollout.phase == "rolled_back"
        assert keeper.served.rollout.reasons[0].startswith(criterion)
        assert keeper.served.version == "1"
        assert set(traffic.failed) <= {(500, "2")}


def test_a_version_that_its_labels_say_is_worse_goes_although_nothing_else_tells_it_apart(tmp_path: Path) -> None:
    rollout = new_rollout("r", MODEL, "1", "2", "canary", STRICT, time.time())
    signature = Signature.model_validate(
        {"inputs": [], "output": {"problem": "classification", "classes": ["no", "yes"]}}
    )
    watch = LabelWatch(str(tmp_path / "log"), MODEL, signature, lambda: rollout)

    def labels() -> Mapping[str, Labelled]:
        watch.look()
        return watch.counts

    with served(tmp_path, STRICT, labels, str(tmp_path / "log"), wrong=0.15) as (keeper, _, traffic):
        until(lambda: phase_of(keeper) in ("rolled_back", "promoted"))
        assert keeper.served.rollout is not None
        assert keeper.served.rollout.phase == "rolled_back"
        assert keeper.served.rollout.reasons[0].startswith(("quality", "misses"))
        assert not traffic.failed


def test_a_version_that_dies_is_rolled_back_and_costs_at_most_what_it_was_answering(tmp_path: Path) -> None:
    with served(tmp_path) as (keeper, fleet, traffic):
        until(lambda: phase_of(keeper) == "running")
        notes = Notes.model_validate_json((tmp_path / "processes.json").read_bytes())
        os.killpg(notes.versions["2"].pid, signal.SIGKILL)
        until(lambda: phase_of(keeper) == "rolled_back")
        until(lambda: keeper.tick(time.time()) or fleet.running == ["1"])
        assert traffic.failed.total() <= 2  # one of each client


@pytest.mark.parametrize("stage", ["starting", "running", "settling"])
def test_killed_keeper_and_router_change_nothing_about_the_end(tmp_path: Path, stage: str) -> None:
    with served(tmp_path, POLICY.model_copy(update={"warm_seconds": 2})) as (_, fleet, traffic):
        command = [sys.executable, str(Path(__file__).parents[1] / "rollout_stand_in.py"), "keep", str(tmp_path)]
        store, port = Store(tmp_path / "state"), str(traffic._port)

        def phase() -> str:
            state = store.read(MODEL)
            return state.rollout.phase if state and state.rollout else ""

        first = subprocess.Popen([*command, port])
        try:
            until(lambda: phase() == stage)
        finally:
            first.kill()
            first.wait()
        notes = Notes.model_validate_json((tmp_path / "processes.json").read_bytes())
        before = traffic.answered
        time.sleep(0.3)
        assert traffic.answered > before  # nobody looks after the router, and it goes on
        assert notes.router is not None
        router = KeptProcess(notes.router.pid, notes.router.started)
        router.end(now=True)
        second, again = keeper_of(tmp_path, int(port), [])
        fleet._envoy, fleet._members = None, {}  # they are the second one's now
        try:
            until(lambda: phase_of(second) == "promoted")
            assert again.running[-1] == "2"
            assert second.served.outcomes == {"promoted": 1}
            assert {status for status, _ in traffic.failed} <= {0}  # only while there was no router
        finally:
            traffic.stop()
            again.stop()


def test_the_router_asks_for_its_configuration_over_rest(tmp_path: Path) -> None:
    for version in ("1", "2"):
        (tmp_path / "bundles" / version).mkdir(parents=True)
        (tmp_path / "bundles" / version / "bundle.json").write_text("{}")
    from tests.rollout_stand_in import StandIn

    members = {version: StandIn(tmp_path, version, free_port()) for version in ("1", "2")}
    versions = {version: Address("127.0.0.1", one.port) for version, one in members.items()}
    now = Routing(versions=versions, champion="1")
    server = uvicorn.Server(uvicorn.Config(discovery_app(lambda: now), port=free_port(), log_level="critical"))
    threading.Thread(target=server.run, daemon=True).start()
    port, admin = free_port(), Address("127.0.0.1", free_port())
    source = rest_source(Address("127.0.0.1", server.config.port), refresh="0.2s")
    document = bootstrap([Address("127.0.0.1", port)], admin, source)
    (tmp_path / "bootstrap.json").write_text(json.dumps(document))
    command = [envoy_program(), "-c", str(tmp_path / "bootstrap.json"), "--concurrency", "1", "--disable-hot-restart"]
    router = subprocess.Popen([*command, "--log-level", "error"])
    traffic, wanted = None, [0]
    try:
        for one in members.values():
            one.start()
        until(lambda: members["1"].url and _answers(port))
        traffic, stays = Traffic(port), set[str]()
        for weight in (30, 70):
            now = Routing(versions=versions, champion="1", candidate="2", weight=weight)
            # All of the entities of the step before are there, and more: they stay where they are while weights rise.
            until(functools.partial(_has_more_entities, port, "2", len(stays)))
            wanted.append(traffic.seen[200, "2"] + 20)
            until(lambda: traffic is not None and traffic.seen[200, "2"] > wanted[-1])
            found = _entities_on(port, "2")
            assert stays < found == _entities_on(port, "2")
            stays = found
        assert len(stays) < 40
        assert not traffic.failed
    finally:
        if traffic is not None:
            traffic.stop()
        router.terminate()
        router.wait()
        server.should_exit = True
        for one in members.values():
            one.stop()


def _entities_on(port: int, version: str) -> set[str]:
    """Which of 40 entities a version answers."""
    found = set()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    for key in (f"customer-{number}" for number in range(40)):
        connection.request("POST", "/predict", b"{}", {"content-type": "application/json", "x-entity-key": key})
        if connection.getresponse().read().decode() == version:
            found.add(key)
    return found


def _has_more_entities(port: int, version: str, than: int) -> bool:
    return len(_entities_on(port, version)) > than


def _answers(port: int) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False

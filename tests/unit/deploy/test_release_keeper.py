"""The keeper of a release over HTTP, as the command line and the loop ask it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from contracts.errors import PlatformError
from contracts.ports import free_port
from contracts.rollout_policy import RolloutPolicy
from deploy.cli.cluster.kube import Kube
from deploy.cli.cluster.pod_diagnosis import Trouble
from deploy.cli.releases.by_rollout import bring, previous_version
from deploy.cli.releases.keeper import ReleaseKeeper
from services.rollout.app import control_app
from services.rollout.config_map_store import ConfigMapStore
from services.rollout.keeper import Keeper
from services.rollout.observation import Counts, Observation, Seen
from services.rollout.store import Place, Request, Served
from tests.kubernetes_stand_in import KubernetesStandIn


class Paper:
    """A fleet whose candidate is ready, or never."""

    ready = True

    def observe(self, champion: str, candidate: str) -> Observation:
        good = Seen(ready=True, counts=Counts(requests=1))
        return Observation(champion=good, candidate=good if self.ready else Seen(ready=False, note="no pod"))

    def arrange(self, *arranged: object) -> None: ...

    def promote(self, version: str, reason: str) -> None: ...

    def withdraw(self, version: str, champion: str) -> None: ...


@pytest.fixture
def fleet() -> Paper:
    return Paper()


@pytest.fixture
def keeper(fleet: Paper) -> Iterator[ReleaseKeeper]:
    """A keeper that looks a hundred times a second."""
    store = ConfigMapStore(KubernetesStandIn("toy"), "toy-rollouts")
    store.read()
    made = Keeper(store, fleet, lambda rollout, transition: None, Served(model="toy", version="1"))
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.01):
            made.tick(time.time())

    app = control_app(
        lambda: made.served, lambda request: store.ask(request, lambda: made.served), lambda: True, lambda: True
    )
    server = uvicorn.Server(uvicorn.Config(app, port=free_port(), log_level="critical", lifespan="off"))
    threads = [threading.Thread(target=one, daemon=True) for one in (look, server.run)]
    for thread in threads:
        thread.start()
    yield ReleaseKeeper(f"http://127.0.0.1:{server.config.port}", "toy")
    ended.set()
    server.should_exit = True
    for thread in threads:
        thread.join()


def request(identifier: str, strategy: str = "direct") -> Request:
    place = Place(source="s3://models/2", digest="2f")
    told = {"id": identifier, "command": "start", "actor": "user:me", "candidate": "2", "strategy": strategy}
    return Request.model_validate({**told, "place": place})


def test_what_is_asked_twice_is_done_once_and_a_second_rollout_is_refused(keeper: ReleaseKeeper, fleet: Paper) -> None:
    fleet.ready = False
    first = keeper.ask(request("r1", "canary"))
    assert first.rollout is not None
    again = keeper.ask(request("r1", "canary")).rollout
    assert again is not None
    assert again.transitions == first.rollout.transitions
    with pytest.raises(PlatformError) as refused:
        keeper.ask(request("r2"))
    assert refused.value.code == "rollout_in_progress"
    assert "toy:2, starting" in refused.value.headline


def test_a_version_is_brought_once_it_has_all_traffic_and_the_one_before_is_known(
    keeper: ReleaseKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.cli.releases.by_rollout.pod_troubles", lambda kube, selector: [])
    quick = request("r1").model_copy(update={"policy": RolloutPolicy(warm_seconds=0)})
    served = bring(Kube("spaces"), "toy", keeper, quick, 20)
    while served.version != "2":
        served = keeper.read()
    assert previous_version("cluster", served) == "1"


def test_a_version_that_is_not_ready_in_time_is_ended_with_what_its_pods_said(
    keeper: ReleaseKeeper, fleet: Paper, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = Trouble(what="pod/toy-b", state="Error", cause="its golden examples fail", fix="train again", said="no")
    monkeypatch.setattr("deploy.cli.releases.by_rollout.pod_troubles", lambda kube, selector: [said])
    fleet.ready = False
    with pytest.raises(PlatformError, match="golden examples fail") as refused:
        bring(Kube("spaces"), "toy", keeper, request("r1"), 0)
    assert refused.value.fix == "train again"
    ended = keeper.read().rollout
    assert ended is not None
    assert (ended.phase, ended.reasons) == ("aborted", ("not ready within 0 s",))
    with pytest.raises(PlatformError) as refused:
        previous_version("cluster", keeper.read())
    assert refused.value.code == "no_history"


def test_what_is_no_request_is_refused(keeper: ReleaseKeeper) -> None:
    with pytest.raises(PlatformError, match="not a request"):
        keeper.ask(request("r1").model_copy(update={"command": "dance"}))


def test_a_keeper_that_is_gone_is_named() -> None:
    with pytest.raises(PlatformError) as refused:
        ReleaseKeeper(f"http://127.0.0.1:{free_port()}", "toy").read(patience=0.0)
    assert refused.value.code == "not_answered"

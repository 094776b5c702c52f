"""The state of a keeper in a ConfigMap: what must not be lost is written at once, and of two keepers one stops."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from contracts.errors import PlatformError
from contracts.rollout_policy import RolloutPolicy
from services.rollout.config_map_store import KEY, ConfigMapStore
from services.rollout.keeper import Keeper
from services.rollout.observation import Counts, Observation, Seen
from services.rollout.state import new_rollout
from services.rollout.store import Place, Request, Served
from tests.kubernetes_stand_in import KubernetesStandIn

FIRST = Served(model="toy", version="1", places={"1": Place(source="s3://models/1", digest="1f")})
NAME = "toy-rollouts"


@pytest.fixture
def kubernetes() -> KubernetesStandIn:
    return KubernetesStandIn("toy")


def test_what_is_served_can_be_read_by_others_and_by_the_next_keeper(kubernetes: KubernetesStandIn) -> None:
    store = ConfigMapStore(kubernetes, NAME)
    assert store.read() is None
    store.write(FIRST)
    data = kubernetes.objects["configmaps", NAME]["data"]
    assert {key: data[key] for key in ("version", "source", "digest")} == {
        "version": "1", "source": "s3://models/1", "digest": "1f",
    }  # fmt: skip
    assert ConfigMapStore(kubernetes, NAME).read() == FIRST


def test_counters_are_written_now_and_then_and_what_follows_from_them_at_once(kubernetes: KubernetesStandIn) -> None:
    now = 100.0
    store = ConfigMapStore(kubernetes, NAME, lambda: now)
    store.read()
    rollout = new_rollout("r", "toy", "1", "2", "canary", RolloutPolicy(), 0.0)
    state = FIRST.model_copy(update={"rollout": rollout})
    store.write(state)
    for second in range(9):
        now = 100.0 + second
        store.write(state.model_copy(update={"looked": now}))
    assert len(kubernetes.patches) == 1
    now = 111.0
    store.write(state.model_copy(update={"looked": now}))
    assert len(kubernetes.patches) == 2
    for change in ({"phase": "running"}, {"step": 1}, {"paused": True}, {"recorded": 1}):
        rollout = rollout.model_copy(update=change)
        store.write(state.model_copy(update={"rollout": rollout}))
    assert len(kubernetes.patches) == 6


def test_a_keeper_that_another_one_overtook_stops(kubernetes: KubernetesStandIn) -> None:
    one, two = ConfigMapStore(kubernetes, NAME), ConfigMapStore(kubernetes, NAME)
    one.read()
    two.read()
    two.write(FIRST)
    with pytest.raises(PlatformError) as refused:
        one.write(FIRST)
    assert refused.value.code == "conflict"


def test_a_damaged_state_is_named_with_its_key(kubernetes: KubernetesStandIn) -> None:
    kubernetes.patch("configmaps", NAME, {"data": {KEY: "{"}})
    with pytest.raises(PlatformError, match=f"{NAME}, key {KEY}") as refused:
        ConfigMapStore(kubernetes, NAME).read()
    assert refused.value.code == "bad_rollout"


class Paper:
    """A fleet that does nothing."""

    def observe(self, champion: str, candidate: str) -> Observation:
        return Observation(champion=Seen(ready=True, counts=Counts()), candidate=Seen(ready=False))

    def arrange(self, *arranged: Any) -> None: ...

    def promote(self, version: str, reason: str) -> None: ...

    def withdraw(self, version: str, champion: str) -> None: ...


def test_a_request_waits_for_its_answer_and_is_done_once(kubernetes: KubernetesStandIn) -> None:
    store = ConfigMapStore(kubernetes, NAME)
    store.read()
    keeper = Keeper(store, Paper(), lambda rollout, transition: None, FIRST)
    place = Place(source="s3://models/2", digest="2f")
    begin = Request(id="r1", command="start", actor="user:me", candidate="2", place=place)

    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.01):
            keeper.tick(1.0)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        served = store.ask(begin, lambda: keeper.served)
        assert served.rollout is not None
        assert served.places["2"] == place
        assert store.ask(begin, lambda: keeper.served).rollout == served.rollout
        with pytest.raises(PlatformError) as refused:
            store.ask(begin.model_copy(update={"id": "r2"}), lambda: keeper.served)
    finally:
        ended.set()
        thread.join()
    assert refused.value.code == "rollout_in_progress"
    assert "toy:2, starting" in refused.value.headline

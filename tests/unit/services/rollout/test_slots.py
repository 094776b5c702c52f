"""Two slots: who gets which, when the other one may go, and that nothing is changed that is as it should be."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.rollout.slots import Slots
from services.rollout.store import Place
from tests.kubernetes_stand_in import KubernetesStandIn

PLACES = {version: Place(source=f"s3://models/{version}", digest=version * 8) for version in "12345"}


class Release:
    """The slots of a release, on a clock that moves when it is told to."""

    def __init__(self, replicas: int = 1, autoscaling: bool = False) -> None:
        self.kubernetes, self.now = KubernetesStandIn("toy"), 0.0
        self._told = (("toy-a", "toy-b"), replicas, autoscaling, lambda: self.now)
        self.slots = Slots(self.kubernetes, *self._told)

    def again(self) -> None:
        """Another keeper goes on."""
        self.slots = Slots(self.kubernetes, *self._told)

    def arrange(self, champion: str, candidate: str = "", looks: int = 1) -> None:
        for _ in range(looks):
            self.now += 1
            self.slots.arrange(PLACES, champion, candidate)

    def state(self) -> dict[str, tuple[str, int]]:
        return {name: (self.kubernetes.held(name), self.kubernetes.replicas(name)) for name in ("toy-a", "toy-b")}


@pytest.fixture
def release() -> Release:
    made = Release()
    made.arrange("1")
    return made


def test_the_first_version_gets_the_first_slot_and_the_empty_one_no_pods(release: Release) -> None:
    assert release.state() == {"toy-a": ("1", 1), "toy-b": ("", 0)}
    assert release.kubernetes.objects["configmaps", "toy-a"]["data"] == {
        "source": "s3://models/1", "digest": "11111111", "version": "1",
    }  # fmt: skip


def test_a_candidate_gets_the_other_slot_and_the_champion_stays(release: Release) -> None:
    release.arrange("1", "2", looks=2)
    assert release.state() == {"toy-a": ("1", 1), "toy-b": ("2", 1)}
    release.arrange("2", looks=2)
    assert release.state()["toy-a"] == ("1", 1), "routers may still send to it"
    assert release.slots.leaving == {"1": "toy-a"}
    release.arrange("2", looks=6)
    assert release.state() == {"toy-a": ("1", 0), "toy-b": ("2", 1)}
    assert release.slots.leaving == {}


def test_a_slot_is_given_away_once_its_pods_are_gone(release: Release) -> None:
    release.arrange("1", "2", looks=2)
    release.arrange("1", "3")
    assert release.slots.slot("3") == ""
    assert release.kubernetes.held("toy-b") == "2"
    release.arrange("1", "3", looks=9)
    assert release.state() == {"toy-a": ("1", 1), "toy-b": ("3", 1)}


def test_nothing_is_changed_when_all_is_as_it_should_be_and_another_keeper_finds_it_so(release: Release) -> None:
    release.arrange("1", "2", looks=3)
    before = list(release.kubernetes.patches)
    release.again()
    release.arrange("1", "2", looks=5)
    assert release.kubernetes.patches == before


def test_a_number_that_somebody_else_changed_is_set_again_and_an_autoscalers_is_not() -> None:
    for autoscaling, replicas in ((False, 2), (True, 5)):
        made = Release(2, autoscaling)
        made.arrange("1", looks=2)
        made.kubernetes.objects["deployments", "toy-a"]["spec"]["replicas"] = 5
        made.arrange("1", looks=3)
        assert made.kubernetes.replicas("toy-a") == replicas
        made.arrange("1", "2", looks=3)
        assert made.kubernetes.replicas("toy-b") == replicas, "as many as carry the champion's traffic"


def test_a_version_whose_bundle_nobody_named_gets_no_slot(release: Release) -> None:
    release.slots.arrange({}, "1", "9")
    assert release.slots.slot("9") == ""


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("12345"), st.sampled_from("12345"), st.integers(1, 9), st.booleans())))
def test_whatever_is_wanted_a_slot_with_pods_keeps_its_bundle(steps: list[tuple[str, str, int, bool]]) -> None:
    made = Release()
    made.arrange("1", looks=3)
    for champion, candidate, looks, restarts in steps:
        if restarts:
            made.again()
        for _ in range(looks):
            before = made.state()
            there = {name: made.slots.pods[name].there for name in before}
            made.arrange(champion, "" if candidate == champion else candidate)
            for name, (held, replicas) in made.state().items():
                if held != before[name][0] and before[name][0]:
                    assert there[name] == 0 or before[name][1] == 0
                assert replicas in (0, 1)
    made.arrange("1", "2", looks=20)
    assert sorted(made.state().values()) == [("1", 1), ("2", 1)]

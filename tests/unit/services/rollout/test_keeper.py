"""Who looks after a model: what is asked is done once, what is decided is made so, wherever it was interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from contracts.errors import PlatformError
from contracts.rollout_policy import RolloutPolicy
from services.rollout.keeper import Keeper
from services.rollout.observation import Counts, Observation, Seen
from services.rollout.store import Request, Served, Store

QUICK = RolloutPolicy.model_validate(
    {
        "weights": (50, 100),
        "step_samples": 1,
        "step_seconds": 0,
        "warm_seconds": 1,
        "errors": {"tolerated": 0, "margin": 0.2},
    }
)


class CrashError(Exception):
    """The process is gone."""


class Versions:
    """A fleet on paper: what was arranged and promoted, and counters that grow with each look."""

    def __init__(self) -> None:
        self.arranged: list[tuple[Any, ...]] = []
        self.promoted: list[str] = []
        self.withdrawn: list[tuple[str, str]] = []
        self.looks = 0
        self.crashes = False

    def observe(self, champion: str, candidate: str) -> Observation:
        self.looks += 1
        seen = Seen(ready=True, counts=Counts(requests=100.0 * self.looks))
        return Observation(champion=seen, candidate=seen)

    def arrange(self, *arranged: Any) -> None:
        self.arranged.append(arranged)

    def promote(self, version: str, reason: str) -> None:
        if self.crashes:
            raise CrashError
        self.promoted.append(version)

    def withdraw(self, version: str, champion: str) -> None:
        if self.crashes:
            raise CrashError
        self.withdrawn.append((version, champion))


class Place:
    """The state of one model in a folder, and who looks after it, who may be started again."""

    def __init__(self, folder: Path) -> None:
        self.store, self.fleet, self.noted = Store(folder), Versions(), []
        self.now = 100.0
        self.start()

    def start(self) -> None:
        served = self.store.read("model") or Served(model="model", version="1")
        self.keeper = Keeper(self.store, self.fleet, self._note, served)

    def _note(self, rollout: Any, transition: Any) -> None:
        self.noted.append((rollout.id, transition.number, transition.action))

    def ask(self, identifier: str, command: Any = "start", candidate: str = "2") -> Any:
        """The answer to a request."""
        self.store.ask(
            "model", Request(id=identifier, command=command, actor="user:me", candidate=candidate, policy=QUICK)
        )
        self.tick()
        return self.keeper.served.answers[identifier]

    def tick(self, times: int = 1) -> None:
        for _ in range(times):
            self.now += 1
            self.keeper.tick(self.now)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_version_is_started_routed_promoted_and_noted_once(place: Place) -> None:
    assert place.ask("a") is None
    place.tick(8)
    assert place.keeper.served.version == "2"
    assert place.fleet.promoted == ["2"]
    assert place.fleet.arranged[0] == ("1", "2", 50, False, False)
    assert place.fleet.arranged[-1] == ("2", "", 0, False)
    assert [action for _, _, action in place.noted] == ["start canary", "step", "all traffic", "promote"]
    assert place.keeper.served.outcomes == {"promoted": 1}


def test_a_second_rollout_is_refused_with_the_one_that_is_under_way(place: Place) -> None:
    place.ask("a")
    error = place.ask("b", candidate="3")
    assert error["code"] == "rollout_in_progress"
    assert "model:2" in error["headline"]
    assert place.keeper.served.rollout is not None
    assert place.keeper.served.rollout.candidate == "2"


def test_what_has_all_traffic_already_and_what_is_not_under_way_are_refused(place: Place) -> None:
    assert place.ask("a", candidate="1")["code"] == "bad_rollout"
    assert place.ask("b", command="abort")["code"] == "no_rollout"


def test_an_abort_gives_the_champion_everything(place: Place) -> None:
    place.ask("a")
    assert place.ask("b", command="abort") is None
    assert place.fleet.arranged[-1] == ("1", "", 0, False)
    assert (place.keeper.served.version, place.keeper.served.outcomes) == ("1", {"aborted": 1})


def test_a_refused_version_is_the_champion_of_nobody_and_that_is_seen_to_once(place: Place) -> None:
    place.ask("a")
    place.fleet.crashes = True
    with pytest.raises(CrashError):
        place.ask("b", command="abort")
    place.fleet.crashes = False
    place.start()
    place.tick(3)
    assert place.fleet.withdrawn == [("2", "1")]
    assert len(set(place.noted)) == len(place.noted)
    place.ask("c", candidate="3")
    place.tick(8)
    assert (place.fleet.promoted, place.fleet.withdrawn) == (["3"], [("2", "1")])


def test_a_request_that_was_answered_before_a_crash_is_not_done_again(place: Place, tmp_path: Path) -> None:
    place.ask("a")
    place.ask("b", command="abort")
    place.store.ask("model", Request(id="a", command="start", actor="user:me", candidate="2", policy=QUICK))
    place.start()
    place.tick()
    assert place.keeper.served.rollout is not None
    assert place.keeper.served.rollout.phase == "aborted"
    assert list((tmp_path / "model.requests").iterdir()) == []


def test_a_crash_in_the_middle_of_a_promotion_is_made_good(place: Place) -> None:
    place.ask("a")
    place.fleet.crashes = True
    with pytest.raises(CrashError):
        place.tick(8)
    before = place.store.read("model")
    assert before is not None
    assert (before.version, before.outcomes) == ("1", {"promoted": 1})
    place.fleet.crashes = False
    place.start()
    place.tick(2)
    assert (place.fleet.promoted, place.keeper.served.version) == (["2"], "2")
    assert len(set(place.noted)) == len(place.noted)


def test_a_damaged_state_is_named(place: Place, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(PlatformError, match=r"model\.json") as caught:
        place.start()
    assert caught.value.code == "bad_rollout"

"""Rollouts from the command line: what is refused, asked and shown."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from contracts.rollout_policy import RolloutPolicy
from deploy.cli.rollouts.asking import how_it_ended, is_served, under_way
from services.rollout.keeper import Keeper
from services.rollout.observation import Observation, Seen
from services.rollout.state import Transition, new_rollout
from services.rollout.store import Served, Store


class Still:
    """A fleet in which nothing happens."""

    def observe(self, champion: str, candidate: str) -> Observation:
        return Observation(champion=Seen(ready=True), candidate=Seen(ready=True))

    def arrange(self, *arranged: Any) -> None:
        """Nothing runs."""

    def promote(self, version: str, reason: str) -> None:
        """There is no registry."""

    def withdraw(self, version: str, champion: str) -> None:
        """Nothing to do on paper."""


@pytest.fixture
def served(home: Path) -> Iterator[Served]:
    """fraud:3 with a rollout of fraud:4, looked after by a thread."""
    now = time.time()
    rollout = new_rollout("r", "fraud", "3", "4", "canary", RolloutPolicy(), now)
    state = Served(model="fraud", version="3", looked=now, rollout=rollout, url="http://127.0.0.1:3000")
    store, over = Store(home / "rollouts"), threading.Event()
    store.write(state)
    keeper = Keeper(store, Still(), lambda rollout, transition: None, state)

    def look() -> None:
        while not over.wait(0.05):
            keeper.tick(time.time())

    thread = threading.Thread(target=look)
    thread.start()
    yield state
    over.set()
    thread.join()


def test_what_is_not_served_cannot_be_steered_or_shown(fairlead: Callable[..., Any]) -> None:
    refused = fairlead("rollouts", "abort", "fraud", "--reason", "no", "--json")
    assert (refused.code, refused.json["error"]["code"]) == (1, "not_served")
    assert "fairlead serve fraud --rollouts" in refused.json["error"]["fix"]
    assert fairlead("rollouts", "fraud", "--json").json["error"]["code"] == "no_rollout"
    assert fairlead("rollouts", "--json").json == []


def test_a_rollout_is_shown_paused_and_aborted(
    fairlead: Callable[..., Any], served: Served, endpoints: Endpoints
) -> None:
    assert is_served("local", "fraud")
    assert under_way("local", "fraud") == "fraud:4, starting"
    assert "fraud:4, canary: starting" in fairlead("rollouts", "fraud").out
    paused = fairlead("rollouts", "pause", "fraud", "--reason", "a sale", "--json").json
    assert paused["rollout"]["phase"] == "paused"
    assert paused["rollout"]["transitions"][-1]["actor"].startswith("user:")
    again = fairlead("rollouts", "pause", "fraud", "--json").json["error"]
    assert (again["code"], again["detail"]) == ("bad_command", "it is paused already")
    assert "aborted" in fairlead("rollouts", "abort", "fraud", "--reason", "no").out
    assert under_way("local", "fraud") == ""
    [listed] = fairlead("rollouts", "--json").json
    assert (listed["version"], listed["rollout"]["weight"]) == ("3", 0.0)
    assert fairlead("rollouts", "fraud", "--follow").code == 0


def test_who_asked_for_a_rollout_learns_how_it_ended(endpoints: Endpoints) -> None:
    store = Store(endpoints.scratch("rollouts"))
    rollout = new_rollout("r", "fraud", "3", "4", "canary", RolloutPolicy(), 0.0)
    told = {"number": 0, "at": 1, "action": "roll back", "actor": "rollout", "weight": 5, "reason": ""}
    judged = Transition.model_validate({**told, "evidence": {"errors": 1}})
    ended = {"phase": "rolled_back", "reasons": ("errors are worse",), "transitions": (judged,)}
    served = Served(model="fraud", version="3", rollout=rollout, answers={"r": None})
    assert how_it_ended("local", "fraud", "r") is None
    store.write(served)
    assert how_it_ended("local", "fraud", "r") is None
    store.write(served.model_copy(update={"rollout": rollout.model_copy(update=ended)}))
    found = how_it_ended("local", "fraud", "r")
    assert found is not None
    assert (found.phase, found.said) == ("rolled_back", "errors are worse")
    assert found.evidence == {"candidate": "4", "judged": {"errors": 1}}
    refused = PlatformError("fraud has a rollout already", fix="wait", code="rollout_in_progress")
    store.write(served.answered("s", refused).answered("t", None))
    assert [getattr(how_it_ended("local", "fraud", one), "phase", None) for one in "stu"] == [
        "not_started",
        "replaced",
        None,
    ]


@pytest.mark.parametrize("kept", ["1", "2"])
@pytest.mark.parametrize("ref", ["fraud", "fraud:1"])
def test_a_version_that_a_rollout_replaced_can_be_served_again(home: Path, kept: str, ref: str) -> None:
    """Asked for by its number it stays; a plain name finishes a promotion that the state does not have yet."""
    from deploy.cli.serving.rollout_serving import _served

    done = new_rollout("r", "fraud", "1", "2", "canary", RolloutPolicy(), 0).model_copy(update={"phase": "promoted"})
    store = Store(home / "rollouts")
    store.write(Served(model="fraud", version=kept, rollout=done))
    served = _served(store, SimpleNamespace(name="fraud", version="1"), ref, False)  # type: ignore[arg-type]
    keeper = Keeper(store, Still(), lambda rollout, transition: None, served)
    keeper.tick(1.0)
    assert keeper.served.version == ("2" if (kept, ref) == ("1", "fraud") else "1")

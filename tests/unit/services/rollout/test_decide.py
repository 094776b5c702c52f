"""A rollout from its start to its end: what moves it, what holds it, what ends it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import PlatformError
from contracts.rollout_policy import RolloutPolicy
from services.rollout.decide import COMMANDS, advance, steer
from services.rollout.observation import Counts, Observation, Seen
from services.rollout.state import Rollout, new_rollout
from tests.rollout_traffic import Behaviour, Version, simulated

QUICK = RolloutPolicy(weights=(10, 50, 100), step_samples=20, step_seconds=10, warm_seconds=20)
EQUAL = Behaviour(errors=0.001)


def seen(requests: float = 0, errors: float = 0, *, others: float | None = None, **changed: Any) -> Observation:
    """Both versions ready, with counters."""
    first = Counts(requests=requests * 10 if others is None else others)
    document = {
        "champion": Seen(ready=True, counts=first),
        "candidate": Seen(ready=True, counts=Counts(requests=requests, errors=errors)),
    }
    return Observation.model_validate({**document, **changed})


def begun(policy: RolloutPolicy = QUICK, strategy: Any = "canary") -> Rollout:
    state = new_rollout("r", "model", "1", "2", strategy, policy, 0.0)
    return advance(state, seen(), 1.0).state


def test_an_equal_version_goes_up_step_by_step_and_is_promoted_after_it_was_warm() -> None:
    state, now = simulated(1, EQUAL, EQUAL, policy=QUICK)
    assert state.phase == "settling"
    assert [one.weight for one in state.transitions] == [10, 50, 100]
    kept = advance(state, seen(10_000), now + 5).state
    assert (kept.phase, kept.weight) == ("settling", 100)
    decision = advance(kept, seen(10_000), now + 25)
    assert (decision.state.phase, decision.action) == ("promoted", "promote")


@pytest.mark.parametrize(
    ("candidate", "criterion"),
    [
        (Behaviour(errors=0.1), "errors"),
        (Behaviour(seconds=0.012), "latency"),
        (Behaviour(score=(5, 2)), "answers"),
    ],
)
def test_a_worse_version_is_rolled_back_with_the_reason(candidate: Behaviour, criterion: str) -> None:
    state, _ = simulated(2, EQUAL, candidate, policy=QUICK)
    assert (state.phase, state.weight) == ("rolled_back", 0)
    assert state.reasons[0].startswith(criterion)
    assert (
        state.transitions[-1].evidence[criterion]["worse"] >= state.transitions[-1].evidence[criterion]["worse_needed"]
    )


def test_few_are_decided_wrongly() -> None:
    """A small part of `make bench-rollouts`."""
    for seed in range(3):
        assert simulated(seed, EQUAL, EQUAL, policy=QUICK, look=10)[0].phase == "settling"
        worse = Behaviour(errors=0.021)
        assert simulated(seed, EQUAL, worse, policy=QUICK, look=10)[0].phase == "rolled_back"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"candidate": Seen(ready=True)}, "no metrics"),
        ({"champion": Seen(ready=True)}, "no metrics"),
        ({"champion": Seen(ready=False, note="gone away")}, "the champion is not ready: gone away"),
        ({"champion": Seen(ready=False), "gone": "the folder is away"}, "the champion is gone: the folder is away"),
    ],
)
def test_what_cannot_be_compared_holds(changed: dict[str, Any], reason: str) -> None:
    state = begun()
    for now in range(2, 400, 3):
        state = advance(state, seen(now * 2, **changed), float(now)).state
        assert (state.phase, state.weight) == ("running", 10)
    assert any(one.startswith(reason) for one in state.reasons)


def test_without_traffic_it_holds_for_as_long_as_it_takes() -> None:
    state = begun()
    for now in range(2, 20_000, 500):
        state = advance(state, seen(15), float(now)).state
    assert (state.phase, state.weight) == ("running", 10)
    assert any("no requests reached it" in one for one in state.reasons)


def test_an_unproven_version_goes_after_the_longest_time_with_traffic() -> None:
    policy = QUICK.model_copy(update={"max_seconds": 100.0, "step_samples": 10**6})
    state, now = begun(policy), 1.0
    while not state.ended:
        now += 5
        state = advance(state, seen(now, others=now * 9), now).state
    assert (state.phase, now) == ("rolled_back", pytest.approx(106, abs=5))
    assert "not shown to be no worse" in state.reasons[0]


def test_a_candidate_that_is_away_or_ended_or_late_is_rolled_back() -> None:
    away: dict[str, Any] = {"candidate": Seen(ready=False, note="no answer")}
    state = advance(begun(), seen(**away), 2.0).state
    assert state.phase == "running"
    assert advance(state, seen(**away), 8.0).state.phase == "rolled_back"
    ended: dict[str, Any] = {"candidate": Seen(ready=False, ended="exit code 1")}
    first = new_rollout("r", "model", "1", "2", "canary", QUICK, 0.0)
    assert "exit code 1" in advance(first, seen(**ended), 1.0).reasons[0]
    late = advance(first, seen(**away), 301.0)
    assert (late.state.phase, late.action) == ("rolled_back", "roll_back")


@pytest.mark.parametrize(("wrong", "phase"), [(0.3, "rolled_back"), (0.1, "running")])
def test_labels_that_say_it_is_worse_end_it(wrong: float, phase: str) -> None:
    state = begun()
    for now in range(2, 40):
        champion = Counts(requests=now * 90, labelled=now * 9, wrong=round(now * 0.9))
        candidate = Counts(requests=now * 10, labelled=now * 5, wrong=round(now * 5 * wrong))
        both = {"champion": Seen(ready=True, counts=champion), "candidate": Seen(ready=True, counts=candidate)}
        state = advance(state.model_copy(update={"step_began": float(now)}), Observation(**both), float(now)).state
    assert state.phase == phase
    assert state.reasons[0].startswith("quality") == (phase == "rolled_back")


def test_labels_that_come_while_the_old_version_is_warm_still_end_it() -> None:
    state, now = simulated(1, EQUAL, EQUAL, policy=QUICK)
    assert state.phase == "settling"
    last = state.last
    assert last is not None
    champion, candidate = last
    for more in range(1, 15):
        candidate = candidate.model_copy(
            update={"requests": candidate.requests + 20, "labelled": more * 30, "wrong": more * 9}
        )
        champion = champion.model_copy(update={"labelled": more * 30, "wrong": more * 2})
        both = {"champion": Seen(ready=True, counts=champion), "candidate": Seen(ready=True, counts=candidate)}
        state = advance(state, Observation(**both), now + more).state
    assert (state.phase, state.weight) == ("rolled_back", 0)
    assert state.reasons[0].startswith("quality")


def with_labels(state: Rollout, looks: int, candidate_missed: float, *, classes: int = 2) -> Rollout:
    """Labels of 1,000 rows of each version by look; 10 of them are of a rare class, of which the champion misses 4."""
    for now in range(2, 2 + looks):
        total, more = now * 1000, {f"other {number}": 0.0 for number in range(classes - 2)}
        counts = [
            Counts(
                requests=total,
                labelled=total,
                wrong=now * (5 + missed),
                truths={"fraud": now * 10, "genuine": now * 990, **more},
                misses={"fraud": now * missed, "genuine": now * 5, **more},
            )
            for missed in (4, candidate_missed)
        ]
        both = {"champion": Seen(ready=True, counts=counts[0]), "candidate": Seen(ready=True, counts=counts[1])}
        state = advance(state.model_copy(update={"step_began": float(now)}), Observation(**both), float(now)).state
    return state


def test_a_rare_class_that_is_missed_ends_it_although_few_answers_are_wrong() -> None:
    """Half a point more wrong answers, which `quality` tolerates."""
    worse = with_labels(begun(), 20, 9)
    assert (worse.phase, worse.weight) == ("rolled_back", 0)
    assert worse.reasons[0].startswith("misses (fraud) are shown to be worse: 90 %, the champion's are 40 %")
    assert [one.says for one in with_labels(begun(), 20, 4).verdicts if one.criterion == "quality"] == ["proven"]
    assert with_labels(begun(), 20, 4).phase == "running"


def test_labels_that_are_read_anew_by_another_keeper_count_once() -> None:
    before = with_labels(begun(), 6, 8)
    assert before.last is not None
    unread = [count.model_copy(update={"labelled": 0, "wrong": 0, "truths": {}, "misses": {}}) for count in before.last]
    state = before
    for counts in (unread, before.last):
        both = {"champion": Seen(ready=True, counts=counts[0]), "candidate": Seen(ready=True, counts=counts[1])}
        state = advance(state, Observation(**both), 9.0).state
        assert [one for one in state.verdicts if one.criterion == "misses"] == [
            one for one in before.verdicts if one.criterion == "misses"
        ]


def test_the_chance_is_shared_by_all_classes_that_there_are() -> None:
    few, many = (
        next(one for one in with_labels(begun(), 6, 8, classes=count).verdicts if one.criterion == "misses")
        for count in (2, 200)
    )
    assert few.share == many.share == "fraud"
    assert many.worse * 200 - 198 == pytest.approx(few.worse * 2)  # the evidence of a class without labels is 1
    assert many.within == few.within  # classes without labels hold nothing


def test_labels_that_speak_against_it_hold_the_last_step() -> None:
    """Of versions that are equal in all else, by labels of a third of the requests at once."""
    worse = (Behaviour(wrong=0.05, labelled=1 / 3), Behaviour(wrong=0.2, labelled=1 / 3))
    policy = QUICK.model_copy(update={"weights": (50.0, 100.0)})
    assert simulated(3, *worse, policy=policy, look=5)[0].phase == "rolled_back"


def test_a_shadow_gets_copies_and_then_everything() -> None:
    state = begun(strategy="shadow")
    assert (state.weight, state.mirrors) == (0, True)
    random = np.random.default_rng(1)
    versions, now = (Version(random, EQUAL), Version(random, EQUAL)), 1.0
    while state.phase == "running" and now < 500:
        now += 1
        for version in versions:
            version.serve(20)
        state = advance(state, Observation(champion=versions[0].seen(), candidate=versions[1].seen()), now).state
    assert (state.phase, state.weight, state.mirrors) == ("settling", 100, False)


def test_direct_waits_only_until_it_is_ready() -> None:
    state = new_rollout("r", "model", "1", "2", "direct", QUICK, 0.0)
    waiting = advance(state, seen(candidate=Seen(ready=False, note="loading")), 1.0).state
    assert (waiting.phase, waiting.weight) == ("starting", 0)
    assert advance(waiting, seen(), 2.0).state.weight == 100


def test_a_person_pauses_resumes_promotes_and_aborts() -> None:
    paused = steer(begun(), "pause", "a sale", "user:me", 2.0).state
    for now in range(3, 300, 3):
        paused = advance(paused, seen(now * 2, others=now * 18), float(now)).state
    assert (paused.weight, paused.shown_phase) == (10, "paused")
    resumed = steer(paused, "resume", "", "user:me", 300.0).state
    assert advance(resumed, seen(700, others=6300), 320.0).state.weight == 50
    promoted = steer(resumed, "promote", "sure", "user:me", 301.0).state
    assert (promoted.weight, promoted.phase) == (100, "settling")
    assert promoted.transitions[-1].actor == "user:me"
    aborted = steer(promoted, "abort", "no", "user:me", 302.0)
    assert (aborted.state.weight, aborted.state.phase, aborted.action) == (0, "aborted", "abort")


@pytest.mark.parametrize("command", COMMANDS)
def test_what_has_ended_cannot_be_steered(command: Any) -> None:
    ended = steer(begun(), "abort", "", "user:me", 2.0).state
    with pytest.raises(PlatformError, match="it has ended: aborted"):
        steer(ended, command, "", "user:me", 3.0)


looks = st.lists(
    st.tuples(
        st.sampled_from(["look", "look", "look", "blind", "away", *COMMANDS]),
        st.integers(0, 200),
        st.integers(0, 3),
        st.floats(0.1, 60),
    ),
    max_size=25,
)


@settings(deadline=None, max_examples=30)
@given(looks=looks)
def test_whatever_happens_weights_are_the_policys_and_nothing_is_promoted_unseen(looks: Any) -> None:
    state, now, requests, errors = new_rollout("r", "model", "1", "2", "canary", QUICK, 0.0), 0.0, 0, 0
    by_hand = False
    for what, more, failed, seconds in looks:
        now += seconds
        before = state
        if what in COMMANDS:
            try:
                state = steer(state, what, "", "user:me", now).state
                by_hand |= what == "promote"
            except PlatformError:
                assert state is before
        else:
            requests, errors = requests + more, errors + min(failed, more)
            blind: dict[str, Any] = {"candidate": Seen(ready=what == "blind")} if what != "look" else {}
            state = advance(state, seen(requests, errors, **blind), now).state
            assert state.weight <= before.weight or what == "look"
        assert state.weight in (0, *QUICK.weights)
        assert len(state.transitions) >= len(before.transitions)
        if state.phase in ("rolled_back", "aborted"):
            assert state.weight == 0
        if state.weight == 100 and not by_hand:
            assert all(one.says in ("proven", "no data") for one in before.verdicts or state.verdicts)
            assert state.totals[1].requests >= QUICK.step_samples
        if before.ended:
            assert state.model_copy(update={"looked": 0.0}) == before.model_copy(update={"looked": 0.0})


def with_drafts(state: Rollout, looks: int, lost: int) -> Rollout:
    """Twenty lists of each version by look that both drafted and one won; the candidate lost so many of its own."""
    for now in range(2, 2 + looks):
        total = now * 1000.0
        both = {
            name: Seen(ready=True, counts=Counts(requests=total, drafted=now * 20.0, lost=now * float(losses)))
            for name, losses in (("champion", 20 - lost), ("candidate", lost))
        }
        state = advance(state.model_copy(update={"step_began": now - 99.0}), Observation(**both), float(now)).state
    return state


def test_drafted_lists_decide_and_are_waited_for_where_they_are_judged() -> None:
    drafting = QUICK.model_copy(update={"drafted": QUICK.drafted.model_copy(update={"judged": True})})
    assert with_drafts(begun(), 8, 17).drafts is False
    worse = with_drafts(begun(drafting), 30, 17)
    assert (worse.phase, worse.reasons[0].startswith("drafted")) == ("rolled_back", True)
    better = with_drafts(begun(drafting), 30, 4)
    assert better.phase == "promoted"
    nobody = begun(drafting)
    assert nobody.drafts
    for now in range(2, 30):
        nobody = advance(nobody.model_copy(update={"step_began": now - 99.0}), seen(now * 1000.0), float(now)).state
    assert (nobody.phase, nobody.weight) == ("running", 50)
    assert "drafted: not shown yet to be no worse" in nobody.reasons

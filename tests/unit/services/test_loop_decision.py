"""The loop's decision: what starts a run, what holds it, and what never happens whatever comes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.loop_policy import WEEK, LoopPolicy
from services.controller.decide import decide
from services.controller.observations import Finding, Observations, Report, RolloutSeen, RunSeen
from services.controller.state import Source, WatchState

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
DRIFT = Finding(kind="drift", what="amount drifts", evidence={"psi": 0.4})
TOLD = {"kind": "drift", "what": "amount drifts", "psi": 0.4}
DROP = Finding(kind="quality", what="average_precision dropped")


def state(**fields: Any) -> WatchState:
    return WatchState(model="fraud", task="fraud", since=NOW - 30 * WEEK, **fields)


def seen(*findings: Finding, at: datetime = NOW, **fields: Any) -> Observations:
    given = {"version": "1", "report": Report(version="1", at=at, findings=findings), **fields}
    return Observations(**given)


def words(after: WatchState) -> list[str]:
    return [action.word for action in after.pending]


def test_drift_starts_a_run_that_is_named_before_it_exists() -> None:
    after = decide(LoopPolicy(), state(), seen(DRIFT), NOW)
    (start,) = after.pending
    assert (start.kind, start.id, start.reason) == ("start_run", after.run, "amount drifts")
    assert after.run.startswith("fraud-20261130-120000-")
    assert start.evidence == {"run": after.run, "version": "1", "triggers": [TOLD]}
    assert (after.phase, after.started, after.count) == ("running", (NOW,), 1)


@pytest.mark.parametrize(
    ("policy", "look", "said"),
    [
        ({}, seen(), "the monitor found nothing at 12:00"),
        ({}, Observations(version="1"), "no report of the monitor"),
        ({}, seen(DRIFT, at=NOW - 2 * HOUR), "the monitor is silent since 2026-11-30 10:00: no action"),
        ({}, seen(DRIFT, version="2"), "the monitor's report is of version 1, the champion is 2"),
        ({"on_drift": False}, seen(DRIFT), "the monitor found nothing at 12:00"),
        ({"on_quality_drop": False}, seen(DROP), "the monitor found nothing at 12:00"),
        ({"on_drift": False, "on_quality_drop": False}, seen(DRIFT, DROP), "nothing asks for a run"),
        ({}, seen(silent=("Prometheus does not answer: no action",)), "Prometheus does not answer: no action"),
    ],
)
def test_without_a_reason_nothing_starts_and_it_says_why(policy: Any, look: Observations, said: str) -> None:
    after = decide(LoopPolicy(**policy), state(), look, NOW)
    assert after.pending == ()
    assert said in after.reason


def test_a_firing_alert_is_a_reason_while_the_monitor_is_silent() -> None:
    after = decide(LoopPolicy(), state(), Observations(version="1", alerts=(DROP,)), NOW)
    assert (words(after), after.reason) == (["start_run"], "average_precision dropped")


def test_a_report_from_before_the_last_run_is_no_new_reason() -> None:
    policy = LoopPolicy(cooldown_hours=0.01)
    after = decide(policy, state(started=(NOW - 2 * MINUTE,)), seen(DRIFT, at=NOW - 3 * MINUTE), NOW)
    assert (after.pending, after.reason) == ((), "the monitor has said nothing since the last run")


def test_a_schedule_starts_one_run_for_all_the_times_that_were_missed() -> None:
    policy = LoopPolicy(schedule="0 3 * * *", cooldown_hours=1)
    first = decide(policy, state(), seen(), NOW)
    assert first.pending[0].reason == "scheduled: 0 3 * * *"
    after = decide(policy, first.having(run="", pending=()), seen(), NOW + 2 * HOUR)
    assert (after.pending, after.next_time) == ((), NOW.replace(hour=3) + timedelta(days=1))


def test_new_data_starts_a_run_when_there_are_rows_enough() -> None:
    policy = LoopPolicy(on_new_data=True, new_rows=100)
    known = decide(policy, state(), seen(source=Source(fingerprint="a", rows=1000)), NOW)
    assert (known.pending, known.source) == ((), Source(fingerprint="a", rows=1000))
    few = decide(policy, known, seen(source=Source(fingerprint="b", rows=1099)), NOW)
    assert (few.pending, few.source) == ((), known.source)
    enough = decide(policy, few, seen(source=Source(fingerprint="c", rows=1100)), NOW)
    assert enough.pending[0].reason == "the source has changed: +100 rows"
    assert enough.source == Source(fingerprint="c", rows=1100)


def test_cooldown_and_budget_and_a_rollout_hold_a_run_and_say_until_when() -> None:
    policy = LoopPolicy(cooldown_hours=24, runs_per_week=2)
    cool = decide(policy, state(started=(NOW - HOUR,)), seen(DRIFT), NOW)
    assert (cool.reason, cool.next_time) == ("amount drifts: cooldown of 24 hours", NOW + 23 * HOUR)
    spent = decide(policy, state(started=(NOW - 60 * HOUR, NOW - 30 * HOUR)), seen(DRIFT), NOW)
    assert spent.reason == "amount drifts: 2 of 2 runs of this week are used"
    assert spent.next_time == NOW - 60 * HOUR + WEEK
    rolling = decide(policy, state(), seen(DRIFT, rollout="fraud:2 at 5 %"), NOW)
    assert (rolling.pending, rolling.reason) == ((), "amount drifts: waits for the rollout: fraud:2 at 5 %")


def test_a_change_has_to_last_for_as_long_as_its_labels_take() -> None:
    policy = LoopPolicy(wait_hours=168, silent_minutes=1e6, schedule="every 30d")
    fresh = state().having(since=NOW)
    held = decide(policy, fresh, seen(DRIFT), NOW)
    assert (held.pending, held.next_time) == ((), NOW + WEEK)
    assert held.reason == "amount drifts: waits 168 hours for labels of what has changed"
    assert decide(policy, held, seen(DRIFT), NOW + WEEK).reason == "amount drifts"
    over = decide(policy, held, seen(at=NOW + HOUR), NOW + HOUR)
    again = decide(policy, over, seen(DRIFT, at=NOW + WEEK), NOW + WEEK)
    assert (over.found, again.pending, again.next_time) == (None, (), NOW + 2 * WEEK)
    new = decide(policy, held, seen(DRIFT), NOW + 5 * WEEK)
    assert [action.kind for action in new.pending] == ["start_run"]
    soon = decide(policy.model_copy(update={"schedule": "every 1h"}), held, seen(DRIFT), NOW + 2 * HOUR)
    assert soon.reason == "amount drifts; scheduled: every 1h"  # that waits for nothing


def test_approval_is_asked_once_and_one_of_before_does_not_count() -> None:
    policy = LoopPolicy(approval=True)
    early = NOW - HOUR
    asking = decide(policy, state(), seen(DRIFT, approved=early), NOW)
    assert (asking.phase, words(asking)) == ("asking", ["ask_approval"])
    waiting = decide(policy, asking.having(pending=()), seen(DRIFT, at=NOW + MINUTE, approved=early), NOW + MINUTE)
    assert (waiting.phase, waiting.pending) == ("asking", ())
    assert "fairlead watch approve fraud" in waiting.reason
    gone = decide(policy, waiting, seen(at=NOW + MINUTE), NOW + MINUTE)
    assert (gone.phase, gone.asked) == ("watching", None)
    started = decide(policy, waiting, seen(DRIFT, at=NOW + MINUTE, approved=NOW + MINUTE), NOW + 2 * MINUTE)
    assert (started.phase, words(started)) == ("running", ["start_run"])


@pytest.mark.parametrize("status", ["starting", "running", "waiting", None])
def test_a_run_in_progress_is_waited_for(status: str | None) -> None:
    run = None if status is None else RunSeen(status=status)
    after = decide(LoopPolicy(), state(run="fraud-1", started=(NOW,)), seen(DRIFT, run=run), NOW + 100 * HOUR)
    assert (after.phase, after.pending, after.run) == ("running", (), "fraud-1")


@pytest.mark.parametrize(
    ("rollout", "can", "word"),
    [("canary", True, "start_rollout"), ("canary", False, "name_candidate"), ("none", True, "name_candidate")],
)
def test_a_model_that_passed_goes_to_its_rollout_or_is_named(rollout: Any, can: bool, word: str) -> None:
    run = RunSeen(status="succeeded", version="2", evidence={"metrics": {"auc": 0.9}})
    after = decide(LoopPolicy(rollout=rollout), state(run="fraud-1", failures=2), seen(run=run, can_roll_out=can), NOW)
    assert words(after) == ["end_run", word]
    assert after.pending[0].evidence == {"run": "fraud-1", "status": "succeeded", "metrics": {"auc": 0.9}}
    assert after.pending[1].subject == "fraud:2"
    assert (after.run, after.candidate, after.phase) == ("", "2", "watching")
    goes = word == "start_rollout"  # what became of it is not known yet
    assert (after.failures, after.rollout) == ((2, after.pending[1].id) if goes else (0, ""))


@pytest.mark.parametrize(
    ("policy", "compared"), [(LoopPolicy(), False), (LoopPolicy(on_drift=False, schedule="every 1h"), True)]
)
def test_what_was_trained_because_the_world_changed_may_answer_differently(policy: LoopPolicy, compared: bool) -> None:
    started = decide(policy, state(), seen(DRIFT, at=NOW + 2 * HOUR), NOW + 2 * HOUR).having(pending=())
    assert started.run
    run = RunSeen(status="succeeded", version="2")
    after = decide(policy, started, seen(run=run, can_roll_out=True), NOW + 3 * HOUR)
    assert after.pending[1].evidence["answers_compared"] is compared


def test_a_run_that_made_the_champion_again_is_no_candidate() -> None:
    run = RunSeen(status="succeeded", version="1")
    after = decide(LoopPolicy(), state(run="fraud-1"), seen(run=run, can_roll_out=True), NOW)
    assert (words(after), after.candidate) == (["end_run"], "")
    assert after.reason == "run fraud-1 made the champion again: its data are the same"


REFUSED = RolloutSeen(phase="rolled_back", said="errors are shown to be worse", evidence={"judged": {"errors": 1}})


def test_a_rollout_that_was_rolled_back_is_a_failure_told_with_its_evidence_and_followed_by_a_cooldown() -> None:
    policy, under_way = LoopPolicy(cooldown_hours=2), state(rollout="r", candidate="2", started=(NOW - 9 * HOUR,))
    assert decide(policy, under_way, seen(), NOW).rollout == "r"
    after = decide(policy, under_way, seen(DRIFT, outcome=REFUSED), NOW)
    assert (words(after), after.failures, after.rollout) == (["end_rollout"], 1, "")
    assert after.pending[0].subject == "fraud:2"
    assert after.pending[0].evidence == {"rollout": "r", "phase": "rolled_back", "judged": {"errors": 1}}
    after = after.having(pending=())
    quiet = decide(policy, after, seen(at=NOW + MINUTE), NOW + MINUTE)
    assert quiet.reason.startswith("the rollout of fraud:2 was rolled back: errors are shown to be worse")
    held = decide(policy, quiet, seen(DRIFT, at=NOW + HOUR), NOW + HOUR)
    assert (held.run, held.next_time) == ("", NOW + 2 * HOUR)
    assert "cooldown of 2 hours since a rollout was refused" in held.reason
    again = decide(policy, held, seen(DRIFT, at=NOW + 2 * HOUR), NOW + 2 * HOUR)
    assert (again.run != "", again.refusal) == (True, "")
    same = decide(policy, again, seen(run=RunSeen(status="succeeded", version="2"), can_roll_out=True), NOW + 3 * HOUR)
    assert (words(same), same.rollout) == (["end_run"], "")
    assert "made fraud:2 again, which its rollout refused" in same.reason


@pytest.mark.parametrize(
    ("outcome", "failures", "phase", "told"),
    [
        (REFUSED, 3, "stopped", ["end_rollout", "stop_loop"]),
        (RolloutSeen(phase="aborted", said="no"), 2, "watching", ["end_rollout"]),
        (RolloutSeen(phase="promoted", said="fine"), 0, "watching", ["end_rollout"]),
        (RolloutSeen(phase="not_started", said="another one"), 2, "watching", ["end_rollout"]),
    ],
)
def test_how_a_rollout_ended_counts(outcome: RolloutSeen, failures: int, phase: str, told: list[str]) -> None:
    after = decide(LoopPolicy(), state(rollout="r", candidate="2", failures=2), seen(outcome=outcome), NOW)
    assert (after.failures, after.phase, words(after)) == (failures, phase, told)


def test_a_refusal_of_the_gate_is_no_failure() -> None:
    run = RunSeen(status="refused", said="average_precision 0.1 < 0.2")
    after = decide(LoopPolicy(), state(run="fraud-1", failures=2), seen(run=run), NOW)
    assert (words(after), after.failures) == (["end_run"], 0)
    assert "average_precision 0.1 < 0.2" in after.reason


def test_three_failures_in_a_row_stop_the_loop_until_a_person_says_go_on() -> None:
    policy, now, after = LoopPolicy(cooldown_hours=1), NOW, state()
    for count in range(1, 4):
        after = decide(policy, after, seen(DRIFT, at=now), now).having(pending=())
        assert after.run
        dead = RunSeen(status="dead", said="its process is gone")
        after = decide(policy, after, seen(run=dead), now + HOUR)
        assert (after.failures, after.phase) == (count, "stopped" if count == 3 else "watching")
        now += 3 * HOUR
    assert words(after) == ["end_run", "stop_loop"]
    stopped = after.having(pending=())
    still = decide(policy, stopped, seen(DRIFT, at=now, resumed=NOW), now)
    assert (still.pending, still.reason) == (
        (),
        "stopped after 3 failed runs in a row; go on: fairlead watch resume fraud",
    )
    now += WEEK
    again = decide(policy, still, seen(DRIFT, at=now, resumed=now), now)
    assert (again.phase, again.failures, words(again)) == ("running", 0, ["start_run"])


def test_a_run_that_could_not_be_started_has_failed() -> None:
    after = decide(LoopPolicy(), state(run="fraud-1", trouble="source not found"), seen(), NOW)
    assert (after.failures, after.reason) == (1, "run fraud-1 failed: source not found")


STEPS = st.lists(
    st.tuples(
        st.integers(-300, 60 * 40),  # minutes to the next pass; clocks may go back
        st.lists(st.sampled_from([DRIFT, DROP]), max_size=2),
        st.sampled_from(["running", "succeeded", "refused", "failed", None]),
        st.sampled_from(["", "fraud:2 at 5 %"]),
        st.booleans(),
    ),
    max_size=60,
)
POLICIES = st.builds(
    LoopPolicy,
    cooldown_hours=st.sampled_from([0.1, 1, 24]),
    runs_per_week=st.integers(1, 5),
    max_failures=st.integers(1, 3),
    schedule=st.sampled_from(["", "every 1m", "every 6h"]),
    approval=st.booleans(),
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(policy=POLICIES, steps=STEPS)
def test_whatever_is_seen_cooldown_and_budget_hold_and_no_two_runs_are_at_once(policy: LoopPolicy, steps: Any) -> None:
    now, known, starts = NOW, state(), list[datetime]()
    for minutes, findings, status, rollout, resumed in steps:
        now += minutes * MINUTE
        run = RunSeen(status=status, version="2") if status else None
        said = {"resumed": now, "approved": now} if resumed else {}
        busy = known.run
        known = decide(policy, known, seen(*findings, at=now, run=run, rollout=rollout, **said), now)
        begun = [action for action in known.pending if action.kind == "start_run"]
        assert not (busy and begun)
        assert not (rollout and begun)
        assert len({action.id for action in known.pending}) == len(known.pending)
        if begun:
            assert findings or policy.schedule
            starts.append(now)
        known = known.having(pending=())
    for before, after in pairwise(starts):
        assert after - before >= policy.cooldown
    for start in starts:
        assert sum(start <= other < start + WEEK for other in starts) <= policy.runs_per_week


def test_a_policy_that_would_start_a_run_each_minute_is_held_by_the_cooldown() -> None:
    policy = LoopPolicy(schedule="every 1m", cooldown_hours=1, runs_per_week=1000)
    known, starts = state(), 0
    for minute in range(24 * 60):
        now = NOW + minute * MINUTE
        known = decide(policy, known, seen(DRIFT, at=now, run=RunSeen(status="failed") if known.run else None), now)
        known = known.having(failures=0, stopped=None)
        starts += "start_run" in words(known)
        known = known.having(pending=())
    assert starts == 24

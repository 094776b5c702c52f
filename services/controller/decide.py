"""The decision of one pass: a pure function of the policy, what is known, what is seen and the time."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from contracts.loop_policy import WEEK, LoopPolicy
from services.controller.observations import ENDED, Finding, Observations, RolloutSeen, RunSeen
from services.controller.state import Action, WatchState

_KEPT = 2 * WEEK  # of the starts of runs
_CHANGES = ("drift", "quality")  # kinds of triggers that say that the world is another one


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """A reason to start a run, with what it rests on."""

    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


def decide(policy: LoopPolicy, state: WatchState, seen: Observations, now: datetime) -> WatchState:
    """The state after this pass; its `pending` is what is to be done, in order, each once."""
    if state.rollout and seen.outcome is not None:
        return _told(policy, state, seen.outcome, now)
    if state.stopped is not None:
        if seen.resumed is None or seen.resumed < state.stopped:
            return state.having(reason=_stopped(state), next_time=None)
        state = state.having(stopped=None, failures=0, phase="watching")
    if state.source is None and seen.source is not None:
        state = state.having(source=seen.source)
    if state.run:
        return _followed(policy, state, seen, now)
    triggers, remarks = _triggers(policy, state, seen, now)
    found = any(map(_is_change, triggers))
    state = state.having(found=(state.found or now) if found else None)
    if not triggers:
        refusal = [state.refusal] if state.refusal else []
        reason = "; ".join([*refusal, *remarks, *seen.silent]) or "nothing asks for a run"
        return state.having(phase="watching", asked=None, reason=reason, next_time=_scheduled(policy, state))
    reason = "; ".join(trigger.reason for trigger in triggers)
    if held := _held(policy, state, seen, now) or _waits(policy, state, triggers, now):
        why, until = held
        return state.having(phase="watching", asked=None, reason=f"{reason}: {why}", next_time=until)
    if policy.approval:
        if state.asked is None:
            asked = _action(state, now, word="ask_approval", subject=state.model, reason=reason)
            state = state.having(phase="asking", asked=now, pending=(asked,))
        if seen.approved is None or seen.approved < (state.asked or now):
            said = f"{reason}: a run needs approval: fairlead watch approve {state.model}"
            return state.having(reason=said, next_time=None)
    return _start(state, seen, reason, triggers, now)


def _start(
    state: WatchState, seen: Observations, reason: str, triggers: tuple[Trigger, ...], now: datetime
) -> WatchState:
    """A run, named before it exists, so that it can be looked up after a crash."""
    known = f"{state.model} {state.count} {now.isoformat()}"
    run = f"{state.task}-{now:%Y%m%d-%H%M%S}-{hashlib.sha256(known.encode()).hexdigest()[:4]}"
    evidence = {"run": run, "version": seen.version, "triggers": [dict(trigger.evidence) for trigger in triggers]}
    start = Action(id=run, kind="start_run", word="start_run", subject=state.model, reason=reason, evidence=evidence)
    return state.having(
        phase="running",
        run=run,
        began=now,
        trouble="",
        changed=any(map(_is_change, triggers)),
        reason=reason,
        refusal="",
        next_time=None,
        asked=None,
        count=state.count + 1,
        started=(*(start for start in state.started if start > now - _KEPT), now),
        source=seen.source or state.source,
        pending=(*state.pending, start),
    )


def _followed(policy: LoopPolicy, state: WatchState, seen: Observations, now: datetime) -> WatchState:
    """What becomes of the run in progress."""
    run = RunSeen(status="failed", said=state.trouble) if state.trouble else seen.run
    if run is None or run.status not in ENDED:
        how = run.status if run else "; ".join(["cannot be seen now", *seen.silent])
        return state.having(phase="running", reason=f"run {state.run}: {how}", next_time=None)
    evidence = {"run": state.run, "status": run.status, **run.evidence}
    ended = _action(state, now, word="end_run", subject=state.model, reason=run.said or run.status, evidence=evidence)
    after = state.having(run="", began=None, trouble="", phase="watching", next_time=None, pending=(ended,))
    if run.status == "succeeded":
        return _passed(policy, after, seen, run, state.run, now)
    if run.status == "refused":
        return after.having(failures=0, reason=f"the gate refused the model of run {state.run}: {run.said}")
    if run.status == "cancelled":
        return after.having(reason=f"run {state.run} was ended: {run.said}")
    return _failed(policy, after, f"run {state.run} failed: {run.said}", ended, now)


def _told(policy: LoopPolicy, state: WatchState, outcome: RolloutSeen, now: datetime) -> WatchState:
    """What became of the rollout of what a run made: one that was rolled back is a failure of that run."""
    subject = f"{state.model}:{state.candidate}"
    how = outcome.phase.replace("_", " ")
    reason = f"the rollout of {subject} was {how}: {outcome.said}"
    evidence = {"rollout": state.rollout, "phase": outcome.phase, **outcome.evidence}
    ended = _action(state, now, word="end_rollout", subject=subject, reason=reason, evidence=evidence)
    after = state.having(rollout="", pending=(ended,), reason=reason)
    if outcome.phase == "promoted":
        return after.having(failures=0, refused="", refusal="")
    if outcome.phase not in ("rolled_back", "aborted"):
        return after
    after = after.having(refused=state.candidate, refused_at=now, refusal=reason)
    if outcome.phase == "aborted" or state.stopped is not None:
        return after
    return _failed(policy, after, reason, ended, now)


def _failed(policy: LoopPolicy, state: WatchState, reason: str, ended: Action, now: datetime) -> WatchState:
    """One more failure in a row; too many stop the loop."""
    after = state.having(failures=state.failures + 1, reason=reason)
    if after.failures < policy.max_failures:
        return after
    said = f"{after.failures} runs in a row failed; the last: {reason}"
    stop = _action(after, now, word="stop_loop", subject=after.model, reason=said, evidence=ended.evidence)
    stopped = after.having(phase="stopped", stopped=now, pending=(*after.pending, stop))
    return stopped.having(reason=_stopped(stopped))


def _passed(
    policy: LoopPolicy, state: WatchState, seen: Observations, run: RunSeen, name: str, now: datetime
) -> WatchState:
    """The gate let a model through: it goes to a rollout, or is named."""
    subject = f"{state.model}:{run.version}"
    if run.version == seen.version:
        return state.having(failures=0, reason=f"run {name} made the champion again: its data are the same")
    if run.version == state.refused:
        return state.having(reason=f"run {name} made {subject} again, which its rollout refused: its data are the same")
    evidence = {
        "run": name,
        "strategy": policy.rollout,
        "champion": seen.version,
        "answers_compared": not state.changed,
    }
    if policy.rollout != "none" and seen.can_roll_out:
        reason = f"{subject} passed the gate: {policy.rollout}"
        told = {"kind": "start_rollout", "word": "start_rollout"}
    else:
        reason = f"{subject} passed the gate and waits: fairlead promote {subject}"
        told = {"kind": "note", "word": "name_candidate"}
    action = _action(state, now, subject=subject, reason=reason, evidence=evidence, **told)
    after = state.having(candidate=run.version, reason=reason, pending=(*state.pending, action))
    return after.having(rollout=action.id) if action.kind == "start_rollout" else after.having(failures=0)


def _triggers(
    policy: LoopPolicy, state: WatchState, seen: Observations, now: datetime
) -> tuple[tuple[Trigger, ...], tuple[str, ...]]:
    """The reasons to start a run, and what else there is to say."""
    found, remarks = _findings(policy, state, seen, now)
    triggers = [
        Trigger(reason=one.what, evidence={"kind": one.kind, "what": one.what, **one.evidence}) for one in found
    ]
    due = _scheduled(policy, state)
    if due is not None and due <= now:
        triggers.append(
            Trigger(reason=f"scheduled: {policy.schedule}", evidence={"kind": "schedule", "due": due.isoformat()})
        )
    if policy.on_new_data and (new := _new_data(policy, state, seen)):
        triggers.append(new)
    return tuple(triggers), remarks


def _findings(
    policy: LoopPolicy, state: WatchState, seen: Observations, now: datetime
) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    wanted = {kind for kind, on in (("drift", policy.on_drift), ("quality", policy.on_quality_drop)) if on}
    if not wanted:
        return (), ()
    found = [one for one in seen.alerts or () if one.kind in wanted]
    report = seen.report
    if report is None:
        said = "no report of the monitor"
    elif report.version != seen.version:
        said = f"the monitor's report is of version {report.version}, the champion is {seen.version or 'none'}"
    elif now - report.at > timedelta(minutes=policy.silent_minutes):
        said = f"the monitor is silent since {report.at:%Y-%m-%d %H:%M}: no action"
    elif state.last_start is not None and report.at <= state.last_start:
        said = "the monitor has said nothing since the last run"
    else:
        said = f"the monitor found nothing at {report.at:%H:%M}"
        known = {one.what for one in found}
        found += [one for one in report.findings if one.kind in wanted and one.what not in known]
    return tuple(found), (said,)


def _new_data(policy: LoopPolicy, state: WatchState, seen: Observations) -> Trigger | None:
    before, there = state.source, seen.source
    if before is None or there is None or before.fingerprint == there.fingerprint:
        return None
    more = None if before.rows is None or there.rows is None else there.rows - before.rows
    if policy.new_rows and (more is None or more < policy.new_rows):
        return None
    said = "the source has changed" if more is None else f"the source has changed: {more:+d} rows"
    return Trigger(reason=said, evidence={"kind": "new_data", "rows": there.rows, "rows_before": before.rows})


def _scheduled(policy: LoopPolicy, state: WatchState) -> datetime | None:
    """The next time of the schedule after the last run; times that were missed are one."""
    return policy.next_time(max(state.since, state.last_start or state.since))


def _held(
    policy: LoopPolicy, state: WatchState, seen: Observations, now: datetime
) -> tuple[str, datetime | None] | None:
    """Why no run may start now, and until when."""
    if seen.rollout:
        return f"waits for the rollout: {seen.rollout}", None
    ends = [*state.started, *([state.refused_at] if state.refused_at else [])]
    last = max(ends, default=None)
    if last is not None and now < last + policy.cooldown:
        since = " since a rollout was refused" if last == state.refused_at else ""
        return f"cooldown of {policy.cooldown_hours:g} hours{since}", last + policy.cooldown
    week = sorted(start for start in state.started if start > now - WEEK)
    if len(week) >= policy.runs_per_week:
        until = week[-policy.runs_per_week] + WEEK
        return f"{len(week)} of {policy.runs_per_week} runs of this week are used", until
    return None


def _waits(
    policy: LoopPolicy, state: WatchState, triggers: tuple[Trigger, ...], now: datetime
) -> tuple[str, datetime | None] | None:
    """Until when a change has to last before it starts a run; nothing else is waited for."""
    if state.found is None or now >= state.found + policy.wait or not all(map(_is_change, triggers)):
        return None
    return f"waits {policy.wait_hours:g} hours for labels of what has changed", state.found + policy.wait


def _is_change(trigger: Trigger) -> bool:
    return trigger.evidence.get("kind") in _CHANGES


def _stopped(state: WatchState) -> str:
    return f"stopped after {state.failures} failed runs in a row; go on: fairlead watch resume {state.model}"


def _action(state: WatchState, now: datetime, **fields: Any) -> Action:
    known = f"{fields['word']} {state.model} {state.run} {now.isoformat()}"
    return Action(id=hashlib.sha256(known.encode()).hexdigest()[:16], **fields)

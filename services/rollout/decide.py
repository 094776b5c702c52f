"""What happens next in a rollout: pure functions of its state, of what is seen, and of the time."""

from __future__ import annotations

from typing import Literal, NamedTuple

from contracts.errors import PlatformError
from services.rollout import evidence
from services.rollout.evidence import Verdict
from services.rollout.observation import Counts, Observation
from services.rollout.state import Phase, Rollout, Transition

Action = Literal["none", "route", "promote", "roll_back", "abort"]
Command = Literal["pause", "resume", "promote", "abort"]
COMMANDS: tuple[Command, ...] = ("pause", "resume", "promote", "abort")
_BY_ITSELF = "rollout"
_OF_LABELS = ("quality", "misses", "drafted")
_NOT_WAITED_FOR = ("quality", "misses")
_SUSPICIOUS = 3.0  # evidence against a version that labels do not have to wait for otherwise


class Decision(NamedTuple):
    """The state from now on, what is to be done once for it, and why.

    Attributes:
        action: none; route (weights changed); promote (the candidate is the champion now, the old version can go);
            roll_back and abort (the champion has all traffic, the candidate can go).
    """

    state: Rollout
    action: Action
    reasons: tuple[str, ...]


def advance(state: Rollout, seen: Observation, now: float) -> Decision:
    """The next state after a look at both versions; a rollout that has ended stays as it is."""
    if state.ended:
        return Decision(state, "none", state.reasons)
    state = _looked(state, seen, now)
    if reason := _failure(state, seen, now):
        return _moved(state, "rolled_back", "roll_back", reason, now)
    if state.phase == "starting":
        return _started(state, seen, now)
    if held := _held(state, seen, now):
        return _stay(state, held)
    if state.phase == "settling":
        reason = f"it had all traffic for {state.policy.warm_seconds:g} s"
        return _moved(state, "promoted", "promote", reason, now)
    following = state.weights[state.step + 1]
    if following == 100:
        unproven = [one for one in state.verdicts if _blocks(one)]
        if unproven:
            return _stay(state, tuple(f"{one.criterion}: not shown yet to be no worse" for one in unproven))
        return _settling(state, "no worse in anything that is judged", now, _BY_ITSELF)
    reason = f"{state.step_samples:.0f} requests in {now - state.step_began:.0f} s, and nothing is worse"
    return _stepped(state, state.step + 1, reason, now)


def steer(state: Rollout, command: Command, reason: str, actor: str, now: float) -> Decision:
    """The next state after a person's command.

    Raises:
        PlatformError: the rollout cannot do this now, and why.
    """
    if state.ended:
        raise _refused(state, command, f"it has ended: {state.phase.replace('_', ' ')}")
    if command == "abort":
        return _moved(state, "aborted", "abort", reason, now, actor)
    if command == "promote":
        if state.phase not in ("running", "settling"):
            raise _refused(state, command, f"{state.model}:{state.candidate} is not ready yet")
        if state.phase == "settling":
            return _moved(state, "promoted", "promote", reason, now, actor)
        return _settling(state, reason, now, actor)
    if state.paused == (command == "pause"):
        raise _refused(state, command, f"it is {'paused already' if state.paused else 'not paused'}")
    paused = state.model_copy(update={"paused": command == "pause", "step_began": now})
    return Decision(_noted(paused, command, reason, now, actor), "none", (reason,))


def _refused(state: Rollout, command: str, detail: str) -> PlatformError:
    return PlatformError(
        f"cannot {command} the rollout of {state.model}:{state.candidate}",
        detail=detail,
        fix=f"see fairlead rollouts {state.model}",
        code="no_rollout" if state.ended else "bad_command",
    )


def _looked(state: Rollout, seen: Observation, now: float) -> Rollout:
    """The state with what was counted since the last look as evidence."""
    candidate = seen.candidate
    unready = None if candidate is not None and candidate.ready else state.unready_since or now
    gone = min(now - state.looked, state.policy.no_data_seconds)
    with_data = state.phase == "running" and now - state.last_data < state.policy.no_data_seconds
    update: dict[str, object] = {"looked": now, "unready_since": unready}
    state = state.model_copy(update={**update, "active": state.active + (max(gone, 0.0) if with_data else 0.0)})
    if state.phase == "starting" or candidate is None or candidate.counts is None or seen.champion.counts is None:
        return state
    new = (seen.champion.counts, candidate.counts)
    if state.last is None:  # what was counted before the first request of the rollout only says what to expect
        trails = {name: evidence.first_trail(name, *new) for name in evidence.judged(state.policy)}
        return state.model_copy(update={"last": new, "trails": trails, "last_data": now})
    grown = tuple(count.since(before) for count, before in zip(new, state.last, strict=True))
    pending = tuple(waiting.plus(more) for waiting, more in zip(state.pending, grown, strict=True))
    counted = grown[1].requests + grown[1].unreached
    update = {
        "last": new,
        "pending": pending,
        "totals": tuple(total.plus(more) for total, more in zip(state.totals, grown, strict=True)),
        "step_samples": state.step_samples + counted,
        "last_data": now if counted else state.last_data,
    }
    late_labels = state.phase == "settling" and all(one.labelled for one in pending)
    if late_labels or all(one.requests + one.unreached for one in pending):
        update["trails"] = evidence.extended(state.trails, state.policy, *pending)
        update["pending"] = (Counts(), Counts())
    return _judged(state.model_copy(update=update))


def _judged(state: Rollout) -> Rollout:
    verdicts = tuple(evidence.verdict(name, trail, state.policy, *state.totals) for name, trail in state.trails.items())
    return state.model_copy(update={"verdicts": verdicts})


def _failure(state: Rollout, seen: Observation, now: float) -> str:
    """Why the candidate has to go; empty when it has not."""
    policy, candidate = state.policy, seen.candidate
    name = f"{state.model}:{state.candidate}"
    if candidate is not None and candidate.ended:
        return f"{name} ended: {candidate.ended}"
    if state.phase == "starting":
        late = now - state.began > policy.start_seconds
        return f"{name} was not ready within {policy.start_seconds:g} s: {_note(seen)}" if late else ""
    if state.unready_since is not None and now - state.unready_since >= policy.unready_seconds:
        return f"{name} is not ready for {now - state.unready_since:.0f} s: {_note(seen)}"
    late = state.phase == "settling"  # the champion gets no requests, but labels of its answers still come
    worse = [one for one in state.verdicts if one.says == "worse" and (not late or one.criterion in _OF_LABELS)]
    if worse and (seen.champion.ready or not seen.gone):
        return "; ".join(describe(one) for one in worse)
    if state.phase == "running" and state.active > policy.max_seconds and not state.paused:
        return f"not shown to be no worse within {policy.max_seconds:g} s of traffic"
    return ""


def _note(seen: Observation) -> str:
    return (seen.candidate.note if seen.candidate else "") or "it does not answer"


def _started(state: Rollout, seen: Observation, now: float) -> Decision:
    name = f"{state.model}:{state.candidate}"
    if state.paused:
        return _stay(state, ("paused",))
    if seen.candidate is None or not seen.candidate.ready:
        return _stay(state, (f"{name} is being started: {_note(seen)}",))
    if seen.candidate.counts is None or seen.champion.counts is None:
        return _stay(state, ("there are no metrics to judge by: " + (seen.candidate.note or seen.champion.note),))
    if state.weights[0] == 100:
        return _settling(state, f"{name} is ready", now, _BY_ITSELF)
    begun = state.model_copy(update={"phase": "running", "last_data": now})
    return _stepped(_looked(begun, seen, now), 0, f"{name} is ready", now)


def _held(state: Rollout, seen: Observation, now: float) -> tuple[str, ...]:
    """Why nothing moves on now; empty when it may."""
    policy, found = state.policy, []
    if state.paused:
        found.append("paused")
    if seen.gone:
        found.append(f"the champion is gone: {seen.gone}; promote or abort it by hand")
    if seen.candidate is None or not seen.candidate.ready:
        found.append(f"{state.model}:{state.candidate} is not ready: {_note(seen)}")
    if state.phase == "settling":
        left = policy.warm_seconds - (now - state.step_began)
        return (*found, f"the old version is kept for {left:.0f} s") if left > 0 else tuple(found)
    if not seen.champion.ready and not seen.gone:
        found.append(f"the champion is not ready: {seen.champion.note}")
    if seen.candidate is not None and (seen.candidate.counts is None or seen.champion.counts is None):
        found.append("no metrics: nothing is promoted unseen")
    if now - state.last_data >= policy.no_data_seconds:
        found.append(f"no requests reached it for {now - state.last_data:.0f} s")
    if state.step_samples < policy.step_samples:
        found.append(f"{state.step_samples:.0f} of {policy.step_samples} requests of this step")
    if now - state.step_began < policy.step_seconds:
        found.append(f"{policy.step_seconds - (now - state.step_began):.0f} s of this step are left")
    return tuple(found)


def _blocks(one: Verdict) -> bool:
    """Whether the last step waits for it: for errors, for what has numbers, and for labels that speak against it.

    Drafted lists are only judged where somebody asked for it: it waits for them, too.
    """
    if one.says == "no data":
        return one.criterion in ("errors", "drafted")
    return one.says == "unproven" and (one.criterion not in _NOT_WAITED_FOR or one.worse >= _SUSPICIOUS)


def _stay(state: Rollout, reasons: tuple[str, ...]) -> Decision:
    return Decision(state.model_copy(update={"reasons": reasons}), "none", reasons)


def _stepped(state: Rollout, step: int, reason: str, now: float) -> Decision:
    moved = state.model_copy(update={"step": step, "step_began": now, "step_samples": 0.0, "reasons": (reason,)})
    return Decision(_noted(moved, "step", reason, now, _BY_ITSELF), "route", (reason,))


def _settling(state: Rollout, reason: str, now: float, actor: str) -> Decision:
    update = {"phase": "settling", "step": len(state.weights) - 1, "step_began": now, "step_samples": 0.0}
    moved = state.model_copy(update={**update, "reasons": (reason,)})
    return Decision(_noted(moved, "all traffic", reason, now, actor), "route", (reason,))


def _moved(state: Rollout, phase: Phase, action: Action, reason: str, now: float, actor: str = _BY_ITSELF) -> Decision:
    moved = state.model_copy(update={"phase": phase, "paused": False, "step_began": now, "reasons": (reason,)})
    return Decision(_noted(moved, action.replace("_", " "), reason, now, actor), action, (reason,))


def _noted(state: Rollout, action: str, reason: str, now: float, actor: str) -> Rollout:
    noted = Transition(
        number=len(state.transitions),
        at=now,
        action=action,
        actor=actor,
        weight=state.weight,
        reason=reason,
        evidence={one.criterion: one.model_dump(exclude={"criterion"}) for one in state.verdicts},
    )
    return state.model_copy(update={"transitions": (*state.transitions, noted)})


def describe(one: Verdict) -> str:
    """A verdict in a sentence."""
    where = f" ({one.share})" if one.share else ""
    values = ""
    if one.champion is not None and one.candidate is not None:
        unit = 1000 if one.criterion == "latency" else 100
        sign = "ms" if one.criterion == "latency" else "%"
        values = f": {one.candidate * unit:.3g} {sign}, the champion's are {one.champion * unit:.3g} {sign}"
    return f"{one.criterion}{where} are shown to be worse{values} (evidence {one.worse:.3g} of {one.worse_needed:.3g})"

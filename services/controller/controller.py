"""One pass over a model: look, decide, write the decision down, then do it, each action at most once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from contracts.audit import AuditLog
from contracts.errors import PlatformError
from contracts.loop_policy import LoopPolicy
from services.controller.decide import decide
from services.controller.observations import Observations
from services.controller.state import Action, States, WatchState

ACTOR = "controller"

_PASSING = ("storage_unreachable", "storage_denied", "no_tracking", "kfp", "kubernetes")  # of a start: tried again


class Hands(Protocol):
    """How the controller sees and acts where it runs: on this machine, or on a cluster."""

    def observe(self, policy: LoopPolicy, state: WatchState) -> Observations:
        """What there is to see of a model now; what cannot be seen is None and said."""
        ...

    def start_run(self, policy: LoopPolicy, state: WatchState, run: str) -> None:
        """Start the run of this name, or nothing when it was ever started.

        Raises:
            PlatformError: it cannot be started.
        """
        ...

    def start_rollout(self, policy: LoopPolicy, ref: str, action: str, compared: bool) -> None:
        """Ask for the rollout of a version; asked again with the same action's id, it is the same one.

        compared: whether its answers are to be like the champion's.
        """
        ...


class Controller:
    """Watches models. What it decides is on disk before it acts, so it may be killed at any point and goes on."""

    def __init__(
        self, states: States, log: AuditLog, hands: Hands, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._states, self._log, self._hands, self._clock = states, log, hands, clock

    def watch(self, model: str, task: str, policy: LoopPolicy) -> WatchState:
        """One pass over a model; returns its state afterwards.

        Raises:
            PlatformError: the state, the audit log or what is acted on cannot be reached; the next pass tries again.
        """
        state = self._states.read(model) or WatchState(model=model, task=task, since=self._clock())
        if state.pending:
            state = self._done(policy, state, again=True)
        after = decide(policy, state, self._hands.observe(policy, state), self._clock())
        if after != state:
            self._states.write(after)
        return self._done(policy, after, again=False)

    def _done(self, policy: LoopPolicy, state: WatchState, again: bool) -> WatchState:
        """The state after its pending actions; with `again` the first of them may be done already."""
        while state.pending:
            action, *rest = state.pending
            if not (again and self._noted(action)):
                self._log.append(
                    actor=ACTOR,
                    action=action.word,
                    subject=action.subject,
                    reason=action.reason,
                    evidence={**action.evidence, "action": action.id},
                )
            trouble = self._act(policy, state, action)
            state = state.having(pending=tuple(rest), trouble=trouble or state.trouble)
            self._states.write(state)
        return state

    def _act(self, policy: LoopPolicy, state: WatchState, action: Action) -> str:
        """Do it; returns why a run could not be started."""
        if action.kind == "start_rollout":
            compared = bool(action.evidence.get("answers_compared", True))
            self._hands.start_rollout(policy, action.subject, action.id, compared)
        elif action.kind == "start_run":
            try:
                self._hands.start_run(policy, state, action.id)
            except PlatformError as err:
                if err.code in _PASSING:
                    raise
                return str(err)
        return ""

    def _noted(self, action: Action) -> bool:
        return any(entry.evidence.get("action") == action.id for entry in self._log.read(subject=action.subject))

"""Looks after the rollouts of one model: reads what is asked, looks, decides, keeps the state, and makes it so.

The state is written before anything follows from it, and what follows is made to be so again and again until it is. A
keeper that is started anew therefore goes on where another one ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from contracts.errors import PlatformError
from services.rollout.decide import advance, steer
from services.rollout.observation import Observation
from services.rollout.state import Rollout, Transition, new_rollout
from services.rollout.store import Request, Served

Record = Callable[[Rollout, Transition], None]
"""Notes a transition for good; called again with the same one after a crash, it notes it once."""


class Fleet(Protocol):
    """The versions of a model that run, and the router before them."""

    def observe(self, champion: str, candidate: str) -> Observation:
        """What is seen of two versions now."""
        ...

    def arrange(self, champion: str, candidate: str, weight: float, mirrors: bool, drafts: bool = False) -> None:
        """Let these versions run and no others, and route so; does nothing where it is so already."""
        ...

    def promote(self, version: str, reason: str) -> None:
        """Make a version the champion for whoever asks from now on; does nothing for the one that is."""
        ...

    def withdraw(self, version: str, champion: str) -> None:
        """Make `champion` the champion again where `version`, which was rolled back, is it by now."""
        ...


class Kept(Protocol):
    """Where the state is kept, and what is asked for meanwhile."""

    def asked(self, model: str) -> Iterable[tuple[Any, Request]]:
        """Requests that wait, the oldest first, each with a mark."""
        ...

    def done(self, mark: Any) -> None:
        """Take a request away that was answered."""
        ...

    def write(self, served: Served) -> None:
        """Replace the state whole; it is kept when this returns."""
        ...


class Keeper:
    """The loop of one model, one `tick` at a time."""

    def __init__(self, store: Kept, fleet: Fleet, record: Record, served: Served) -> None:
        self._store, self._fleet, self._record = store, fleet, record
        self.served = served

    def tick(self, now: float) -> None:
        """One look."""
        for mark, request in self._store.asked(self.served.model):
            if request.id not in self.served.answers:
                self._keep(self._asked(request, now))
            self._store.done(mark)
        rollout = self.served.rollout
        if rollout is not None and not rollout.ended:
            seen = self._fleet.observe(rollout.champion, rollout.candidate)
            self._keep(self._changed(advance(rollout, seen, now).state))
        self._keep(self.served.model_copy(update={"looked": now}))
        self._follow()

    def _keep(self, served: Served) -> None:
        self._store.write(served)
        self.served = served

    def _changed(self, rollout: Rollout) -> Served:
        outcomes = dict(self.served.outcomes)
        if rollout.ended:
            outcomes[rollout.phase] = outcomes.get(rollout.phase, 0) + 1
        return self.served.model_copy(update={"rollout": rollout, "outcomes": outcomes})

    def _asked(self, request: Request, now: float) -> Served:
        """The document after a request, with the answer to it."""
        try:
            rollout = self._new(request, now) if request.command == "start" else self._steered(request, now)
        except PlatformError as err:
            return self.served.answered(request.id, err)
        changed = self._changed(rollout)
        if request.place is not None:
            places = {version: place for version, place in changed.places.items() if version == changed.version}
            changed = changed.model_copy(update={"places": {**places, request.candidate: request.place}})
        return changed.answered(request.id, None)

    def _steered(self, request: Request, now: float) -> Rollout:
        rollout = self.served.rollout
        if rollout is None or request.command == "start":
            raise PlatformError(
                f"{self.served.model} has no rollout to {request.command}",
                fix=f"start one: fairlead deploy {self.served.model}:VERSION --strategy canary --env local",
                code="no_rollout",
            )
        return steer(rollout, request.command, request.reason, request.actor, now).state

    def _new(self, request: Request, now: float) -> Rollout:
        served = self.served
        if served.rollout is not None and not served.rollout.ended:
            under_way = served.rollout
            raise PlatformError(
                f"{served.model} has a rollout already: {served.model}:{under_way.candidate}, {under_way.shown_phase}",
                detail="; ".join(under_way.reasons),
                fix=f"wait for its end, or end it: fairlead rollouts abort {served.model} --reason WHY",
                code="rollout_in_progress",
            )
        if request.candidate == served.version:
            raise PlatformError(
                f"{served.model}:{request.candidate} has all traffic already",
                fix="name another version, see fairlead models",
                code="bad_rollout",
            )
        arguments = (served.model, served.version, request.candidate, request.strategy, request.policy, now)
        begun = new_rollout(request.id, *arguments)
        first = Transition(
            number=0, at=now, action=f"start {request.strategy}", actor=request.actor, weight=0, reason=request.reason
        )
        return begun.model_copy(update={"transitions": (first,)})

    def _follow(self) -> None:
        """Make what runs, what is routed, what is the champion and what is recorded as the state says."""
        rollout = self.served.rollout
        if rollout is None:
            self._fleet.arrange(self.served.version, "", 0, False)
            return
        self._note(rollout)
        if rollout.phase == "promoted" and self.served.version == rollout.champion:
            self._fleet.promote(rollout.candidate, rollout.reasons[0])
            self._keep(self.served.model_copy(update={"version": rollout.candidate}))
        if rollout.ended:
            self._fleet.arrange(self.served.version, "", 0, False)
            if rollout.phase != "promoted" and not rollout.withdrawn:
                self._fleet.withdraw(rollout.candidate, rollout.champion)
                done = {"withdrawn": True, "recorded": len(rollout.transitions)}
                self._keep(self.served.model_copy(update={"rollout": rollout.model_copy(update=done)}))
        else:
            self._fleet.arrange(rollout.champion, rollout.candidate, rollout.weight, rollout.mirrors, rollout.drafts)

    def _note(self, rollout: Rollout) -> None:
        waiting: Sequence[Transition] = rollout.transitions[rollout.recorded :]
        for done, transition in enumerate(waiting, start=1):
            self._record(rollout, transition)
            noted = rollout.model_copy(update={"recorded": rollout.recorded + done})
            self._keep(self.served.model_copy(update={"rollout": noted}))

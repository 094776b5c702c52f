"""A rollout as a document: what it is, how far it has come, and on which evidence."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from contracts.document import Document
from contracts.rollout_policy import RolloutPolicy, Strategy
from services.rollout.evidence import Trail, Verdict
from services.rollout.observation import Counts

Phase = Literal["starting", "running", "settling", "promoted", "rolled_back", "aborted"]
PHASES: tuple[str, ...] = ("starting", "running", "paused", "settling", "promoted", "rolled_back", "aborted")
ENDED = frozenset({"promoted", "rolled_back", "aborted"})


class Transition(Document):
    """One change of a rollout, for the record."""

    number: int
    at: float
    action: str
    actor: str
    weight: float
    reason: str
    evidence: dict[str, Any] = Field({})


class Rollout(Document):
    """One candidate on its way to all traffic, or to none.

    Attributes:
        phase: starting (not ready yet), running, settling (has all traffic, the old version is warm), or its end.
        step: index into `weights`.  paused: a person holds it.
        active: seconds with traffic.  step_samples: requests that the candidate answered in this step.
        last: counters of both versions when they were last read.  pending: counts that wait to be a whole block.
        reasons: why it does what it does now.  recorded: how many transitions are in the audit log.
        withdrawn: of a candidate that was rolled back: it is the champion of nobody any more.
    """

    id: str
    model: str
    champion: str
    candidate: str
    strategy: Strategy = "canary"
    policy: RolloutPolicy = RolloutPolicy()
    phase: Phase = "starting"
    paused: bool = False
    step: int = 0
    began: float
    step_began: float
    looked: float
    last_data: float
    unready_since: float | None = None
    active: float = 0
    step_samples: float = 0
    last: tuple[Counts, Counts] | None = None
    pending: tuple[Counts, Counts] = (Counts(), Counts())
    totals: tuple[Counts, Counts] = (Counts(), Counts())
    trails: dict[str, Trail] = Field({})
    verdicts: tuple[Verdict, ...] = ()
    reasons: tuple[str, ...] = ()
    transitions: tuple[Transition, ...] = ()
    recorded: int = 0
    withdrawn: bool = False

    @property
    def weights(self) -> tuple[float, ...]:
        """% of the traffic by step; in a shadow step nobody gets the candidate's answers."""
        return {"canary": self.policy.weights, "shadow": (0.0, 100.0), "direct": (100.0,)}[self.strategy]

    @property
    def weight(self) -> float:
        """% of the traffic that the candidate gets now."""
        if self.phase == "running":
            return self.weights[self.step]
        return 100.0 if self.phase in ("settling", "promoted") else 0.0

    @property
    def mirrors(self) -> bool:
        """Whether the candidate gets copies of requests."""
        return self.strategy == "shadow" and self.phase == "running"

    @property
    def drafts(self) -> bool:
        """Whether the candidate drafts its lists with the champion."""
        return self.policy.drafted.judged and self.strategy == "canary" and self.phase == "running"

    @property
    def ended(self) -> bool:
        return self.phase in ENDED

    @property
    def shown_phase(self) -> str:
        return "paused" if self.paused and not self.ended else self.phase


def new_rollout(
    identifier: str, model: str, champion: str, candidate: str, strategy: Strategy, policy: RolloutPolicy, now: float
) -> Rollout:
    """A rollout that has not begun."""
    return Rollout(
        id=identifier,
        model=model,
        champion=champion,
        candidate=candidate,
        strategy=strategy,
        policy=policy,
        began=now,
        step_began=now,
        looked=now,
        last_data=now,
        reasons=(f"{model}:{candidate} is being started",),
    )

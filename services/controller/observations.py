"""What the controller sees at one moment: the monitor's report, alerts, its run, the source, and what people said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from services.controller.state import Source

ENDED = ("succeeded", "refused", "failed", "dead", "ended", "cancelled")
"""How a run may have ended: of ``dead`` the process went without a word, of ``ended`` nothing says what it made."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that the monitor or an alert says is wrong with a model.

    Attributes:
        kind: which rule of the policy it is for.
        what: in words, such as ``amount drifts``.
    """

    kind: Literal["drift", "quality"]
    what: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the monitor has said last of one version of a model."""

    version: str
    at: datetime
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RunSeen:
    """How a run stands.

    Attributes:
        status: starting, running, waiting, or one of `ENDED`.
        version: the model that it registered.
        said: why the gate refused it, or why it failed.
    """

    status: str
    version: str = ""
    said: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RolloutSeen:
    """What became of a rollout that the loop asked for.

    Attributes:
        phase: promoted, rolled_back, aborted; not_started: it was refused; replaced: by another one.
        said: why.
        evidence: what the rollout was judged by.
    """

    phase: str
    said: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Observations:
    """All that a decision rests on. What could not be seen is None, and `silent` says why.

    Attributes:
        version: of the champion; empty where there is none.
        alerts: firing for the model; None where nobody was asked, or there was no answer.
        run: of `WatchState.run`.
        rollout: what is in progress, in words; empty where nothing is.
        outcome: of `WatchState.rollout`; None while it has not ended, or is not seen.
        can_roll_out: whether somebody takes a candidate to traffic.
    """

    version: str = ""
    report: Report | None = None
    alerts: tuple[Finding, ...] | None = None
    run: RunSeen | None = None
    source: Source | None = None
    rollout: str = ""
    outcome: RolloutSeen | None = None
    can_roll_out: bool = False
    approved: datetime | None = None
    resumed: datetime | None = None
    silent: tuple[str, ...] = ()

"""Transitions of rollouts in the audit log, each once."""

from __future__ import annotations

from contracts.audit import AuditLog
from services.rollout.keeper import Record
from services.rollout.state import Rollout, Transition


def recorder(log: AuditLog) -> Record:
    """Note transitions; the first one is looked for, since a crash may have come after it was noted."""
    sure = False

    def record(rollout: Rollout, transition: Transition) -> None:
        nonlocal sure
        key = {"rollout": rollout.id, "transition": transition.number}
        subject = f"{rollout.model}:{rollout.candidate}"
        known = [] if sure else [one.evidence for one in log.read(subject=subject)]
        sure = True
        if any(key.items() <= evidence.items() for evidence in known):
            return
        action = f"rollout {transition.action}"
        evidence = {**key, "weight": transition.weight, "judged": transition.evidence}
        log.append(actor=transition.actor, action=action, subject=subject, reason=transition.reason, evidence=evidence)

    return record

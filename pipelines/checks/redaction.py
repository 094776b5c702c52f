"""Redaction: how much of the labelled personal data must be found, and how little may be left, ``gate.redaction``."""

from __future__ import annotations

from contracts.bundle import Check
from pipelines.checks.base import Candidate, Finding


class Redaction:
    """A limit for a kind that ``data.pii_labelled`` does not hold, or without such a file, is not kept."""

    name = "redaction"
    order = 17

    def find(self, candidate: Candidate) -> Finding:
        """A verdict on each limit of each kind."""
        settings, told = candidate.settings.redaction, candidate.evaluation.get("redaction") or {}
        kinds = told.get("kinds", {})
        checks = []
        for kind, limit in settings.recall.items():
            value = kinds.get(kind, {}).get("recall")
            passed = value is not None and value >= limit
            checks.append(_check(f"redaction:{kind}:recall", "at least", value, limit, passed))
        for kind, limit in settings.leaked.items():
            value = kinds.get(kind, {}).get("leaked")
            passed = value is not None and value <= limit
            checks.append(_check(f"redaction:{kind}:leaked", "at most", value, limit, passed))
        unmeasured = sorted({*settings.recall, *settings.leaked} - set(kinds))
        notes = [f"gate.redaction: no text of data.pii_labelled has {kind!r}" for kind in unmeasured]
        return Finding(checks=checks, notes=notes)


def _check(metric: str, rule: str, value: float | None, limit: float, passed: bool) -> Check:
    return Check(metric=metric, rule=rule, value=value, limit=limit, passed=passed)


CHECK = Redaction()

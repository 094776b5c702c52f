"""The fixed limits of the configuration: ``gate.thresholds``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contracts.bundle import Check
from pipelines.checks.base import Candidate, Finding, lookup
from pipelines.task import Threshold


class Thresholds:
    """Each rule by itself; a metric that was not measured fails."""

    name = "thresholds"
    order = 10

    def find(self, candidate: Candidate) -> Finding:
        """A verdict on each rule."""
        return Finding(checks=[_against(rule, candidate.evaluation) for rule in candidate.settings.thresholds])


def _against(rule: Threshold, evaluation: Mapping[str, Any]) -> Check:
    limit, at_least = rule.limit, rule.minimum is not None
    value = lookup(rule.metric, evaluation)
    return Check(
        metric=rule.metric,
        rule="at least" if at_least else "at most",
        value=value,
        limit=limit,
        passed=value is not None and (value >= limit if at_least else value <= limit),
    )


CHECK = Thresholds()

"""What serving costs: time of one prediction and size, ``gate.max_latency_ms`` and ``gate.max_bundle_mb``."""

from __future__ import annotations

from contracts.bundle import Check
from pipelines.checks.base import Candidate, Finding


class ServingCost:
    """Both are measured when a candidate is evaluated."""

    name = "serving_cost"
    order = 20

    def find(self, candidate: Candidate) -> Finding:
        """A verdict on each."""
        evaluation, settings = candidate.evaluation, candidate.settings
        limits = [
            ("latency_ms", evaluation["latency_ms"]["p50"], settings.max_latency_ms),
            ("bundle_mb", evaluation["bundle_mb"], settings.max_bundle_mb),
        ]
        return Finding(
            checks=[
                Check(metric=name, rule="at most", value=value, limit=limit, passed=value <= limit)
                for name, value, limit in limits
            ]
        )


CHECK = ServingCost()

"""Forgetting: what a tuned chat model lost of what its base knew, ``gate.tuning``."""

from __future__ import annotations

from contracts.bundle import Check
from pipelines.checks.base import Candidate, Finding


class Forgetting:
    """Measured before and after on a fixed set that has nothing of the task, see `conversations.general_measures`."""

    name = "forgetting"
    order = 18

    def find(self, candidate: Candidate) -> Finding:
        """The verdicts on a tuned model: points that it lost, and bits per byte that it needs more."""
        told = candidate.evaluation.get("tuning")
        if not told:
            return Finding()
        limits, general = candidate.settings.tuning, told["general"]
        lost = general["score"][0] - general["score"][1]
        more = general["bits_per_byte"][1] - general["bits_per_byte"][0]
        found = [("general:score_lost", lost, limits.forgotten), ("general:bits_more", more, limits.forgotten_bits)]
        return Finding(
            checks=[
                Check(metric=name, rule="at most", value=round(value, 4), limit=limit, passed=value <= limit)
                for name, value, limit in found
                if limit is not None
            ]
        )


CHECK = Forgetting()

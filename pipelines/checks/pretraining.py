"""Pretraining: whether a language model from scratch is better than counting, and writes more than it was shown."""

from __future__ import annotations

from contracts.bundle import Check
from pipelines.checks.base import Candidate, Finding


class Pretraining:
    """``gate.tuning.above_ngram`` and ``gate.tuning.memorised``, of what training measured."""

    name = "pretraining"
    order = 17

    def find(self, candidate: Candidate) -> Finding:
        """The verdicts on a model from scratch."""
        told = candidate.evaluation.get("pretraining")
        if not told:
            return Finding()
        limits, found = candidate.settings.tuning, []
        if limits.above_ngram is not None:
            found.append(
                ("valid_bits_per_byte", told["bits_per_byte"], told["ngram"]["bits_per_byte"] + limits.above_ngram)
            )
        if limits.memorised is not None and told["memorised"] is not None:
            found.append(("memorised", told["memorised"], (told["memorised_held_out"] or 0.0) + limits.memorised))
        return Finding(
            checks=[
                Check(metric=name, rule="at most", value=value, limit=round(limit, 4), passed=value <= limit)
                for name, value, limit in found
            ]
        )


CHECK = Pretraining()

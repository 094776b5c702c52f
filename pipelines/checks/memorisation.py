"""Memorisation: whether a model that draws gives training images back."""

from __future__ import annotations

from contracts.bundle import Check
from pipelines.checks.base import Candidate, Finding


class Memorisation:
    """Nothing of a model that draws no images; the limit is ``gate.max_copied``, a share of the test's rows.

    An image is a copy where it is nearer to a training image than half of what one in twenty held-out real ones is; see
    N. Carlini et al.: Extracting training data from diffusion models, 2023.
    """

    name = "memorisation"
    order = 26

    def find(self, candidate: Candidate) -> Finding:
        """The share of copies among the images of the test."""
        found = candidate.evaluation.get("memorisation")
        if not found:
            return Finding()
        share, limit = found["copies"] / max(1, found["rows"]), candidate.settings.max_copied
        check = Check(metric="copied", rule="at most", value=share, limit=limit, passed=share <= limit)
        return Finding(checks=[check])


CHECK = Memorisation()

"""Privacy: what private models of a version of a data set have cost together, ``gate.privacy``."""

from __future__ import annotations

from contracts.bundle import Check
from contracts.privacy_ledger import PrivacyLedger
from pipelines.checks.base import Candidate, Finding

_METRIC = "privacy:epsilon"


class Privacy:
    """A model whose training no ledger knows is refused, as what it costs cannot be added up."""

    name = "privacy"
    order = 16

    def find(self, candidate: Candidate) -> Finding:
        """The verdict on a private model, or on one that should be."""
        settings, told = candidate.settings.privacy, candidate.evaluation.get("privacy")
        if not told:
            note = "gate.privacy.required asks for a private model: train with privacy.epsilon"
            check = _check(None, settings.epsilon or 0.0)
            return Finding(checks=[check], notes=[note]) if settings.required else Finding()
        charges = PrivacyLedger(candidate.endpoints).charges(told["data_version"]) if told["charge"] else []
        if told["charge"] not in [one.id for one in charges]:
            note = "the ledger does not know this training, so what it cost cannot be added up: see fairlead privacy"
            return Finding(checks=[_check(None, settings.epsilon or 0.0)], notes=[note])
        if settings.epsilon is None:
            return Finding()
        from pipelines.training.privacy import spent

        total = spent([release for one in charges for release in one.releases], settings.delta)
        return Finding(checks=[_check(total, settings.epsilon)])


def _check(value: float | None, limit: float) -> Check:
    return Check(metric=_METRIC, rule="at most", value=value, limit=limit, passed=value is not None and value <= limit)


CHECK = Privacy()

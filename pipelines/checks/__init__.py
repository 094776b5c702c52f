"""The gate's checks are discovered: every module here with a ``CHECK``, and those that other packages add.

Another package adds one by the entry point ``fairlead.checks``. All of them are made, of every candidate, and one that
fails refuses it: none of ours can be replaced or left out.
"""

from __future__ import annotations

from contracts.plugins import Rooms
from pipelines.checks.base import Candidate, Finding, GateCheck

CHECKS = Rooms("check", "pipelines.checks", "CHECK")


def all_findings(candidate: Candidate) -> list[Finding]:
    """What every check finds, in their order.

    Raises:
        PlatformError: ``code="bad_plugin"``: a check of another package cannot be loaded.
    """
    checks: list[GateCheck] = [CHECKS.get(name) for name in CHECKS.names()]
    return [check.find(candidate) for check in sorted(checks, key=lambda each: (each.order, each.name))]

"""Fairness: how differently groups may be treated, ``gate.fairness``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contracts.bundle import Check
from contracts.errors import PlatformError
from contracts.fairness import BETWEEN, MEASURES
from pipelines.checks.base import Candidate, Finding
from pipelines.settings import setting
from pipelines.task import FairnessConfig

_AT_LEAST = "selection_ratio"


class Fairness:
    """A limit that is asked for and cannot be measured is not kept; groups that are too small are named."""

    name = "fairness"
    order = 15

    def find(self, candidate: Candidate) -> Finding:
        """A verdict on each limit in each column.

        Raises:
            PlatformError: ``code="bad_config"``: ``gate.fairness.columns`` names a column that was not measured.
        """
        settings, found = candidate.settings.fairness, candidate.evaluation.get("fairness")
        limits = {name: getattr(settings, name) for name in MEASURES if getattr(settings, name) is not None}
        known = [] if found is None else list(found["columns"])
        if unknown := [name for name in settings.columns if name not in known]:
            raise PlatformError(
                f"gate.fairness.columns names {unknown[0]!r}, which is no sensitive column of task {candidate.task}",
                detail=f"measured: {', '.join(known) or 'none'}",
                fix=setting("gate.fairness.columns", [name for name in settings.columns if name in known]),
                code="bad_config",
            )
        if found is None:
            return Finding(checks=[_check(f"fairness:{name}", name, None, limit) for name, limit in limits.items()])
        judged = {name: found["columns"][name] for name in known if _is_judged(name, settings)}
        checks = [
            _check(f"{column}:{name}", name, measured[name], limit)
            for column, measured in judged.items()
            for name, limit in limits.items()
        ]
        return Finding(checks=checks, notes=[note for column in judged for note in _notes(column, judged[column])])


def _is_judged(column: str, settings: FairnessConfig) -> bool:
    """Whether its groups are; an intersection only where that is asked for, and of columns that are judged."""
    parts = column.split(BETWEEN)
    if len(parts) > 1 and not settings.intersections:
        return False
    return not settings.columns or column in settings.columns or all(part in settings.columns for part in parts)


def _check(metric: str, name: str, value: float | None, limit: float) -> Check:
    least = name == _AT_LEAST
    passed = value is not None and (value >= limit if least else value <= limit)
    return Check(metric=metric, rule="at least" if least else "at most", value=value, limit=limit, passed=passed)


def _notes(column: str, measured: Mapping[str, Any]) -> list[str]:
    small = [f"{one['name']} ({one['rows']})" for one in measured["groups"] if not one["judged"]]
    found = [f"{column}: not judged, as too few or not stated: {', '.join(small)}"] if small else []
    return [*found, *([f"{column}: {measured['note']}"] if measured["note"] else [])]


CHECK = Fairness()

"""Explanations: reasons that are told must be true of the model, ``gate.explanations``."""

from __future__ import annotations

from contracts.bundle import Check
from pipelines.checks.base import Candidate, Finding
from pipelines.settings import setting


class Explanations:
    """Reasons that are no better than a random order refuse a model: whoever gets them would be told wrong ones."""

    name = "explanations"
    order = 16

    def find(self, candidate: Candidate) -> Finding:
        """A verdict on each limit; none on a model that gives no reasons, unless they are required."""
        settings, told = candidate.settings.explanations, candidate.evaluation.get("explanations") or {}
        limits = {name: getattr(settings, name) for name in ("above_random", "stability")}
        asked = {name: limit for name, limit in limits.items() if limit is not None}
        if not told and not settings.required:
            return Finding(notes=[_NONE] if asked else ())
        if not told:
            asked = asked or {"above_random": 0.0}
        checks, notes = [], []
        for name, limit in asked.items():
            value = told.get(name)
            above = name == "above_random"
            passed = value is not None and (value > limit if above else value >= limit)
            rule = "above" if above else "at least"
            checks.append(Check(metric=f"explanations:{name}", rule=rule, value=value, limit=limit, passed=passed))
            if not passed and value is not None:
                notes.append(_FIXES[name].format(setting(f"gate.explanations.{name}", None)))
        return Finding(checks=checks, notes=notes)


_NONE = "gate.explanations: this model gives no reasons, so none were judged"
_FIXES = {
    "above_random": "the reasons are no truer of this model than a random order: take another recipe, or judge models "
    "whose reasons nobody is told by {}",
    "stability": "the reasons change with rows that hardly do: take a smoother model, or ask for less: {}",
}

CHECK = Explanations()

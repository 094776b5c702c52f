"""Decide whether a candidate may become champion: every check of `pipelines.checks` must pass."""

from __future__ import annotations

from pathlib import Path

from contracts.bundle import Check, GateDecision
from contracts.endpoints import Endpoints
from pipelines.checks import all_findings
from pipelines.checks.base import Candidate
from pipelines.evaluation.comparison import describe
from pipelines.io import events
from pipelines.io.files import read_json, write_text
from pipelines.tasks import get_task, load_config


def gate(task: str, config: str, dataset: str, candidate: str, endpoints: str, out: str) -> bool:
    """Write the GateDecision to `out` and return whether the candidate passed; a refusal is an answer, not an error."""
    settings = load_config(get_task(task), config).gate
    evaluation = read_json(Path(candidate) / "evaluation.json")
    where = Endpoints.model_validate_json(endpoints)
    about = {"task": task, "evaluation": evaluation, "settings": settings, "endpoints": where}
    findings = all_findings(Candidate(folder=Path(candidate), dataset=Path(dataset), **about))
    checks = [check for found in findings for check in found.checks]
    notes = [note for found in findings for note in found.notes]
    champion = next((found.champion for found in findings if found.champion), None)
    # What training chose between has passed its check; what it turned down is no fault of the candidate.
    for choice in map(Check.model_validate, evaluation.get("choices", ())):
        if choice.passed:
            checks.append(choice)
        else:
            notes.append(f"not taken: {_reason(choice)}")
    reasons = [_reason(check) for check in checks if not check.passed or check.difference is not None] + notes
    decision = GateDecision(passed=all(c.passed for c in checks), checks=checks, champion=champion, reasons=reasons)
    write_text(Path(out), decision.model_dump_json(indent=1) + "\n")
    for reason in reasons:
        events.emit("log", step="gate", message=reason)
    return decision.passed


def _reason(check: Check) -> str:
    if check.difference is not None:
        return describe(check)
    against = "" if check.against == "fixed" else f" ({check.against} with tolerance)"
    if check.value is None:
        return f"{check.metric} was not measured, and must be {check.rule} {check.limit:.4g}"
    return f"{check.metric} is {check.value:.4g}, must be {check.rule} {check.limit:.4g}{against}"

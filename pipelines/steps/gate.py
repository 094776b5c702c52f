"""Decide whether a candidate may become champion: fixed limits, and not worse than the champion."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contracts.bundle import Bundle, Check, GateDecision
from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from contracts.registry import CHAMPION, Registry
from pipelines.steps import events, scoring
from pipelines.steps.comparison import compare, describe
from pipelines.steps.files import read_json, write_text
from pipelines.tasks import get_task, load_config
from pipelines.tasks.base import GateConfig, Threshold
from pipelines.tasks.settings import setting


def gate(task: str, config: str, dataset: str, candidate: str, endpoints: str, out: str) -> bool:
    """Write the GateDecision to `out` and return whether the candidate passed; a refusal is an answer, not an error."""
    settings = load_config(get_task(task), config).gate
    evaluation = read_json(Path(candidate) / "evaluation.json")
    checks = [_against_limit(rule, evaluation) for rule in settings.thresholds]
    checks += _cost_of_serving(settings, evaluation)
    champion, compared, notes = _against_champion(task, settings, evaluation, dataset, candidate, endpoints)
    checks += compared
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


def _against_limit(rule: Threshold, evaluation: Mapping[str, Any]) -> Check:
    limit, at_least = rule.limit, rule.minimum is not None
    value = lookup(rule.metric, evaluation)
    return Check(
        metric=rule.metric,
        rule="at least" if at_least else "at most",
        value=value,
        limit=limit,
        passed=value is not None and (value >= limit if at_least else value <= limit),
    )


def lookup(metric: str, evaluation: Mapping[str, Any]) -> float | None:
    """A metric by name, of a slice as ``slice:value:metric``; None when it was not measured."""
    if metric in evaluation["metrics"]:
        return float(evaluation["metrics"][metric])
    for key, values in evaluation["slices"].items():
        name = metric.removeprefix(f"{key}:")
        if name != metric and name in values:
            return float(values[name])
    return None


def _cost_of_serving(settings: GateConfig, evaluation: Mapping[str, Any]) -> list[Check]:
    latency, size = evaluation["latency_ms"]["p50"], evaluation["bundle_mb"]
    limits = [("latency_ms", latency, settings.max_latency_ms), ("bundle_mb", size, settings.max_bundle_mb)]
    return [
        Check(metric=name, rule="at most", value=value, limit=limit, passed=value <= limit)
        for name, value, limit in limits
    ]


def _against_champion(
    task: str, settings: GateConfig, evaluation: Mapping[str, Any], dataset: str, candidate: str, endpoints: str
) -> tuple[str | None, list[Check], list[str]]:
    """The champion's name, the comparison with it, and remarks."""
    primary = settings.primary
    value = lookup(primary, evaluation)
    if value is None:
        known = ", ".join(sorted(evaluation["metrics"]))
        raise PlatformError(
            f"gate.primary {primary!r} is not measured for task {task}",
            detail=f"measured: {known}",
            fix=f"choose one of these, such as: {setting('gate.primary', sorted(evaluation['metrics'])[0])}",
            code="bad_config",
        )
    found = _champion(task, endpoints)
    if found is None:
        return None, [], []
    name, bundle = found
    ours = scoring.provisional(Path(candidate), read_json(Path(candidate) / "candidate.json"))
    check, notes = compare(ours, bundle, name, Path(dataset), evaluation, settings)
    return name, [check] if check else [], notes


def _champion(task: str, endpoints: str) -> tuple[str, Bundle] | None:
    where = Endpoints.model_validate_json(endpoints)
    file = where.tracking_uri.removeprefix("sqlite:///")
    if where.tracking_uri.startswith("sqlite:///") and not Path(file).exists():
        return None  # nothing was ever registered; spares the import of MLflow
    registry = Registry(where)
    try:
        version = registry.resolve(f"{task}@{CHAMPION}")
    except PlatformError as err:
        if err.code == "unknown_model":
            return None
        raise
    return f"{version.name}:{version.version}", registry.fetch(f"{version.name}:{version.version}")


def _reason(check: Check) -> str:
    if check.difference is not None:
        return describe(check)
    against = "" if check.against == "fixed" else f" ({check.against} with tolerance)"
    if check.value is None:
        return f"{check.metric} was not measured, and must be {check.rule} {check.limit:.4g}"
    return f"{check.metric} is {check.value:.4g}, must be {check.rule} {check.limit:.4g}{against}"

"""Reads what others say of a model: the monitor's report, and the alerts that fire in Prometheus."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from contracts import storage
from contracts.errors import PlatformError
from services.controller.observations import Finding, Report

ALERTS: dict[str, Literal["drift", "quality"]] = {"FairleadDrift": "drift", "FairleadQualityDropped": "quality"}
"""The alerts that the loop answers, and which rule of the policy each is for."""

_PATIENCE = 5.0  # seconds for an answer of Prometheus
_MOST = 10  # findings in a reason


def report_address(log: str, model: str) -> str:
    """Where the monitor keeps its report of a model, below the folder of the prediction log."""
    return storage.join(log, model, "monitor", "report.json")


def read_report(log: str, model: str, version: str, digest: str) -> Report | None:
    """What the monitor's report says of a version of a model, else of another one; None where there is none.

    A version that is served by another name is known by the digest of its bundle.

    Raises:
        PlatformError: ``code="bad_report"``: it is not one, or of a form that is not known here.
    """
    address = report_address(log, model)
    try:
        text = storage.read_bytes(address)
    except PlatformError as err:
        if err.code == "not_found":
            return None
        raise
    try:
        document = json.loads(text)
        versions = document["versions"]
        of = version if version in versions else _served_as(versions, digest) or next(reversed(versions), "")
        named = version if _is_of(versions.get(of, {}), digest) else of
        return Report(version=named, at=_moment(document["time"]), findings=tuple(_findings(versions.get(of, {}))))
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise PlatformError(
            f"the monitor's report of {model} cannot be read",
            detail=f"{address}: {type(err).__name__}: {err}",
            fix="let the monitor write it anew: fairlead monitor",
            code="bad_report",
        ) from err


def firing(prometheus: str, model: str) -> tuple[Finding, ...]:
    """The alerts of `ALERTS` that fire for a model.

    Raises:
        PlatformError: ``code="no_prometheus"``: no answer, or none that says what fires.
    """
    address = f"{prometheus.rstrip('/')}/api/v1/alerts"
    try:
        with urllib.request.urlopen(address, timeout=_PATIENCE) as answer:
            alerts = json.loads(answer.read())["data"]["alerts"]
        return tuple(
            Finding(
                kind=ALERTS[alert["labels"]["alertname"]],
                what=_said(alert),
                evidence={"alert": alert["labels"], "since": alert.get("activeAt")},
            )
            for alert in alerts
            if alert["state"] == "firing"
            and alert["labels"].get("alertname") in ALERTS
            and alert["labels"].get("model") == model
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        raise PlatformError(
            f"Prometheus does not say what fires: {prometheus}",
            detail=str(getattr(err, "reason", "") or err),
            fix="correct --prometheus, or look whether it runs",
            code="no_prometheus",
        ) from err


def _served_as(versions: Mapping[str, Any], digest: str) -> str:
    """The name by which a bundle was served last; empty where it was not."""
    return next((name for name in reversed(list(versions)) if _is_of(versions[name], digest)), "")


def _is_of(version: Mapping[str, Any], digest: str) -> bool:
    """Whether a version is of this bundle; a log may have the first digits only."""
    known = str(version.get("digest") or "")
    return bool(known) and digest.startswith(known)


def _said(alert: Mapping[str, Any]) -> str:
    labels: Mapping[str, str] = alert["labels"]
    what = next((labels[name] for name in ("input", "metric", "slice") if labels.get(name)), "")
    return f"alert {labels['alertname']}{f' of {what}' if what else ''}"


def _findings(document: Mapping[str, Any]) -> list[Finding]:
    """Drift and drops of quality that a report names, whatever else is in it."""
    found = []
    drifted = {name: item for name, item in document.get("inputs", {}).items() if item.get("drifted")}
    if drifted:
        names = list(drifted)
        more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
        verb = "drifts" if len(names) == 1 else "drift"
        what = f"{', '.join(names[:_MOST])}{more} {verb}"
        evidence = {"inputs": {name: _numbers(item) for name, item in drifted.items()}}
        found.append(Finding(kind="drift", what=what, evidence=evidence))
    dropped = [item for item in document.get("quality", ()) if item.get("dropped")]
    if dropped:
        names = [f"{item['metric']} of {item['slice']}" if item.get("slice") else item["metric"] for item in dropped]
        what = f"{', '.join(names[:_MOST])} dropped"
        found.append(Finding(kind="quality", what=what, evidence={"quality": [_numbers(item) for item in dropped]}))
    return found


def _numbers(item: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a finding without plots and tables."""
    return {name: value for name, value in item.items() if isinstance(value, str | int | float | bool)}


def _moment(value: Any) -> datetime:
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    moment = datetime.fromisoformat(value)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

"""``fairlead fairness``: how a deployed model treats groups, by a file that says whose prediction is whose.

The log never holds a group. The file is read, joined by the ids of predictions, and kept nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from contracts.errors import PlatformError
from deploy.cli.feedback.log_actions import log_of
from deploy.cli.profiles.loading import load_endpoints
from deploy.cli.terminal.output import EXIT_REFUSED, emit, number, table

if TYPE_CHECKING:
    from rich.console import Console

    from contracts.bundle import Bundle
    from services.feedback.groups import GroupTable


def show_groups(profile: str, ref: str, source: str, columns: Sequence[str], days: int, as_json: bool) -> None:
    """Measure the groups of the predictions of the last days; exit code 3 when a limit of the gate is not kept."""
    from contracts.registry import Registry

    endpoints = load_endpoints(profile)
    registry = Registry(endpoints)
    version = registry.resolve(ref)
    bundle = registry.fetch(f"{version.name}:{version.version}")
    folder = log_of(endpoints, version.name)
    found = _measured(bundle, folder, version.version, _table(source, columns), days)
    document = {"model": version.name, "version": version.version, "days": days, **found}
    emit(document, as_json, lambda out: _show(out, document))
    if not all(check["passed"] for check in document["checks"]):
        raise typer.Exit(EXIT_REFUSED)


def _measured(bundle: Bundle, folder: str, version: str, table: GroupTable, days: int) -> dict[str, Any]:
    from services.feedback.groups import counts_for
    from services.feedback.joining import joined

    known = (bundle.read_json("evaluation.json") or {}).get("fairness")
    counts, end = counts_for(bundle.document, known, table), datetime.now(UTC)
    for one in joined(folder, bundle.document.name, end - timedelta(days=days), end):
        if one.prediction.version == version:
            counts.add(one)
    return counts.measured(known["least"] if known else 1, bundle.document.gate.checks)


def _table(source: str, columns: Sequence[str]) -> GroupTable:
    from services.feedback.groups import read_groups

    file = Path(source).expanduser()
    if not file.is_file():
        raise PlatformError(f"no such file: {source}", fix="give the path of a CSV or Parquet file", code="not_found")
    return read_groups(str(file), columns)


def _show(out: Console, document: Mapping[str, Any]) -> None:
    name, days = f"{document['model']}:{document['version']}", document["days"]
    out.print(
        f"{name}, {document['rows']:,} predictions of {days} days, {document['with_group']:,} with a group, "
        f"{document['labelled']:,} of them with a label"
    )
    for column, found in document["columns"].items():
        made = table(column, "rows", document["good"], "interval", "true pos.", "false pos.", "said less true", "")
        for one in found["groups"]:
            low, high = one["selection"]["low"], one["selection"]["high"]
            rates = [number(one[key]["value"]) if one[key] else "" for key in ("tpr", "fpr", "calibration")]
            judged = "" if one["judged"] else "not judged"
            ends = f"{number(low)} to {number(high)}"
            made.add_row(one["name"], f"{one['rows']:,}", number(one["selection"]["value"]), ends, *rates, judged)
        out.print(made)
        if found["note"]:
            out.print(f"{column}: {found['note']}", markup=False)
    for check in document["checks"]:
        verdict = "kept" if check["passed"] else "NOT KEPT"
        measured_now = "not measured yet" if check["value"] is None else number(check["value"])
        out.print(
            f"{verdict:<9} {check['metric']} {check['rule']} {number(check['limit'])}: {measured_now}", markup=False
        )

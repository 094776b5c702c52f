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
    import pandas as pd
    from rich.console import Console

    from contracts.bundle import Bundle

_MEASURES = ("selection_ratio", "tpr_gap", "fpr_gap", "calibration_gap")


def show_groups(profile: str, ref: str, source: str, columns: Sequence[str], days: int, as_json: bool) -> None:
    """Measure the groups of the predictions of the last days; exit code 3 when a limit of the gate is not kept."""
    from contracts.registry import Registry

    endpoints = load_endpoints(profile)
    registry = Registry(endpoints)
    version = registry.resolve(ref)
    bundle = registry.fetch(f"{version.name}:{version.version}")
    folder = log_of(endpoints, version.name)
    groups = _groups(source, columns)
    end = datetime.now(UTC)
    found = measured(bundle, folder, version.version, groups, end - timedelta(days=days), end)
    document = {"model": version.name, "version": version.version, "days": days, **found}
    emit(document, as_json, lambda out: _show(out, document))
    if not all(check["passed"] for check in document["checks"]):
        raise typer.Exit(EXIT_REFUSED)


def measured(
    bundle: Bundle, folder: str, version: str, groups: pd.DataFrame, start: datetime, end: datetime
) -> dict[str, Any]:
    """Rates of groups: selection of all predictions that `groups` knows, errors and calibration of those with labels.

    Raises:
        PlatformError: ``code="no_groups"``: the model was evaluated without groups.
    """
    from pipelines.evaluation.fairness import measure
    from services.feedback.joining import joined

    known = (bundle.read_json("evaluation.json") or {}).get("fairness")
    if known is None:
        raise PlatformError(
            f"{bundle.document.name} was evaluated without groups",
            fix="declare the sensitive columns in its task, see pipelines/data/sensitive.py, and train it again",
            code="no_groups",
        )
    document, good, least = bundle.document, known["good"], known["least"]
    pairs = [one for one in joined(folder, document.name, start, end) if one.prediction.version == version]
    rows = [one for one in pairs if one.prediction.id in groups.index]
    of_rows: pd.DataFrame = groups.loc[[one.prediction.id for one in rows]].reset_index(drop=True)
    labelled = [at for at, one in enumerate(rows) if one.label is not None]
    found: dict[str, Any] = {"rows": len(pairs), "with_group": len(rows), "labelled": len(labelled), "good": good}
    if not rows:
        return {**found, "columns": {}, "checks": _checks(document.gate.checks, {})}
    selection = measure(of_rows, _outcome(document.signature.output, rows, good), least)["columns"]
    errors: Mapping[str, Any] = {}
    if labelled:
        some = [rows[at] for at in labelled]
        outcome = _outcome(document.signature.output, some, good)
        errors = measure(of_rows.iloc[labelled].reset_index(drop=True), outcome, least)["columns"]
    columns = {name: _both(one, errors.get(name)) for name, one in selection.items()}
    return {**found, "columns": columns, "checks": _checks(document.gate.checks, columns)}


def _outcome(output: Any, rows: Sequence[Any], good: str) -> Any:
    import numpy as np

    from pipelines.evaluation.fairness import Outcome

    at = output.classes.index(good)
    return Outcome(
        good=good,
        selected=np.array([one.prediction.answer["label"] == good for one in rows]),
        deserved=np.array([one.label is not None and one.label.label == good for one in rows]),
        chance=np.array([one.prediction.answer["probabilities"][at] for one in rows], dtype=np.float64),
    )


def _both(selection: Mapping[str, Any], errors: Mapping[str, Any] | None) -> dict[str, Any]:
    """Selection of all rows, the rest of those with labels."""
    of = {one["name"]: one for one in (errors or {"groups": []})["groups"]}
    lines = [
        {
            **{key: one[key] for key in ("name", "rows", "judged", "selection")},
            "labelled": of[one["name"]]["rows"] if one["name"] in of else 0,
            **{key: of[one["name"]][key] if one["name"] in of else None for key in ("tpr", "fpr", "calibration")},
        }
        for one in selection["groups"]
    ]
    ends = {key: selection[key] for key in ("selection_ratio", "interval", "note")}
    return {"groups": lines, **ends, **{key: errors[key] if errors else None for key in _MEASURES[1:]}}


def _checks(gate: Sequence[Any], columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The gate's own limits on groups, held by what is measured now; what cannot be measured yet breaks none."""
    found = []
    for check in gate:
        column, _, name = check.metric.rpartition(":")
        if name in _MEASURES and column in columns:
            value = columns[column][name]
            kept = value is None or (value >= check.limit if check.rule == "at least" else value <= check.limit)
            found.append(
                {"metric": check.metric, "rule": check.rule, "limit": check.limit, "value": value, "passed": kept}
            )
    return found


def _groups(source: str, columns: Sequence[str]) -> pd.DataFrame:
    """The file's groups by prediction id, as texts.

    Raises:
        PlatformError: it is not there, lacks a column, or has an id twice.
    """
    import pandas as pd

    from pipelines.data.sensitive import NOT_STATED

    file = Path(source).expanduser()
    if not file.is_file():
        raise PlatformError(f"no such file: {source}", fix="give the path of a CSV or Parquet file", code="not_found")
    frame = pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file, dtype=str)
    wanted = list(columns) or [str(name) for name in frame.columns if name != "id"]
    if missing := [name for name in ("id", *wanted) if name not in frame.columns] or ([] if wanted else ["of a group"]):
        raise PlatformError(
            f"{file.name} has no column {missing[0]}",
            detail=f"it has: {', '.join(map(str, frame.columns))}",
            fix="give a file with the column id, of predictions, and a column for each kind of group",
            code="unknown_column",
        )
    ids = frame["id"].astype(str)
    if ids.duplicated().any():
        raise PlatformError(
            f"{file.name} has the id {ids[ids.duplicated()].iloc[0]!r} twice",
            fix="give every prediction one row",
            code="bad_data",
        )
    made = frame[wanted].astype("string").fillna("").apply(lambda column: column.str.strip())
    texts: pd.DataFrame = made.where(made != "", NOT_STATED).astype(object).set_index(pd.Index(ids))
    return texts


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

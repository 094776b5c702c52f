"""Publish a candidate as an immutable bundle, whatever the gate said; only what passed becomes champion."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from contracts import storage
from contracts.audit import AuditLog
from contracts.bundle import GateDecision, write_bundle
from contracts.endpoints import Endpoints
from contracts.registry import CHALLENGER, Registry
from contracts.tracking import track_nested, track_run
from pipelines.cost import cost_so_far
from pipelines.data import left_out
from pipelines.evaluation import scoring
from pipelines.io import events
from pipelines.io.files import read_json, write_json, write_text
from pipelines.pages import data_report
from pipelines.pages.card import render_card
from pipelines.tasks import get_task, load_config

_TABLE = "left_out.json"
_NESTED = 200  # trials of a search that are runs below this one, the last ones


def register(
    task: str, config: str, candidate: str, gate: str, endpoints: str, run: str, promote: bool, out: str
) -> dict[str, Any]:
    """Write the card and the bundle, track the run, publish, and set the aliases.

    Returns:
        name, version, digest, path, tracking_url, gate_passed and champion (bool); the same document goes to `out`.
    """
    source = Path(candidate)
    where = Endpoints.model_validate_json(endpoints)
    fields = read_json(source / "candidate.json")
    decision = GateDecision.model_validate(read_json(gate))
    created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    fields |= {"gate": decision.model_dump(), "lineage": {**fields["lineage"], "run": run, "created": created}}
    declared = load_config(get_task(task), config)
    fields |= {"rollout": declared.rollout.model_dump(), "loop": declared.loop.model_dump()}
    report = events.progress("register")
    cost = cost_so_far(where, run, os.environ)
    try:
        with tempfile.TemporaryDirectory(prefix="bundle-") as name:
            folder = Path(name) / "bundle"
            shutil.copytree(source, folder, ignore=shutil.ignore_patterns("candidate.json", scoring.ANSWERS))
            write_text(folder / "card.html", render_card(folder, fields, get_task(task).title, cost))
            # Bundles in S3 are made here first; the registry uploads what it publishes.
            remote = storage.is_remote(where.uri("artifacts"))
            bundle = write_bundle(folder, where.scratch("bundles") if remote else where.path("artifacts"), fields)
            report(1, 3, doing="track")
            run_id, url = _track(where, fields, decision, folder, source, run, cost)
    except OSError as err:
        raise events.from_os_error(err, "register") from err
    report(2, 3, doing="publish")
    registry = Registry(where)
    version = registry.publish(bundle, run_id)
    ref = f"{version.name}:{version.version}"
    registry.set_alias(ref, CHALLENGER)
    champion = decision.passed and promote
    if champion:
        registry.promote(ref)
        reason, evidence = "it passed the gate", {"digest": bundle.digest, "metrics": fields["metrics"]}
        AuditLog.of(where).append(actor=f"run:{run}", action="promote", subject=ref, reason=reason, evidence=evidence)
    result = {
        "name": version.name,
        "version": version.version,
        "digest": bundle.digest,
        "path": version.path,
        "tracking_url": url,
        "gate_passed": decision.passed,
        "champion": champion,
        "reasons": decision.reasons,
        "primary": load_primary(source),
        "metrics": fields["metrics"],
        "left_out": read_json(source / "evaluation.json").get("left_out"),
    }
    write_json(Path(out), result)
    report(3, 3)
    return result


def load_primary(candidate: Path) -> dict[str, Any]:
    """The headline metric with its interval."""
    evaluation = read_json(candidate / "evaluation.json")
    name = evaluation["primary"]
    return {"metric": name, "value": evaluation["metrics"][name], "interval": evaluation["intervals"].get(name)}


def _track(
    where: Endpoints,
    fields: dict[str, Any],
    decision: GateDecision,
    folder: Path,
    source: Path,
    run: str,
    cost: dict[str, Any] | None,
) -> tuple[str, str]:
    evaluation = read_json(source / "evaluation.json")
    metrics = {_metric_name(k): v for k, v in fields["metrics"].items()}
    for key, values in fields["slices"].items():
        if evaluation["primary"] in values:
            metrics[_metric_name(f"slice.{key}.{evaluation['primary']}")] = values[evaluation["primary"]]
    metrics |= {"latency_ms": evaluation["latency_ms"]["p50"], "bundle_mb": evaluation["bundle_mb"]}
    if cost:
        hours = {name: cost[name] for name in ("core_hours", "gib_hours", "gpu_hours")}
        metrics |= hours if cost["money"] is None else {**hours, f"cost_{cost['currency']}": cost["money"]}
    for check in decision.checks:
        if check.difference is not None:
            metrics[_metric_name(f"champion.difference.{check.metric}")] = check.difference
            for end, value in zip(("low", "high"), check.interval or (), strict=False):
                metrics[_metric_name(f"champion.difference.{check.metric}.{end}")] = value
    shown = folder.parent / "tracked"
    shown.mkdir()
    shutil.copytree(folder / "plots", shown / "plots")
    for name in ("card.html", data_report.FILE):
        if (folder / name).exists():
            shutil.copy(folder / name, shown / name)
    shutil.copy(source / "evaluation.json", shown / "evaluation.json")
    shown_as = {}
    if gone := evaluation.get("left_out"):
        metrics |= {"rows_read": gone["rows_read"], "rows_left_out": gone["rows_left_out"]}
        write_json(shown / _TABLE, left_out.as_table(gone))
        shown_as = {"mlflow.loggedArtifacts": json.dumps([{"path": _TABLE, "type": "table"}])}
    curves = [
        {_metric_name(k): float(v) for k, v in row.items() if isinstance(v, int | float) and v == v}
        for row in read_history(source)
    ]
    tags = {
        "gate": "passed" if decision.passed else "refused",
        "recipe": fields["recipe"],
        "data_version": fields["lineage"]["data_version"],
        "code_version": fields["lineage"]["code_version"],
        "source": fields["lineage"]["source"],
        **shown_as,
    }
    parameters = {"recipe": fields["recipe"], "seed": fields["lineage"]["seed"], **fields["parameters"]}
    search = evaluation.get("search")
    if search:
        tags["search"] = search.get("verdict", "")
    tracked = track_run(where, fields["task"], run, parameters, metrics, curves, shown, tags)
    if search:
        children = [
            (f"trial {one['number']}", one["settings"], _valid(one["values"]), one["state"])
            for one in search["trials"][-_NESTED:]
        ]
        track_nested(where, fields["task"], tracked[0], children)
    return tracked


def _valid(values: dict[str, float]) -> dict[str, float]:
    """Metrics of the validation rows, by names that are not those of the test rows."""
    return {_metric_name(f"valid.{name}"): value for name, value in values.items()}


def read_history(candidate: Path) -> list[dict[str, Any]]:
    """The learning curve that evaluate kept beside the candidate."""
    history: list[dict[str, Any]] = read_json(candidate / "evaluation.json").get("history", [])
    return history


def _metric_name(name: str) -> str:
    """MLflow accepts letters, digits and ``_-. :/``; anything else becomes an underscore."""
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name.replace(":", "."))

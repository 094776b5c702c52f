"""Recording runs in MLflow: the client, an experiment per task, and what can be known before a run starts."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import shlex
import sqlite3
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from contracts.file_lock import file_lock
from contracts.registry_file import read_experiment

_PATIENCE = 10.0  # seconds that a server may take for one answer


def track_run(
    endpoints: Endpoints,
    experiment: str,
    run_name: str,
    params: Mapping[str, Any],
    metrics: Mapping[str, float],
    curves: Sequence[Mapping[str, float]] = (),
    artifacts: Path | None = None,
    tags: Mapping[str, str] | None = None,
) -> tuple[str, str]:
    """Record a finished run in MLflow; `curves` is one mapping of metrics per round or epoch.

    Returns:
        The run's id and the path of its page below the MLflow server's address, ``#/experiments/<id>/runs/<id>``.
    """
    resolved = endpoints.resolved()
    client = connect(resolved)
    from mlflow.entities import Metric, Param, RunTag

    experiment_id = _experiment(client, resolved, experiment)
    run_id: str = client.create_run(experiment_id, run_name=run_name).info.run_id
    stamp = int(datetime.now(UTC).timestamp() * 1000)
    points = [Metric(key, float(value), stamp, 0) for key, value in metrics.items()]
    for step, row in enumerate(curves):
        points += [Metric(f"curve.{key}", float(value), stamp, step) for key, value in row.items()]
    for start in range(0, len(points), 900):
        client.log_batch(run_id, metrics=points[start : start + 900])
    client.log_batch(
        run_id,
        params=[Param(key, str(value)[:500]) for key, value in list(params.items())[:100]],
        tags=[RunTag(key, value) for key, value in (tags or {}).items()],
    )
    if artifacts is not None and artifacts.exists():
        client.log_artifacts(run_id, str(artifacts))
    client.set_terminated(run_id)
    return run_id, f"#/experiments/{experiment_id}/runs/{run_id}"


def track_nested(
    endpoints: Endpoints, experiment: str, parent: str, children: Sequence[tuple[str, Mapping[str, Any], Any, str]]
) -> None:
    """Record runs below the run with the id `parent`: name, parameters, metrics and status of each."""
    resolved = endpoints.resolved()
    client = connect(resolved)
    from mlflow.entities import Metric, Param, RunStatus

    experiment_id = _experiment(client, resolved, experiment)
    stamp = int(datetime.now(UTC).timestamp() * 1000)
    for name, params, metrics, status in children:
        tags = {"mlflow.parentRunId": parent, "trial": status}
        run_id: str = client.create_run(experiment_id, run_name=name, tags=tags).info.run_id
        client.log_batch(
            run_id,
            metrics=[Metric(key, float(value), stamp, 0) for key, value in metrics.items()],
            params=[Param(key, str(value)[:500]) for key, value in params.items()],
        )
        ended = RunStatus.FAILED if status == "failed" else RunStatus.FINISHED
        client.set_terminated(run_id, status=RunStatus.to_string(ended))


def _experiment(client: Any, endpoints: Endpoints, name: str) -> str:
    from mlflow.exceptions import MlflowException

    if known := client.get_experiment_by_name(name):
        _refuse_deleted(endpoints.tracking, name, str(known.experiment_id), known.lifecycle_stage)
        return str(known.experiment_id)
    # A local tracking store keeps files beside itself; a server decides by itself.
    local = endpoints.tracking.startswith("sqlite:")
    location = (Path(endpoints.home) / "mlflow" / name).as_uri() if local else None
    try:
        return str(client.create_experiment(name, artifact_location=location))
    except MlflowException:  # another run created it in between
        return str(client.get_experiment_by_name(name).experiment_id)


def check_experiment(endpoints: Endpoints, name: str) -> None:
    """Find out, without MLflow's import of 4 s, whether a run of experiment `name` could be recorded.

    Raises:
        PlatformError: the server does not answer, the file is damaged, or somebody deleted the experiment.
    """
    uri = endpoints.resolved().tracking
    if uri.startswith(("http://", "https://")):
        _answers(uri)
        found = _asked(uri, name)
    else:
        try:
            found = read_experiment(uri, name)
        except sqlite3.DatabaseError as err:
            file = uri.removeprefix("sqlite:///")
            raise PlatformError(
                f"the registry cannot be read: {file}",
                detail=str(err),
                fix=f"put its backup there, or begin a new one: mv {shlex.quote(file)} {shlex.quote(file + '.bad')}",
                code="damaged_database",
                file=file,
            ) from err
    if found is not None:
        _refuse_deleted(uri, name, *found)


def _asked(uri: str, name: str) -> tuple[str, str] | None:
    """Id and stage of an experiment by a server's REST API; None when it has none, or wants a login for the answer."""
    query = urllib.parse.urlencode({"experiment_name": name})
    address = f"{uri.rstrip('/')}/api/2.0/mlflow/experiments/get-by-name?{query}"
    try:
        with urllib.request.urlopen(address, timeout=_PATIENCE) as answer:
            known = json.load(answer)["experiment"]
    except (OSError, ValueError, KeyError):
        return None
    return str(known["experiment_id"]), str(known["lifecycle_stage"])


def _refuse_deleted(tracking: str, name: str, number: str, stage: str) -> None:
    if stage == "deleted":
        command = f"mlflow experiments restore --experiment-id {number}"
        raise PlatformError(
            f"the experiment {name!r} of MLflow was deleted, so the run could not be recorded",
            detail=f"experiment {number} in {tracking}",
            fix=f"restore it: MLFLOW_TRACKING_URI={shlex.quote(tracking)} {command}",
            code="deleted_experiment",
            experiment=name,
        )


def connect(endpoints: Endpoints) -> Any:
    """MLflow's client, after its server or file was asked once.

    Raises:
        PlatformError: MLflow is not installed, or the server does not answer.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    try:
        import mlflow
    except ImportError as err:
        raise PlatformError(
            "MLflow is not installed", fix="pip install 'fairlead[pipelines]'", code="missing_package"
        ) from err
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    uri = endpoints.tracking
    if uri.startswith(("http://", "https://")):
        _answers(uri)
        _load_headers()
    with contextlib.ExitStack() as stack:
        if uri.startswith("sqlite:///"):
            # Creating the tables is not safe from two processes at once.
            file = Path(uri.removeprefix("sqlite:///"))
            stack.enter_context(file_lock(file.with_name(f".{file.name}.lock")))
        client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)
        client.search_registered_models(max_results=1)
    return client


def _load_headers() -> None:
    """Load who adds headers to MLflow's requests, but for Feast.

    Feast's headers are for data sources of its own. It takes 6 s to import, and would send a pod's service account
    token to every tracking server.
    """
    from mlflow.utils import plugins

    known = plugins.get_entry_points

    def others(group: str) -> Any:
        found = known(group)
        headers = group == "mlflow.request_header_provider"
        return [point for point in found if not point.value.startswith("feast.")] if headers else found

    plugins.get_entry_points = others
    try:
        importlib.import_module("mlflow.tracking.request_header.registry")
    finally:
        plugins.get_entry_points = known


def _answers(uri: str) -> None:
    """Ask a tracking server once: MLflow itself would retry for minutes before it gives up."""
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_PATIENCE):
            return
    except urllib.error.HTTPError as err:
        if err.code < 500:  # it is there, and may want a login, which MLflow's client gives
            return
        reason: object = err
    except OSError as err:
        reason = err
    raise PlatformError(
        f"the tracking server does not answer: {uri}",
        detail=str(reason),
        fix="start it, or correct `tracking` of the profile (FAIRLEAD_TRACKING)",
        code="no_tracking",
    )

"""What a run is asked, as the parameters of its workflow.

Who starts a run from Kubeflow's page, by its client or by a schedule may leave out all but the task, and asks for the
same as the command line does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from contracts.errors import PlatformError
from pipelines.run import ASKED, Run
from pipelines.run_settings import split
from pipelines.settings import parse_setting, split_settings
from pipelines.steps.calls import contexts, graph, named_inputs
from pipelines.tasks import get_task
from pipelines.values import as_document, chosen_config, endpoints, run_id, values_of

_SAME = ("source", "dataset", "code_version", "promote", "nonce")
"""Parameters that the document calls the same."""

NOT_ASKED: dict[str, set[str]] = {
    "ingestion": {"dataset", "promote", "run", "spread"},
    "training": {"source"},
    "full": {"dataset"},
}
"""Of workflows whose tasks may have several steps, the parameters that they have not."""


def parameters_of(run: Run, *, each: bool) -> dict[str, Any]:
    """The parameters of the workflow of `run`. each: it has a task for each step."""
    where = run.where.model_dump_json()
    if run.workflow == "batch_scoring":
        settings = json.dumps(run.config) if run.config else ""
        return {"model": run.model, "source": run.source, "endpoints": where, "settings": settings, "to": run.to}
    if each:
        steps, values = graph(run.workflow, get_task(run.task)), values_of(run)
        told = {f"{step}_context": text for step, text in contexts(steps, values).items()}
        named = {name: values[name] for name in named_inputs(steps)}
        return {"task": run.task, ASKED: run.model_dump_json(), **told, **named}
    given = {
        "config": json.dumps(run.config),
        "endpoints": where,
        "run": run.run_id,
        "spread": json.dumps(run.distributed_job) if run.distributed_job else "",
        **{name: getattr(run, name) for name in ("task", *_SAME)},
    }
    return {name: value for name, value in given.items() if name not in NOT_ASKED[run.workflow]}


def run_of(parameters: Mapping[str, Any], environ: Mapping[str, str], workflow: str) -> Run:
    """The run that `parameters` ask for, with the defaults of task and platform for what they leave out.

    Raises:
        PlatformError: a task, recipe, setting or address that is not there, or settings of pods.
    """
    said = {name: value for name, value in parameters.items() if value != ""}
    task = get_task(said["task"])
    settings = dict(parse_setting(item) for item in split_settings(said.get("settings", "")))
    _refuse_settings_of_pods(task.name, settings)
    config = chosen_config(task, said.get("recipe", ""), _sections(said.get("config", "{}")), settings)
    return Run(
        run_id=run_id(task.name, said.get("run", ""), environ),
        workflow=workflow,
        task=task.name,
        config=as_document(config),
        endpoints=endpoints(said.get("endpoints", ""), environ),
        distributed_job=json.loads(said.get("spread", "{}")),
        **{name: said[name] for name in _SAME if name in said},
    )


def said_by(parameters: Mapping[str, Any]) -> Run:
    """What the parameters of a run in Kubeflow say as they are, for who looks at the run from elsewhere."""
    said = {"run_id": parameters.get("run"), **{name: parameters.get(name) for name in ("task", "recipe", *_SAME)}}
    document = {
        **_read(parameters.get(ASKED)),
        **{name: value for name, value in said.items() if value not in ("", None)},
    }
    config = _read(parameters.get("config"))
    return Run.model_validate({**document, "config": config} if config else document)


def _read(text: Any) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except (TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _sections(text: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(text)
    except json.JSONDecodeError as err:
        raise PlatformError(
            "the configuration is not JSON", detail=str(err), fix="write it with dump_config", code="bad_config"
        ) from err
    return found


def _refuse_settings_of_pods(task: str, settings: Mapping[str, Any]) -> None:
    """Refuse what is decided when a workflow is compiled: a run that has begun is too late for it."""
    _, given = split(settings)
    if given:
        raise PlatformError(
            f"what pods need is decided before a run starts: {', '.join(given)}",
            fix=f"start it by the command line: fairlead run {task} --set {next(iter(given))}=...",
            code="bad_config",
        )

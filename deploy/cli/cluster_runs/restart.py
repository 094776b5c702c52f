"""A run that failed by no fault of its steps is started again: what is left of it, under its id.

The same workflow with the same parameters as a new run of Kubeflow, so what is done comes from the cache; after a step
that ran out of memory its pod gets twice as much. Who follows a run does it, and the keeper for runs of nobody.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from contracts.errors import PlatformError
from contracts.quantities import memory
from deploy.cli.cluster.capacity import Ask, fits, read_nodes
from deploy.cli.cluster.pod_failures import LOST, spec_of
from deploy.cli.cluster_runs.access import Access, asked
from deploy.cli.cluster_runs.lookup import Found
from deploy.cli.cluster_runs.run_document import asked_of
from deploy.cli.cluster_runs.workflow_state import State, Task
from pipelines.resources import Resources
from pipelines.run import Run, standing

_MOST_LOST = 3  # times that one run is started again because it lost pods


def cure(error: PlatformError, restarts: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The settings with which the rest of a run may succeed, after these `restarts` of it.

    Returns:
        Nothing else where pods were lost, twice the memory where there was too little; None: no other start helps.
    """
    before = [str((each.get("error") or {}).get("code")) for each in restarts]
    if error.code in LOST:
        return {} if sum(code in LOST for code in before) < _MOST_LOST else None
    step, limit = error.context.get("step"), error.context.get("limit")
    if error.code != "out_of_memory" or not step or not limit or "out_of_memory" in before:
        return None
    return {f"resources.{step}.memory": memory(2 * int(limit))}


def start_again(access: Access, found: Found, state: State, *, by: str) -> Found | None:
    """Start what is left of a run that failed, if that can help, and note it in the new run's record.

    Args:
        by: who does it, as `fairlead runs` says it.

    Returns:
        The new run of Kubeflow; None where it would fail again.

    Raises:
        PlatformError: ``code="does_not_fit"``: no node has twice the memory; ``code="kfp"``.
    """
    error, before = state.error, list(found.asked.get("restarts") or [])
    changed = cure(error, before) if error is not None and not state.cancelled else None
    if error is None or changed is None:
        return None
    run = access.run(found.kfp_run)
    source = _source(access, run)
    if changed:
        task = next(task for task in state.tasks if error.context["step"] in task.steps)
        (amount,) = changed.values()
        if (found.asked.get("settings") or {}).get("workflow.nodes") != "growing":
            refuse_too_large(access, task, str(error.context["step"]), amount)
        source = {"pipeline_spec": with_memory(_spec(access, source), task.name, amount)}
    if str(run.state) not in ("FAILED", "SUCCEEDED", "CANCELED"):  # Kubeflow may be trying what cannot succeed
        with contextlib.suppress(PlatformError):
            asked("Kubeflow Pipelines did not end the run", lambda: access.api().terminate_run(found.kfp_run))
    later = _created(access, run, source, found)
    restart = {"kfp_run": found.kfp_run, "error": error.as_dict(), "changed": changed, "by": by, "at": _now()}
    return _noted(access, found, later, [*before, restart])


def refuse_too_large(access: Access, task: Task, step: str, amount: str) -> None:
    """Look whether a node could take the pod of `task` with this much memory, where this identity may look at nodes.

    Raises:
        PlatformError: ``code="does_not_fit"``.
    """
    try:
        nodes = read_nodes(access.kube.items("nodes", "--request-timeout=10s"), ())
    except PlatformError:
        return
    (fit,) = fits([Ask(name=task.name, step=step, needs=_needs(task, amount))], nodes)
    if fit.verdict == "never":
        raise PlatformError(
            f"no node has twice the memory for {step}",
            detail=fit.says,
            fix="add a node that is larger; where they are added by themselves: --set workflow.nodes=growing",
            code="does_not_fit",
        )


def _needs(task: Task, amount: str) -> Resources:
    """What the pod of a task would ask for, as its last one did."""
    last = task.tries[-1] if task.tries else None
    spec = spec_of(last.node, last.pod) if last else {}
    main: dict[str, Any] = next((each for each in spec.get("containers") or [] if each.get("name") == "main"), {})
    said = main.get("resources") or {}
    wanted = {**(said.get("limits") or {}), **(said.get("requests") or {})}
    devices = {name: int(count) for name, count in wanted.items() if "/" in name}
    usual = Resources()
    return Resources(
        cpu=str(wanted.get("cpu") or usual.cpu),
        memory=amount,
        gpus=max(devices.values(), default=0),
        accelerator=next(iter(devices), usual.accelerator),
        node_selector=spec.get("nodeSelector") or {},
        tolerations=tuple(spec.get("tolerations") or ()),
    )


def with_memory(spec: Mapping[str, Any], task: str, amount: str) -> dict[str, Any]:
    """A compiled pipeline in which the container of `task` asks for this much memory.

    Raises:
        PlatformError: ``code="kfp"``: the pipeline has no such task.
    """
    made = copy.deepcopy(dict(spec))
    document = made.get("pipeline_spec", made)
    for dag in _dags(document):
        if found := dag.get("tasks", {}).get(task):
            component = document["components"][found["componentRef"]["name"]]
            container = document["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
            asked_for = container.setdefault("resources", {})
            for name in ("memoryLimit", "memoryRequest"):  # numbers of older compilers, which would win
                asked_for.pop(name, None)
            asked_for["resourceMemoryLimit"] = asked_for["resourceMemoryRequest"] = amount
            return made
    raise PlatformError(f"the pipeline of the run has no task {task}", code="kfp")


def _dags(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for component in (document["root"], *document.get("components", {}).values()):
        if "dag" in component:
            yield component["dag"]


def _source(access: Access, run: Any) -> dict[str, Any]:
    """The pipeline of a run, as a version that is kept or a text of its own; perhaps only its schedule has it."""
    for each in (run, _schedule_of(access, run)):
        if each is not None and each.pipeline_version_reference:
            return {"pipeline_version_reference": each.pipeline_version_reference}
        if each is not None and each.pipeline_spec:
            return {"pipeline_spec": each.pipeline_spec}
    raise PlatformError("Kubeflow does not say what the run runs", detail=str(run.run_id), code="kfp")


def _schedule_of(access: Access, run: Any) -> Any:
    if run.pipeline_version_reference or run.pipeline_spec or not run.recurring_run_id:
        return None
    return asked(
        "Kubeflow Pipelines did not show the schedule", lambda: access.api().get_recurring_run(run.recurring_run_id)
    )


def _spec(access: Access, source: Mapping[str, Any]) -> dict[str, Any]:
    if "pipeline_spec" in source:
        return dict(source["pipeline_spec"])
    at = source["pipeline_version_reference"]
    version = asked(
        "Kubeflow Pipelines did not show the pipeline",
        lambda: access.api().get_pipeline_version(at.pipeline_id, at.pipeline_version_id),
    )
    return dict(version.pipeline_spec)


def _created(access: Access, run: Any, source: Mapping[str, Any], found: Found) -> Any:
    """The new run of Kubeflow; it knows its id as far as its workflow takes one, and counts as its schedule's."""
    import kfp_server_api

    config = run.runtime_config
    given = dict((config and config.parameters) or {})
    parameters = {**given, **({"run": found.run_id} if "run" in given else {})}
    made = kfp_server_api.V2beta1Run(
        display_name=found.run_id,
        experiment_id=run.experiment_id,
        recurring_run_id=run.recurring_run_id,
        runtime_config=kfp_server_api.V2beta1RuntimeConfig(
            parameters=parameters, pipeline_root=config.pipeline_root if config else None
        ),
        service_account=run.service_account,
        **source,
    )
    create = access.api()._run_api.run_service_create_run
    return asked("Kubeflow Pipelines refused the run", lambda: create(run=made))


def _noted(access: Access, found: Found, later: Any, restarts: list[dict[str, Any]]) -> Found:
    """The new run, with what was asked and why it was started in its record."""
    from pipelines.io.record import write_run

    settings = {**(found.asked.get("settings") or {}), **restarts[-1]["changed"]}
    about = {**asked_of(later, found.asked), "run_id": found.run_id, "settings": settings, "restarts": restarts}
    with contextlib.suppress(PlatformError):
        write_run(access.records, str(later.run_id), Run.model_validate(about), standing(about))
    return Found(run=later, asked=about)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

"""A run on a cluster as the document that a run on this machine has in its ``run.json``."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from contracts.errors import PlatformError
from deploy.cli.cluster_runs.workflow_state import State, Step, moment
from pipelines.parameters import said_by
from pipelines.run import Run
from pipelines.steps.calls import ORDER, steps_of, workflow_called
from pipelines.tasks import get_task

STATES = {
    "SUCCEEDED": "succeeded",
    "FAILED": "failed",
    "CANCELED": "cancelled",
    "CANCELING": "cancelled",
    "SKIPPED": "skipped",
    "RUNNING": "running",
    "PENDING": "waiting",
    "PAUSED": "waiting",
}
"""What Kubeflow calls the state of a run, as ours."""


def asked_of(run: Any, record: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a run was asked, and how it stands as far as its record says it.

    `run` is Kubeflow's; of one that a page, a client or a schedule started, only its parameters may be known.
    """
    given = dict((run.runtime_config and run.runtime_config.parameters) or {})
    known = {key: value for key, value in (record or {}).items() if value not in ("", None, {})}
    said = said_by(given)
    asked = Run.model_validate({**said.model_dump(exclude_unset=True), **known})
    return {
        **asked.document(),
        "run_id": said.run_id or asked.run_id or str(run.display_name),
        "kfp_run": str(run.run_id),
        "schedule": str(run.recurring_run_id or ""),
        "started": _time(run.created_at),
        "finished": _time(run.finished_at),
        "steps": list(known.get("steps") or []),
        **{key: known[key] for key in ("by", "restarts", "left") if key in known},
    }


def order_of(workflow: str, asked: Mapping[str, Any], recorded: Collection[str]) -> tuple[str, ...]:
    """The steps of a run in order, as its record says them, or else as many as its task needs now.

    Args:
        workflow: name of its object, see `workflow_called`.  asked: see `asked_of`.
        recorded: the steps that have left something. Runs that say no steps may have others than their task needs now.
    """
    name = workflow_called(workflow)
    steps = tuple(asked["steps"])
    if not steps:
        with contextlib.suppress(PlatformError):  # a task that is not known here
            steps = steps_of(get_task(asked["task"]), name)
    return steps if steps and set(recorded) <= set(steps) else ORDER[name]


def described(asked: Mapping[str, Any], state: State) -> dict[str, Any]:
    """The document of a run as it stands."""
    result = result_of(state)
    document = dict(asked)
    document["finished"] = asked.get("finished") or state.finished or None
    document |= {
        "status": status_of(state),
        "seconds": _seconds(document),
        "steps": steps_document(state),
        "error": state.error.as_dict() if state.error else None,
        "result": dict(result) or None,
    }
    return document


def status_of(state: State) -> str:
    """succeeded, refused, failed, cancelled, running or waiting."""
    if state.cancelled:
        return "cancelled"
    if state.error is not None:
        return "failed"
    if state.phase == "Succeeded":
        return "succeeded" if _passed(state) else "refused"
    begun = any(step.status != "waiting" for step in state.steps.values())
    return "running" if begun else "waiting"


def result_of(state: State) -> Mapping[str, Any]:
    """What the run made: the version that its last step registered, or the scores."""
    return next((found for name in ("register", "batch_score") if (found := _result(state, name))), {})


def unknown_result(state: State, kfp_run: str) -> PlatformError | None:
    """An error for a run that ended well and of which nothing says what it made."""
    if state.phase != "Succeeded" or "register" not in state.steps or result_of(state) or not _passed(state):
        return None
    return PlatformError(
        "the run has ended well, and nothing says what it made",
        detail=f"neither the store nor the logs of Kubeflow run {kfp_run} have the result of its step register",
        fix="does the store answer? see: fairlead doctor; then look again: fairlead runs",
        code="no_result",
    )


def steps_document(state: State) -> dict[str, dict[str, Any]]:
    """The steps of a run as ``run.json`` has them."""
    return {name: _fields(step) for name, step in state.steps.items()}


def _fields(step: Step) -> dict[str, Any]:
    more = {
        "result": step.result,
        "tries": step.tries if step.tries > 1 else None,
        "waiting": step.waiting.text if step.waiting else None,
        "memory_peak": step.memory_peak,
    }
    return {"status": step.status, "seconds": step.seconds} | {k: v for k, v in more.items() if v is not None}


def _passed(state: State) -> bool:
    """The gate's word: from the version, or from the gate itself."""
    passed = _result(state, "register").get("gate_passed", _result(state, "gate").get("passed", True))
    return bool(passed)


def _result(state: State, step: str) -> Mapping[str, Any]:
    found = state.steps.get(step, Step()).result
    return found if isinstance(found, dict) else {}


def _seconds(asked: Mapping[str, Any]) -> float | None:
    """From its start to its end, or to now."""
    if not asked.get("started"):
        return None
    end = moment(asked["finished"]) if asked.get("finished") else datetime.now(UTC)
    return round(max(0.0, (end - moment(asked["started"])).total_seconds()), 1)


def _time(value: Any) -> str | None:
    """A time of Kubeflow, which writes 1970 for what has not happened."""
    if value is None or value.year < 1990:
        return None
    return str(value.isoformat(timespec="seconds"))

"""The runs of a cluster, by whoever started them: listed, found, looked at, cancelled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from contracts.errors import PlatformError
from deploy.cli.cluster_runs.access import Access, asked
from deploy.cli.cluster_runs.follow import Follower
from deploy.cli.cluster_runs.run_document import STATES, asked_of, described, unknown_result
from deploy.cli.cluster_runs.workflow_state import State, Step
from deploy.cli.runs.step_logs import no_step, part_of

_PAGE, _MOST = 100, 500  # runs that are asked for at once, and in all
_AT_ONCE = 8  # records that are read at the same time


@dataclass(frozen=True, kw_only=True)
class Found:
    """One run of the cluster: what Kubeflow says, and what was asked."""

    run: Any
    asked: dict[str, Any]

    @property
    def kfp_run(self) -> str:
        return str(self.run.run_id)

    @property
    def run_id(self) -> str:
        return str(self.asked["run_id"])


def list_runs(access: Access, limit: int) -> list[dict[str, Any]]:
    """The latest runs, newest first; of a run that was resumed, its last attempt.

    Raises:
        PlatformError: ``code="kfp"``: Kubeflow does not answer.
    """
    kept = list(_last_attempts(_with_records(access, _runs(access, 2 * limit))).values())[:limit]
    names = _schedules(access) if any(found.run.recurring_run_id for found in kept) else {}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        documents = list(pool.map(lambda found: _ended(access, found), kept))
    for document in documents:
        document["by"] = by(document, names)
    return documents


def by(document: Mapping[str, Any], schedules: Mapping[str, str]) -> str:
    """Who started a run: a person, a schedule, or somebody on Kubeflow's page or by its client."""
    schedule = str(document.get("schedule") or "")
    if schedule:
        return f"schedule {schedules.get(schedule, schedule[:8])}"
    return str(document.get("by") or "Kubeflow")


def find_run(access: Access, text: str) -> Found:
    """A run by its id, by Kubeflow's id, or by the start of either when that is unique; its last attempt.

    Raises:
        PlatformError: ``code="unknown_run"``, listing the latest; ``code="kfp"``.
    """
    runs = list(_runs(access, _MOST))
    matching = [run for run in runs if text and any(name.startswith(text) for name in _names(run))]
    if not matching:  # the id that a run made itself ends in the start of Kubeflow's
        end = text.rpartition("-")[2]
        matching = [run for run in runs if end and not _given(run, "run") and str(run.run_id).startswith(end)]
    found = [one for one in _with_records(access, matching[:50]) if _is(one, text)]
    exact = [one for one in found if text in (one.run_id, one.kfp_run)]
    by_id = _last_attempts(exact or found)
    if len(by_id) == 1:
        return next(iter(by_id.values()))
    latest = ", ".join(list(by_id)[:5] or [str(run.display_name) for run in runs[:5]]) or "none"
    what = "more than one run starts with" if by_id else "no run"
    detail = f"runs of the cluster: {latest}"
    raise PlatformError(f"{what} {text!r}", detail=detail, fix="fairlead runs", code="unknown_run")


def _last_attempts(newest_first: Sequence[Found]) -> dict[str, Found]:
    """The last attempt of each run by its id. Two may have begun in the same second: a later one names the earlier."""
    earlier = {str(each["kfp_run"]) for one in newest_first for each in one.asked.get("restarts") or []}
    latest: dict[str, Found] = {}
    for one in newest_first:
        before = latest.setdefault(one.run_id, one)
        if before.kfp_run in earlier and one.kfp_run not in earlier:
            latest[one.run_id] = one
    return latest


def later_than(access: Access, found: Found) -> Found | None:
    """The newest run of Kubeflow that goes on with `found`, if there is one.

    Raises:
        PlatformError: ``code="kfp"``.
    """
    earlier = {found.kfp_run, *(str(each["kfp_run"]) for each in found.asked.get("restarts") or [])}
    for run in _runs(access, _PAGE):
        if str(run.run_id) not in earlier and found.run_id in _names(run) and run.created_at >= found.run.created_at:
            return next(iter(_with_records(access, [run])), None)
    return None


def look_at(access: Access, found: Found, *, logs: bool = False) -> dict[str, Any]:
    """The document of a run as it stands. logs: also what its pods say, which may be ahead of all else.

    Raises:
        PlatformError: the cluster does not answer.
    """
    state = Follower(access, found.kfp_run, found.asked).look(logs=logs)
    document = described(found.asked, state)
    if (missing := unknown_result(state, found.kfp_run)) is not None:
        document["error"] = missing.as_dict()
    names = _schedules(access) if found.run.recurring_run_id else {}
    return document | {"by": by(document, names)}


def log_of(access: Access, found: Found, step: str) -> str:
    """What a step has printed in its last try.

    Raises:
        PlatformError: ``code="unknown_step"``, ``code="no_log"``.
    """
    state = Follower(access, found.kfp_run, found.asked).look()
    if step not in state.steps:
        raise no_step(step, state.steps)
    shown = state.steps[step]
    text = access.log(state.workflow, shown.pod) if shown.pod else ""
    if not text:
        raise PlatformError(
            f"there is no log of {step}",
            detail=_no_log(shown),
            fix=f"see how it stands: fairlead runs {found.run_id}",
            code="no_log",
        )
    return part_of(text, step, alone=_is_alone(state, step))


def cancel(access: Access, found: Found) -> None:
    """End a run.

    Raises:
        PlatformError: ``code="ended"``: it has ended; ``code="kfp"``.
    """
    status = STATES.get(str(found.run.state), "running")
    if status not in ("running", "waiting"):
        raise PlatformError(
            f"{found.run_id} has ended already: {status}",
            fix=f"look at it: fairlead runs {found.run_id}",
            code="ended",
        )
    asked("Kubeflow Pipelines did not end the run", lambda: access.api().terminate_run(found.kfp_run))


def _is_alone(state: State, step: str) -> bool:
    return any(task.steps == (step,) for task in state.tasks)


def _no_log(step: Step) -> str:
    if step.status == "cached":
        return "it came from the cache: no pod ran"
    return step.waiting.text if step.waiting else f"it is {step.status}, and neither its pod nor the store has a log"


def _runs(access: Access, limit: int) -> Iterator[Any]:
    """What Kubeflow lists, newest first."""
    client = access.api()
    namespace = client._context_setting.get("namespace") or None
    token = ""
    while limit > 0:
        ask = partial(client.list_runs, token, min(limit, _PAGE), "created_at desc", namespace=namespace)
        answer = asked("Kubeflow Pipelines did not list the runs", ask)
        yield from answer.runs or []
        limit, token = limit - _PAGE, answer.next_page_token or ""
        if not token:
            return


def _with_records(access: Access, runs: Any) -> list[Found]:
    """Runs of our workflows with what they were asked."""

    def read(run: Any) -> Found | None:
        if not _given(run, "task"):
            return None  # of somebody else, in the same Kubeflow
        try:
            record = access.about(str(run.run_id))
        except PlatformError:
            record = None
        return Found(run=run, asked=asked_of(run, record))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return [found for found in pool.map(read, runs) if found is not None]


def _ended(access: Access, found: Found) -> dict[str, Any]:
    """The document of a listed run: what it came to, if it has ended."""
    status = STATES.get(str(found.run.state), str(found.run.state).lower())
    if status in ("succeeded", "failed"):
        try:
            state = Follower(access, found.kfp_run, found.asked).remember(found.run)
            if unknown_result(state, found.kfp_run):  # it left no record: then its pods may say it
                state = Follower(access, found.kfp_run, found.asked).look()
            more = {"status": "ended"} if unknown_result(state, found.kfp_run) else {}
            return described(found.asked, state) | more
        except PlatformError:  # the store does not answer: what is left is Kubeflow's word
            status = "ended" if status == "succeeded" else status
    return described(found.asked, Follower(access, found.kfp_run, found.asked).state) | {"status": status}


def _schedules(access: Access) -> dict[str, str]:
    """Names of the schedules by their ids."""
    client = access.api()
    namespace = client._context_setting.get("namespace") or None
    ask = partial(client.list_recurring_runs, page_size=_PAGE, namespace=namespace)
    try:
        answer = asked("Kubeflow Pipelines did not list the schedules", ask)
    except PlatformError:
        return {}
    return {str(one.recurring_run_id): str(one.display_name) for one in answer.recurring_runs or []}


def _given(run: Any, parameter: str) -> str:
    parameters = (run.runtime_config and run.runtime_config.parameters) or {}
    return str(parameters.get(parameter) or "")


def _names(run: Any) -> list[str]:
    return [name for name in (str(run.run_id), str(run.display_name), _given(run, "run")) if name]


def _is(found: Found, text: str) -> bool:
    return any(name.startswith(text) for name in (found.run_id, found.kfp_run, str(found.run.display_name)))

"""What the steps of one run need on a cluster: defaults, the task, the run before, and what was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from pipelines.data_engines import shares_out
from pipelines.io.record import read_run, read_steps
from pipelines.resources import DATA, STEPS, Resources
from pipelines.run_settings import needs

if TYPE_CHECKING:
    from pipelines.run import Placing, Run

_ROOM = 1.5  # times what the run before took at most
_LOOKED_AT = 20  # runs


def step_needs(run: Run, memory: Mapping[str, int]) -> dict[str, Resources]:
    """The needs of each step of a run; of one without a task, those of a workflow that any task may be run by.

    memory: bytes that steps took at most in a run before.
    """
    from pipelines.tasks import get_task

    settings = dict(run.settings)
    defaults = getattr(get_task(run.task), "resources", None) if run.task else None
    if run.placing.train_gpus:
        settings["resources.train.gpus"] = run.placing.train_gpus
    least = {step: int(size * _ROOM) for step, size in memory.items()}
    return needs(settings, defaults, least)


def of_pods(found: Mapping[str, Resources], placing: Placing) -> dict[str, Resources]:
    """The needs of the pods that Kubeflow starts: of a training over several nodes, the step only waits for it."""
    if placing.train_nodes == 1:
        return dict(found)
    return {**found, "train": replace(STEPS["train"], own=True)}


def memory_known(run: Run, root: str, before: Sequence[str]) -> dict[str, int]:
    """Bytes that each step takes by the plan, or took when the recipe ran last; the larger, as either saw less data.

    before: ids of runs of the task in Kubeflow, the newest first; they left records in `root`.
    """
    by_runs, planned = memory_before(root, run.recipe, before), by_plan(run)
    return by_runs | {step: max(size, by_runs.get(step, 0)) for step, size in planned.items()}


def by_plan(run: Run) -> dict[str, int]:
    """Bytes that the data steps and the training take by the plan of ``fairlead plan``; empty where there is none.

    Of the data steps only where they are shared out as they were when they were measured.
    """
    from pipelines.planned import key_of, read_plan

    plan = read_plan(run.where, key_of(run))
    if plan is None:
        return {}
    data = plan["data"]
    same = shares_out(run.settings) == bool(data.get("workers"))
    return {step: int(data["memory_peak"]) for step in DATA if same} | {"train": int(plan["need"])}


def memory_before(root: str, recipe: str, newest: Sequence[str]) -> dict[str, int]:
    """Bytes that each step took at most when this recipe ran last; empty when nothing says it.

    newest: ids of runs of the task in Kubeflow, the newest first.
    """
    try:
        with ThreadPoolExecutor(8) as pool:
            known = [run for run in pool.map(lambda kfp_run: read_run(root, kfp_run), newest) if run]
        for run in known:
            if run.get("recipe") == recipe and (found := _peaks(root, str(run["kfp_run"]))):
                return found
    except PlatformError:  # the store is away: the defaults serve
        pass
    return {}


def _peaks(root: str, kfp_run: str) -> dict[str, int]:
    steps = read_steps(root, kfp_run)
    return {step: int(said["memory_peak"]) for step, said in steps.items() if step in STEPS and said.get("memory_peak")}


def runs_of(client: Any, task: str) -> list[str]:
    """Ids of the latest runs of a task in Kubeflow, the newest first."""
    from kfp_server_api import ApiException

    namespace = client._context_setting.get("namespace") or None
    try:
        experiment = client.get_experiment(experiment_name=task, namespace=namespace).experiment_id
        found = client.list_runs(page_size=_LOOKED_AT, sort_by="created_at desc", experiment_id=experiment).runs or []
    except (ApiException, ValueError):  # there is none yet
        return []
    return [str(run.run_id) for run in found]

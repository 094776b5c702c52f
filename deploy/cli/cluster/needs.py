"""What the steps of one run need on a cluster: defaults, the task, the run before, and what was asked for."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from pipelines.record import list_runs, read_run, read_steps
from pipelines.resources import STEPS, Resources
from pipelines.run_settings import needs

if TYPE_CHECKING:
    from pathlib import Path

    from deploy.cli.cluster.submit import Placing
    from deploy.cli.workflow import RunRequest

_ROOM = 1.5  # times what the run before took at most
_LOOKED_AT = 30  # runs of others in the store, when none was started here


def step_needs(request: RunRequest | None, placing: Placing, memory: Mapping[str, int]) -> dict[str, Resources]:
    """The needs of each step of a run; without one, those of a workflow that any task may be run by.

    memory: bytes that steps took at most in a run before.
    """
    from pipelines.tasks import get_task

    settings = dict(request.settings) if request else {}
    defaults = getattr(get_task(request.task), "resources", None) if request and request.task else None
    if placing.train_gpus:
        settings["resources.train.gpus"] = placing.train_gpus
    least = {step: int(size * _ROOM) for step, size in memory.items()}
    return needs(settings, defaults, least)


def of_pods(found: Mapping[str, Resources], placing: Placing) -> dict[str, Resources]:
    """The needs of the pods that Kubeflow starts: of a training over several nodes, the step only waits for it."""
    if placing.train_nodes == 1:
        return dict(found)
    return {**found, "train": replace(STEPS["train"], own=True)}


def memory_before(root: str, task: str, recipe: str, runs: Path) -> dict[str, int]:
    """Bytes that each step took at most when this recipe ran last; empty when nothing says it.

    Runs that were started here are known by their files below `runs`; else some of those in the store are looked at.
    """
    with contextlib.suppress(PlatformError):
        for kfp_run in _started_here(runs, task, recipe):
            if found := _peaks(root, kfp_run):
                return found
        for kfp_run in _in_the_store(root, task, recipe):
            if found := _peaks(root, kfp_run):
                return found
    return {}


def _peaks(root: str, kfp_run: str) -> dict[str, int]:
    steps = read_steps(root, kfp_run)
    return {step: int(said["memory_peak"]) for step, said in steps.items() if step in STEPS and said.get("memory_peak")}


def _started_here(runs: Path, task: str, recipe: str) -> Iterator[str]:
    for file in sorted(runs.glob(f"{task}-*/run.json"), reverse=True):
        with contextlib.suppress(OSError, ValueError):
            run: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            if run.get("recipe") == recipe and run.get("kfp_run"):
                yield str(run["kfp_run"])


def _in_the_store(root: str, task: str, recipe: str) -> list[str]:
    names = list_runs(root)[:_LOOKED_AT]
    with ThreadPoolExecutor(8) as pool:
        known = [run for run in pool.map(lambda name: read_run(root, name), names) if run]
    same = [run for run in known if run.get("task") == task and run.get("recipe") == recipe]
    return [str(run["kfp_run"]) for run in sorted(same, key=lambda run: str(run.get("started")), reverse=True)]

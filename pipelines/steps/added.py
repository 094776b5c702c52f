"""Steps that a task or its problem adds to a run: they make anew what an earlier step made, and later ones get that."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from contracts.errors import PlatformError
from pipelines.evaluation import get_evaluation
from pipelines.io import events
from pipelines.io.remote import folder_kept
from pipelines.steps.train import exclusive
from pipelines.task import AddedStep, Task, problem_of
from pipelines.tasks import get_task, load_config

MADE = {"validate": "clean", "build_dataset": "built", "train": "model"}
"""Steps whose output may be made anew, and what it is called among a run's values."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_TAKEN = {"run", "all", "added", "prepare", "judge"}  # they mean something else where a step may be named


def added_steps(task: Task, known: Collection[str] = ()) -> Mapping[str, AddedStep]:
    """The steps that the problem of `task` and `task` itself add to the `known` ones, by name.

    One of the task's has the place of its problem's of the same name.

    Raises:
        PlatformError: ``code="bad_task"``: a name that cannot be a step's, or a place where none can be.
    """
    found = {**get_evaluation(problem_of(task)).steps, **(getattr(task, "steps", None) or {})}
    for name, step in found.items():
        if not _NAME.fullmatch(name) or name in _TAKEN or name in known:
            raise _bad(task, name, "names have lower-case letters, digits and _, and are not taken", "rename it")
        if wrong := [each for each in (step.after, *step.takes) if each not in MADE]:
            raise _bad(task, name, f"it names {wrong[0]!r}", f"name one of: {', '.join(MADE)}")
        if late := [each for each in step.takes if list(MADE).index(each) > list(MADE).index(step.after)]:
            raise _bad(task, name, f"it takes what {late[0]} makes and runs before it", f"let it be after {late[0]}")
    return found


def added(step: str, task: str, config: str, given: Mapping[str, str], checkpoints: str, out: str) -> dict[str, Any]:
    """Do the work of the added `step`; `given` has by step what it takes, and `out` gets what is in its place later.

    `checkpoints` is the same place when the same work is started again; it is emptied after success.

    Returns:
        What the work says of itself.

    Raises:
        PlatformError: ``code="bad_task"``: it wrote nothing.
    """
    found = get_task(task)
    work = added_steps(found)[step].work
    target = Path(out)
    target.mkdir(parents=True, exist_ok=True)
    with folder_kept(checkpoints) as kept, exclusive(Path(kept), target) as folder:
        paths = {name: Path(path) for name, path in given.items()}
        result = work(load_config(found, config), paths, target, folder, events.progress(step))
        shutil.rmtree(folder, ignore_errors=True)
    if not any(target.iterdir()):
        raise _bad(found, step, "it wrote nothing", "write into `out` what later steps take")
    return dict(result or {})


def _bad(task: Task, name: str, detail: str, fix: str) -> PlatformError:
    return PlatformError(f"task {task.name}: step {name!r} cannot be", detail=detail, fix=fix, code="bad_task")

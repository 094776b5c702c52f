"""Tasks are discovered, not listed: every folder here with a ``TASK`` is one, and those that other packages add."""

from __future__ import annotations

import difflib
import importlib
import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from contracts.errors import PlatformError
from pipelines.data.sensitive import check_sensitive
from pipelines.evaluation.gate_metrics import check_gate, usual_gate
from pipelines.plugins import TASKS, added_recipes, task_folder
from pipelines.settings import apply
from pipelines.task import Task, TaskConfig, dump_config, validated

_RAW = {"_row": "the number of the row in the source", "_draw": "a random number of the row"}
_BUILT = {"id": "the id of the row", "label": "the class of the row", "row_key": "what the row is known by"}


def task_names() -> list[str]:
    """Names of all tasks, sorted."""
    return TASKS.names()


def get_task(name: str) -> Task:
    """The task called `name`. One of ours is never replaced by another package's.

    Raises:
        PlatformError: unknown name; lists the known ones. ``code="bad_plugin"`` when its package cannot be loaded.
    """
    if name not in task_names():
        raise PlatformError(
            f"unknown task {name!r}",
            detail=f"known tasks: {', '.join(task_names())}",
            fix=f"pick one of them, or write it: make new-task NAME={name}",
            code="unknown_task",
        )
    added = name in TASKS.entries()
    task: Task = TASKS.get(name) if added else importlib.import_module(f"pipelines.tasks.{name}").TASK
    if task.name != name:
        raise PlatformError(
            f"task {name!r} calls itself {task.name!r}",
            fix=f"give it one name in {task_folder(name)} and where it is named as a task",
            code="bad_task",
        )
    _check_names(task.name, "column", [column.name for column in task.columns], _RAW)
    return task


def _check_names(task: str, kind: str, names: Sequence[str], taken: Mapping[str, str]) -> None:
    """Any text may be a name, but for those that the data of every task have for something else."""
    counts = Counter(name.strip() for name in names)
    for name in names:
        if not name.strip():
            reason = "it is empty"
        elif counts[name.strip()] > 1:
            reason = "there are two of that name, apart from spaces around it"
        elif name in taken:
            reason = f"it is {taken[name]}"
        else:
            continue
        raise PlatformError(
            f"task {task} has {kind} {name!r}, which cannot be its name: {reason}",
            detail=f"names of its {kind}s: {', '.join(map(repr, names))}",
            fix=f"give it another name in {_place(task)}",
            code="bad_task",
            column=name,
        )


def _place(task: str) -> str:
    return str(task_folder(task)) if task in TASKS.entries() else f"pipelines/tasks/{task}/"


def recipes_of(task: Task) -> Mapping[str, TaskConfig]:
    """All recipes of a task: its own, and those that other packages have for it."""
    return {**task.recipes, **added_recipes(task)}


def find_recipe(task: Task, name: str) -> TaskConfig | None:
    """One of `recipes_of`; other packages are asked only for what the task does not have itself."""
    return task.recipes.get(name) or added_recipes(task).get(name)


def recipe_config(task: Task, recipe: str | None = None, overrides: Mapping[str, Any] | None = None) -> TaskConfig:
    """The configuration of a recipe with dotted `overrides` applied, for example ``{"model.rounds": 50}``.

    Raises:
        PlatformError: unknown recipe, unknown key, a value of the wrong type or a metric of the gate that is not
            measured, with what is accepted.
    """
    name = recipe or task.default_recipe
    base = find_recipe(task, name)
    if base is None:
        known = recipes_of(task)
        near = [*difflib.get_close_matches(name, known, 1), task.default_recipe][0]
        raise PlatformError(
            f"unknown recipe {name!r} of task {task.name}",
            detail=f"known recipes: {', '.join(sorted(known))}",
            fix=f"pick one of them: --recipe {near}",
            code="unknown_recipe",
        )
    config = changed_config(task, json.loads(dump_config(base)), overrides or {})
    _check_names(task.name, "input", [item.name for item in task.inputs(config)], _BUILT)
    check_sensitive(task, [item.name for item in (*task.inputs(config), *task.request(config))])
    check_gate(task, config)
    from pipelines.suites.in_run import pinned

    return pinned(task, config)


def changed_config(task: Task, document: Mapping[str, Any], overrides: Mapping[str, Any]) -> TaskConfig:
    """A configuration that was written by `dump_config`, of this version or an earlier one, with `overrides` applied.

    Raises:
        PlatformError: unknown key or a value of the wrong type, with what is accepted.
    """
    if "recipe" in overrides:
        raise PlatformError(
            "--set recipe: a recipe is a whole configuration, not a setting",
            detail=f"known recipes: {', '.join(sorted(recipes_of(task)))}",
            fix=f"fairlead run {task.name} --recipe {shlex.quote(str(overrides['recipe']))}",
            code="bad_config",
        )
    changed = json.loads(dump_config(load_config(task, json.dumps(document))))
    for key, value in overrides.items():
        apply(changed, key, value)
    config: TaskConfig = load_config(task, json.dumps(changed, default=str))
    return config


def load_config(task: Task, text: str) -> Any:
    """Rebuild a configuration from `dump_config`'s JSON (whole numbers survive as the field's type).

    A gate without a primary metric gets the one of the task's problem.
    """
    document = json.loads(text)
    found = find_recipe(task, str(document.get("recipe"))) or task.recipes[task.default_recipe]
    config = validated(type(found), document)
    return config if config.gate.primary else replace(config, gate=usual_gate(task, config.gate))

"""Tasks, recipes and feature definitions of other packages, which add them by entry points.

A task is an object as `TASK` is in ``pipelines/tasks/<name>/``. A recipe is a function that makes one for a task, or
None for a task that it is not for. Feature definitions are a module of Feast objects, under the name of their task::

    [project.entry-points."fairlead.tasks"]
    churn = "my_package.churn:TASK"

    [project.entry-points."fairlead.recipes"]
    forest = "my_package.forest:recipe"

    [project.entry-points."fairlead.features"]
    churn = "my_package.churn_views"
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from contracts.errors import PlatformError
from contracts.plugins import Rooms
from pipelines.task import Task, TaskConfig

TASKS = Rooms("task", "pipelines.tasks", "TASK", folders=True)
RECIPES = Rooms("recipe", "pipelines.recipes", "RECIPE")
FEATURES = Rooms("feature", "feature_repo", "")


def added_recipes(task: Task) -> Mapping[str, TaskConfig]:
    """The recipes that other packages have for a task and that it does not have itself, by their names.

    Raises:
        PlatformError: ``code="bad_plugin"``: a package cannot be loaded, or makes something else than its recipe.
    """
    found = {}
    for name, entry in RECIPES.entries().items():
        if name in task.recipes or (made := RECIPES.get(name)(task)) is None:
            continue
        if not isinstance(made, TaskConfig) or made.recipe != name:
            raise PlatformError(
                f"recipe {name!r} of package {entry.dist.name if entry.dist else entry.module} is none",
                detail=f"{entry.value} gave task {task.name} {str(made)[:100]}",
                fix=f"it must return a TaskConfig whose recipe is {name!r}, or None for a task that it is not for",
                code="bad_plugin",
            )
        found[name] = made
    return found


def task_folder(name: str) -> Path:
    """Where a task's source lies, with the README.md that its model card quotes."""
    entry = TASKS.entries().get(name)
    return module_file(entry.module).parent if entry else Path(__file__).parent / "tasks" / name


def definitions_module(task: str) -> str:
    """The module with a task's feature definitions, whether it is there or not."""
    entry = FEATURES.entries().get(task)
    return entry.module if entry else f"feature_repo.{task}"


def module_file(module: str) -> Path:
    """The source of a module, which is not imported for it; the packages around it are.

    Raises:
        PlatformError: ``code="bad_plugin"``: there is none.
    """
    try:
        found = find_spec(module)
    except ImportError as err:
        raise _absent(module, str(err)) from err
    if found is None or not found.origin or not Path(found.origin).is_file():
        raise _absent(module, "it is not there, or has no source file")
    return Path(found.origin)


def _absent(module: str, why: str) -> PlatformError:
    return PlatformError(
        f"module {module}, which an entry point names, has no source", detail=why, fix="install its package again",
        code="bad_plugin",
    )  # fmt: skip

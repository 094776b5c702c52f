"""The registers of tasks: which sources there are, and whether they may be used today."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

import typer

from contracts.errors import PlatformError
from deploy.cli.terminal.output import EXIT_REFUSED, emit, table
from pipelines.data import register
from pipelines.plugins import task_folder
from pipelines.tasks import get_task, task_names

if TYPE_CHECKING:
    from rich.console import Console


def show_sources(task: str, source: str, as_json: bool) -> None:
    """Show the registers of `task`, or of all tasks; or whether `source` may be learned from, exit code 3 if not.

    Raises:
        PlatformError: a task or register that is none.
    """
    names = [get_task(task).name] if task else task_names()
    if source:
        _check(names[0], source, as_json)
        return
    rows = [row for name in names for row in _rows(name)]
    emit({"sources": rows}, as_json, lambda to: _show(to, rows, task))
    if task and any(row["state"] != register.OPEN for row in rows):
        raise typer.Exit(EXIT_REFUSED)


def _check(task: str, source: str, as_json: bool) -> None:
    try:
        found = register.require(task_folder(task), source)
    except PlatformError as err:
        if err.code == "bad_register":
            raise
        document = {"task": task, "source": source, "allowed": False, "reason": err.headline, "fix": err.fix}
        told = str(err)
        emit(document, as_json, lambda to: to.print(told, soft_wrap=True, markup=False))
        raise typer.Exit(EXIT_REFUSED) from err
    lines = register.in_words(found) or [f"task {task} has no register: every source is taken"]
    emit(
        {"task": task, "source": source, "allowed": True, "entry": found},
        as_json,
        lambda to: to.print("\n".join(lines), soft_wrap=True, markup=False),
    )


def _rows(task: str) -> list[dict[str, Any]]:
    found = register.read_register(task_folder(task))
    if found is None:
        return []
    return [
        {
            "task": task,
            "purpose": found.purpose,
            "name": name,
            "state": one.state(found.purpose, date.today()),
            "kept_until": one.kept_until,
            **one.model_dump(mode="json"),
        }
        for name, one in found.sources.items()
    ]


def _show(to: Console, rows: list[dict[str, Any]], task: str) -> None:
    if not rows:
        of = f"task {task} has" if task else "no task has"
        to.print(f"{of} no register" if task else f"{of} a register", end="")
        to.print(f" ({register.FILE} in the task's folder): every source is taken")
        return
    made = table("source", "task", "personal", "licence", "purposes", "state")
    for row in rows:
        personal = "yes" if row["personal"] else "no"
        made.add_row(row["name"], row["task"], personal, row["licence"], ", ".join(row["purposes"]), row["state"])
    to.print(made)

"""The graph of a run: which steps a task needs, as a line, as mermaid, or as JSON."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from contracts.errors import PlatformError
from deploy.cli.terminal.output import console, write_json

FORMS = ("text", "mermaid")


def show_graph(task: str | None, form: str, as_json: bool) -> None:
    """Print the graph of a run of `task`, which is not started.

    Raises:
        PlatformError: no task, one that is not known, or a form that is not.
    """
    from pipelines.steps.calls import graph, needs_of
    from pipelines.tasks import get_task

    if not task or form not in FORMS:
        raise PlatformError(
            "--graph shows the steps of a task as text or mermaid",
            detail=f"given: task {task or 'none'}, form {form!r}",
            fix="fairlead run TASK --graph text",
            code="bad_option",
        )
    needs = needs_of(graph("full", get_task(task)))
    if as_json:
        write_json({"task": task, "workflow": "full", "steps": needs, "mermaid": mermaid(needs)})
    else:
        console().print(line(needs) if form == "text" else mermaid(needs), markup=False, soft_wrap=True)


def line(steps: Collection[str]) -> str:
    """Steps in order: ``ingest > validate > ...``."""
    return " > ".join(steps)


def mermaid(needs: Mapping[str, Sequence[str]]) -> str:
    """A flowchart, for a page that draws mermaid; `needs` says whose output each step takes."""
    arrows = [f"    {before} --> {step}" for step, found in needs.items() for before in found]
    return "\n".join(["flowchart LR", *(f"    {step}" for step in needs), *arrows])

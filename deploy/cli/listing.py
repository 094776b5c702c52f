"""``fairlead tasks`` and ``fairlead runs``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deploy.cli.advice import new_command, pasteable, resume_command, settings_of
from deploy.cli.homes import elsewhere
from deploy.cli.output import emit, seconds, table
from deploy.cli.profiles import load_endpoints, load_profile
from deploy.cli.runstate import find_run, list_runs
from deploy.cli.training import build_report, show_report

if TYPE_CHECKING:
    from rich.console import Console

_COLOURS = {"succeeded": "green", "refused": "yellow", "failed": "red", "dead": "red", "running": "cyan"}


def show_tasks(as_json: bool) -> None:
    """All tasks with their recipes; the default recipe is marked."""
    from pipelines.tasks import get_task, task_names

    found = [get_task(name) for name in task_names()]
    document = [
        {
            "name": task.name,
            "title": task.title,
            "modality": task.modality,
            "recipes": sorted(task.recipes),
            "default_recipe": task.default_recipe,
            "feature_service": task.feature_service,
        }
        for task in found
    ]

    def show(out: Console) -> None:
        rows = table("task", "what it predicts", "modality", "recipes (* default)", "features")
        for item in document:
            recipes = ", ".join(f"{r}*" if r == item["default_recipe"] else r for r in item["recipes"])
            rows.add_row(item["name"], item["title"], item["modality"], recipes, item["feature_service"] or "-")
        out.print(rows)
        out.print("Train one: fairlead run TASK    Write one: fairlead new-task NAME")

    emit(document, as_json, show)


def show_runs(profile: str, limit: int, as_json: bool) -> None:
    """The latest runs, newest first."""
    endpoints = load_endpoints(profile)
    runs = list_runs(endpoints)[:limit]

    def show(out: Console) -> None:
        if not runs:
            out.print(f"No runs in {endpoints.path('runs')}. Start one: fairlead run TASK", soft_wrap=True)
            if others := elsewhere(endpoints.scratch()):
                out.print(f"There are {others}", soft_wrap=True, markup=False)
            return
        rows = table("run", "status", "recipe", "started (UTC)", "time", "result", right=("time",))
        for run in runs:
            rows.add_row(
                run["run_id"],
                _coloured(run["status"]),
                str(run.get("recipe") or "-"),
                str(run.get("started") or "-")[:16].replace("T", " "),
                seconds(run.get("seconds")),
                _outcome(run),
            )
        out.print(rows)

    for run in runs:
        _way_on(run, profile)
    emit([_summary(run) for run in runs], as_json, show)


def show_run(profile: str, run_id: str, as_json: bool) -> None:
    """One run: steps, error, result, gate."""
    endpoints = load_endpoints(profile)
    run = find_run(endpoints, run_id)
    again = _way_on(run, profile)
    report = build_report(endpoints, run)

    def show(out: Console) -> None:
        out.print(f"[bold]{run['run_id']}[/]  ", _coloured(run["status"]), f"  {_asked(run)}")
        _show_settings(out, run)
        out.print(f"Started  {run.get('started') or '-'}   source {run.get('source') or 'built-in data'}")
        rows = table("step", "status", "time", right=("time",))
        for name, step in (run.get("steps") or {}).items():
            rows.add_row(name, str(step.get("status")), seconds(step.get("seconds")))
        if rows.rows:
            out.print(rows)
        show_report(out, report)
        _show_failure(out, run, again)

    emit(report, as_json, show)


def _way_on(run: dict[str, Any], profile: str) -> str:
    """The command that goes on with a run that failed, and put into the cure of its error; empty for others."""
    if run["status"] not in ("failed", "dead"):
        return ""
    on_cluster = load_profile(profile).cluster is not None
    again = new_command(run, profile) if on_cluster else resume_command(run["run_id"], profile)
    error = run.get("error")
    if isinstance(error, dict):
        run["error"] = {**error, "fix": pasteable(error.get("fix") or "", again)}
    return again


def _asked(run: dict[str, Any]) -> str:
    scored = run.get("workflow") == "batch_scoring"
    return f"scores of {run.get('model')}, in {run.get('out')}" if scored else f"task {run['task']}, {run['recipe']}"


def _show_settings(out: Console, run: dict[str, Any]) -> None:
    """What the run was asked beyond its recipe."""
    words = settings_of(run)
    if words:
        out.print(f"Settings {' '.join(words)}", markup=False, soft_wrap=True)


def _show_failure(out: Console, run: dict[str, Any], again: str) -> None:
    error = run.get("error")
    if error:
        lines = [error.get(key) for key in ("headline", "detail", "fix")] if isinstance(error, dict) else [error]
        out.print("Error    " + "\n         ".join(str(line) for line in lines if line), markup=False, soft_wrap=True)
    if again:
        out.print(f"Go on   {again}", markup=False, soft_wrap=True)


def _summary(run: dict[str, Any]) -> dict[str, Any]:
    kept = ("run_id", "status", "task", "recipe", "source", "started", "finished", "seconds", "result", "error")
    return {key: run.get(key) for key in kept}


def _outcome(run: dict[str, Any]) -> str:
    result = run.get("result") or {}
    if "version" in result:
        return f"{result['name']}:{result['version']}"
    if "rows" in result:
        return f"{result['rows']:,} rows"
    error = run.get("error")
    text = error.get("headline", "") if isinstance(error, dict) else str(error or "")
    return f"{text[:37]}..." if len(text) > 40 else text or "-"


def _coloured(status: str) -> Any:
    from rich.text import Text

    return Text(status, _COLOURS.get(status, ""))

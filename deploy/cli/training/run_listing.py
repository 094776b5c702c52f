"""``fairlead tasks`` and ``fairlead runs``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from deploy.cli.profiles.homes import elsewhere
from deploy.cli.profiles.loading import load_endpoints, load_profile
from deploy.cli.runs import local_runs
from deploy.cli.runs.run_files import find_run, list_runs
from deploy.cli.terminal.advice import pasteable, resume_command, settings_of
from deploy.cli.terminal.output import emit, seconds, table
from deploy.cli.training.cost import run_cost
from deploy.cli.training.start_run import build_report, conclude, show_report
from pipelines.cost import in_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

_COLOURS = {
    "succeeded": "green",
    "refused": "yellow",
    "failed": "red",
    "dead": "red",
    "running": "cyan",
    "cancelled": "red",
}


def show_tasks(as_json: bool) -> None:
    """All tasks with their recipes; the default recipe is marked."""
    document = all_tasks()

    def show(out: Console) -> None:
        rows = table("task", "what it predicts", "modality", "recipes (* default)", "features")
        for item in document:
            recipes = ", ".join(f"{r}*" if r == item["default_recipe"] else r for r in item["recipes"])
            rows.add_row(item["name"], item["title"], item["modality"], recipes, item["feature_service"] or "-")
        out.print(rows)
        out.print("Train one: fairlead run TASK    Write one: fairlead new-task NAME")

    emit(document, as_json, show)


def all_tasks() -> list[dict[str, Any]]:
    """Every task: name, title, modality, recipes, the default one and its feature service."""
    from pipelines.tasks import get_task, recipes_of, task_names

    return [
        {
            "name": task.name,
            "title": task.title,
            "modality": task.modality,
            "recipes": sorted(recipes_of(task)),
            "default_recipe": task.default_recipe,
            "feature_service": task.feature_service,
        }
        for task in map(get_task, task_names())
    ]


def show_runs(profile: str, limit: int, as_json: bool, alone: bool = True) -> None:
    """The latest runs, newest first; `alone`: nothing is asked of one of them."""
    if not alone:
        raise PlatformError(
            "which run?", detail="see: fairlead runs", fix="fairlead runs RUN --follow", code="bad_option"
        )
    runs, empty = latest_runs(profile, limit)
    emit([_summary(run) for run in runs], as_json, lambda out: _show_list(out, runs, empty))


def latest_runs(profile: str, limit: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Records of the latest runs, newest first, and lines to say where there is none."""
    where = load_profile(profile)
    if where.cluster is not None:
        from deploy.cli.cluster_runs.access import open_access
        from deploy.cli.cluster_runs.lookup import list_runs as list_cluster_runs

        runs = list_cluster_runs(open_access(where), limit)
        empty = ["No runs on this cluster. Start one: fairlead run TASK --profile PROFILE"]
    else:
        endpoints = load_endpoints(profile)
        runs = list_runs(endpoints)[:limit]
        empty = [f"No runs in {endpoints.path('runs')}. Start one: fairlead run TASK"]
        if not runs and (others := elsewhere(endpoints.scratch())):
            empty.append(f"There are {others}")
    for run in runs:
        _way_on(run, profile)
    return runs, empty


def _show_list(out: Console, runs: list[dict[str, Any]], empty: list[str]) -> None:
    if not runs:
        for line in empty:
            out.print(line, soft_wrap=True, markup=False)
        return
    shared = any("by" in run for run in runs)
    headings = ["run", "status", "task" if shared else "recipe", *(["by"] if shared else []), "started (UTC)", "time"]
    rows = table(*headings, "result", right=("time",))
    for run in runs:
        words = [run.get("task"), run.get("recipe")] if shared else [run.get("recipe")]
        rows.add_row(
            run["run_id"],
            _coloured(run["status"]),
            " ".join(str(word) for word in words if word) or "-",
            *([str(run.get("by") or "-")] if shared else []),
            str(run.get("started") or "-")[5 * shared : 16].replace("T", " "),
            seconds(run.get("seconds")),
            _outcome(run),
        )
    out.print(rows)


def show_run(profile: str, run_id: str, as_json: bool) -> None:
    """One run: steps, error, result, gate."""
    run, again = found_run(profile, run_id)
    report = report_of(profile, run)

    def show(out: Console) -> None:
        out.print(f"[bold]{run['run_id']}[/]  ", _coloured(run["status"]), f"  {_asked(run)}")
        _show_settings(out, run)
        out.print(f"Started  {run.get('started') or '-'}   source {run.get('source') or 'built-in data'}")
        if "by" in run:
            out.print(f"By       {run['by']}   Kubeflow run {run.get('kfp_run')}", markup=False, soft_wrap=True)
        for line in _restarts(run):
            out.print(line, markup=False, soft_wrap=True)
        rows = table("step", "status", "time", "", right=("time",))
        for name, step in (run.get("steps") or {}).items():
            rows.add_row(name, str(step.get("status")), seconds(step.get("seconds")), _note(step))
        if rows.rows:
            out.print(rows)
        if said := in_words(report["cost"]) if "cost" in report else "":
            out.print(f"Cost     {said}", markup=False)
        show_report(out, report)
        _show_failure(out, run, again)

    emit(report, as_json, show)


def found_run(profile: str, run_id: str) -> tuple[dict[str, Any], str]:
    """The record of one run, and the command that goes on with it where it failed, else "".

    Raises:
        PlatformError: ``code="unknown_run"``.
    """
    where = load_profile(profile)
    if where.cluster is not None:
        from deploy.cli.cluster_runs.access import open_access
        from deploy.cli.cluster_runs.lookup import find_run as find_cluster_run
        from deploy.cli.cluster_runs.lookup import look_at

        access = open_access(where)
        run = look_at(access, find_cluster_run(access, run_id))
    else:
        run = find_run(load_endpoints(profile), run_id)
    return run, _way_on(run, profile)


def report_of(profile: str, run: dict[str, Any]) -> dict[str, Any]:
    """The record of a run, with what it cost, and gate, metrics and pages of the model that it has made."""
    made, where = "version" in (run.get("result") or {}), load_profile(profile)
    report = build_report(load_endpoints(profile), run) if made else {k: v for k, v in run.items() if k != "pid"}
    if run.get("task") and run["status"] != "running":
        report["cost"] = run_cost(run, where.prices, on_cluster=where.cluster is not None)
    return report


def _restarts(run: dict[str, Any]) -> Iterator[str]:
    """Why and by whom a run was started again, and why not once more."""
    for each in run.get("restarts") or []:
        changed = " ".join(f"{key}={value}" for key, value in each["changed"].items())
        why = ", ".join(filter(None, [each["error"]["headline"], f"with {changed}" if changed else ""]))
        yield f"Again    {why}; by {each.get('by') or 'its follower'}, {each.get('at', '')[:16].replace('T', ' ')}"
    if run.get("left"):
        yield f"Left     {run['left']}"


def _note(step: dict[str, Any]) -> str:
    """What a step waits for, and how often it was tried."""
    tries = step.get("tries") or 1
    return "; ".join(filter(None, [step.get("waiting"), f"try {tries}" if tries > 1 else ""]))


def act_on_run(profile: str, run_id: str, as_json: bool, *, follow: bool, logs: str, cancel: bool) -> None:
    """Follow a run, show what a step has printed, or end it; one of these."""
    if [follow, bool(logs), cancel].count(True) > 1:
        raise PlatformError(
            "one of --follow, --logs and --cancel", fix="give one of them, then the next", code="bad_option"
        )
    where, text = load_profile(profile), ""
    if where.cluster is not None:
        from deploy.cli.cluster_runs import lookup
        from deploy.cli.cluster_runs.access import open_access
        from deploy.cli.cluster_runs.execution import follow_run

        access = open_access(where)
        found = lookup.find_run(access, run_id)
        run_id = found.run_id
        if follow:
            endpoints = load_endpoints(profile)
            conclude(build_report(endpoints, follow_run(access, found, profile, as_json)), as_json)
        elif logs:
            text = lookup.log_of(access, found, logs)
        else:
            lookup.cancel(access, found)
    else:
        endpoints = load_endpoints(profile)
        run = find_run(endpoints, run_id)
        run_id = run["run_id"]
        if follow:
            ended = _ended(local_runs.follow(endpoints, run_id, as_json), profile)
            conclude(build_report(endpoints, ended), as_json)
        elif logs:
            text = local_runs.log_of(endpoints, run, logs)
        else:
            local_runs.cancel(endpoints, run)
    if logs:
        document = {"run_id": run_id, "step": logs, "log": text}
        emit(document, as_json, lambda out: out.print(text.rstrip("\n"), markup=False, soft_wrap=True))
    elif cancel:
        said = f"{run_id} is ended."
        emit({"run_id": run_id, "status": "cancelled"}, as_json, lambda out: out.print(said, markup=False))


def _ended(run: dict[str, Any], profile: str) -> dict[str, Any]:
    """A run on this machine that was followed; an error where it failed."""
    if run["status"] in ("succeeded", "refused"):
        return run
    again, error = _way_on(run, profile), run.get("error")
    if isinstance(error, dict) and "headline" in error:
        raise PlatformError.from_dict(error)
    said = str(error or "its process is gone")
    raise PlatformError(f"run {run['run_id']} is {run['status']}", detail=said, fix=again, code="run_failed")


def _way_on(run: dict[str, Any], profile: str) -> str:
    """The command that goes on with a run that failed, and put into the cure of its error; empty for others."""
    if run["status"] not in ("failed", "dead", "cancelled"):
        return ""
    again = resume_command(run["run_id"], profile)
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
    return {key: run.get(key) for key in kept} | {
        key: run[key] for key in ("by", "kfp_run", "restarts", "left") if key in run
    }


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

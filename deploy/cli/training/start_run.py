"""``fairlead run``: a run from start to report."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from contracts.errors import PlatformError
from deploy.cli.profiles.loading import load_endpoints, load_profile
from deploy.cli.runs.batch_scoring import run_scoring
from deploy.cli.runs.progress import left_out_by, show_changes, show_steps, stoppable
from deploy.cli.runs.resume import plan_resume
from deploy.cli.runs.workflow import RunOptions, execute, plan_run
from deploy.cli.terminal.advice import resume_command
from deploy.cli.terminal.output import EXIT_REFUSED, console, number, seconds, table, write_json

if TYPE_CHECKING:
    from rich.console import Console

    from contracts.bundle import Bundle
    from contracts.endpoints import Endpoints
    from deploy.cli.cluster.cluster_settings import Profile
    from pipelines.run import Run

UI_ADDRESS = "http://127.0.0.1:5000"


def run_task(task: str | None, recipe: str | None, resume: str | None, options: RunOptions, as_json: bool) -> None:
    """Run, report, and exit with 3 when the gate refused the model; on the cluster of a profile that has one."""
    where, endpoints = load_profile(options.profile), load_endpoints(options.profile)
    if where.cluster is None and options.for_cluster():
        raise PlatformError(
            "--cron, --name, --timezone, --image, --train-gpus and --train-nodes are for a cluster",
            detail=f"profile {options.profile} runs on this machine",
            fix="name a cluster's profile: --profile cluster",
            code="no_cluster",
        )
    run = planned(where, endpoints, task, recipe, resume, options)
    if run.workflow == "batch_scoring":
        run_scoring(run, as_json)
    elif where.cluster is None:
        conclude(run_with_progress(run, as_json), as_json)
    elif options.cron:
        from deploy.cli.schedules.schedule_actions import make_schedule

        make_schedule(where, run, options, as_json)
    else:
        from deploy.cli.cluster_runs.execution import execute_on_cluster

        conclude(build_report(endpoints, execute_on_cluster(where, run, as_json)), as_json)


def planned(
    where: Profile, endpoints: Endpoints, task: str | None, recipe: str | None, resume: str | None, options: RunOptions
) -> Run:
    """A new run of `task`, or what goes on with the run `resume`; nothing is started.

    Raises:
        PlatformError: an unknown task, recipe, setting, source or run, or one that cannot be resumed.
    """
    if resume:
        if task or recipe:
            raise _keeps_its_task(resume, [task, recipe], options)
        if where.cluster is not None:
            from deploy.cli.cluster_runs.execution import plan_resume_on_cluster

            return plan_resume_on_cluster(where, endpoints, resume, options)
        return plan_resume(endpoints, resume, options)
    if not task:
        raise PlatformError("which task?", detail="see: fairlead tasks", fix="fairlead run TASK")
    return plan_run(endpoints, task, recipe, options)


def _keeps_its_task(resume: str, given: Sequence[str | None], options: RunOptions) -> PlatformError:
    words = [f"--set {shlex.quote(item)}" for item in options.overrides]
    words += ["--no-cache"] if options.no_cache else []
    words += [f"--source {shlex.quote(options.source)}"] if options.source else []
    return PlatformError(
        "a run that is resumed keeps its task and recipe",
        detail=f"given: {' '.join(filter(None, given))}",
        fix=" ".join([resume_command(resume, options.profile), *words]),
        code="bad_option",
    )


def conclude(report: dict[str, Any], as_json: bool) -> None:
    """Show the report of a run that has ended, and exit with 3 when the gate refused its model."""
    if as_json:
        write_json(report)
    else:
        show_report(console(), report)
    if report["status"] == "refused":
        raise typer.Exit(EXIT_REFUSED)


def run_with_progress(run: Run, as_json: bool) -> dict[str, Any]:
    """Execute a run with progress on the console (none with JSON); Ctrl-C stops it and says how to go on."""
    with stoppable(run, as_json):
        state = execute(run) if as_json else _execute_shown(run)
    return build_report(run.where, state)


def _execute_shown(run: Run) -> dict[str, Any]:
    from deploy.cli.runs.progress import RunProgress

    out = console()
    out.print(f"Run [bold]{run.run_id}[/]  recipe {run.recipe}")
    show_steps(out, run)
    show_changes(out, run.changed)
    with RunProgress(out) as progress:
        return execute(run, progress.show)


def build_report(endpoints: Endpoints, state: dict[str, Any]) -> dict[str, Any]:
    """run.json's content plus the gate decision, metrics and the places to look, for people and for ``--json``."""
    report = {key: value for key, value in state.items() if key != "pid"}
    from pipelines.planned import key_of_record, read_plan, taken

    result = state.get("result") or {}
    if "version" not in result:  # no model: the run failed, or it scored or only prepared data
        return report
    bundle = _bundle(endpoints, result)
    document = bundle.document
    report["status"] = "succeeded" if document.gate.passed else "refused"
    report["gate"] = document.gate.model_dump()
    report["metrics"] = document.metrics
    report["mlflow_url"] = tracking_page(endpoints, result.get("tracking_url") or "")
    report["model_card"] = str(bundle.path / "card.html")
    if (page := bundle.path / "data.html").exists():
        report["data_report"] = str(page)
    evaluation = bundle.read_json("evaluation.json") or {}
    report |= {name: evaluation[name] for name in ("search", "federation") if evaluation.get(name)}
    if (plan := read_plan(endpoints, key_of_record(state))) and (took := taken(plan, state)):
        report["plan"] = took
    return report


def _bundle(endpoints: Endpoints, result: dict[str, Any]) -> Bundle:
    """The bundle of a run's result; one in S3 is fetched."""
    from contracts import storage
    from contracts.bundle import read_bundle
    from contracts.registry import Registry

    if not storage.is_remote(result["path"]):
        return read_bundle(result["path"])
    return Registry(endpoints).fetch(f"{result['name']}:{result['version']}")


def tracking_page(endpoints: Endpoints, page: str) -> str:
    """The address of a run in MLflow: on its server, or on the page that ``fairlead ui`` starts."""
    base = endpoints.tracking if endpoints.tracking.startswith("http") else UI_ADDRESS
    return page if page.startswith("http") else f"{base.rstrip('/')}/{page.lstrip('/')}"


def show_report(out: Console, report: dict[str, Any]) -> None:
    """Gate table, model version and where to look."""
    if "search" in report:
        from deploy.cli.training.search_report import show_search

        show_search(out, report["search"])
    if "federation" in report:
        from deploy.cli.training.federation_report import show_federation

        show_federation(out, report["federation"])
    if "plan" in report:
        said = {"seconds": "time", "memory_peak": "memory"}
        off = [f"{name} {report['plan'][key]['off']:+.0%}" for key, name in said.items() if key in report["plan"]]
        out.print(f"Plan     the training took beside its plan: {', '.join(off)}", markup=False)
    if "gate" in report:
        show_gate(out, report["gate"])
    result = report.get("result") or {}
    for line in _left_out(report):
        out.print(f"Data     {line}", markup=False, soft_wrap=True)
    if "version" in result:
        name = f"{result['name']}:{result['version']}"
        role = "champion" if result.get("champion") else "not promoted"
        out.print(f"Model    [bold]{name}[/]  ({role})  {seconds(report.get('seconds'))}")
        out.print(f"MLflow   {report['mlflow_url']}  (start the page: fairlead ui)", soft_wrap=True)
        out.print(f"Card     {report['model_card']}", soft_wrap=True)
        if result.get("champion"):
            out.print(f"Next     fairlead serve {result['name']}")
        elif report["status"] == "refused":
            out.print(f'Next     fairlead promote {name} --override "REASON", or train a better one', markup=False)


def _left_out(report: dict[str, Any]) -> list[str]:
    """Lines about rows left out: from the model's record, or from the last step that says it."""
    steps = report.get("steps") or {}
    results = [report.get("result"), *(steps.get(name, {}).get("result") for name in ("build_dataset", "validate"))]
    return next((lines for result in results if (lines := left_out_by(result))), [])


def show_gate(out: Console, gate: dict[str, Any]) -> None:
    """The checks of a gate decision and its verdict."""
    from rich.text import Text

    verdict = Text("passed", "green") if gate["passed"] else Text("refused", "bold red")
    out.print(Text.assemble("\nGate ", verdict, f"  compared with {gate['champion']}" if gate["champion"] else ""))
    checks = table("check", "measured", "rule", "limit", "against", "", right=("measured", "limit"))
    for check in gate["checks"]:
        mark = Text("ok", "green") if check["passed"] else Text("x", "bold red")
        checks.add_row(
            check["metric"], number(check["value"]), check["rule"], number(check["limit"]), check["against"], mark
        )
    if gate["checks"]:
        out.print(checks)
    for reason in gate["reasons"]:
        out.print(Text(f"  {reason}"))

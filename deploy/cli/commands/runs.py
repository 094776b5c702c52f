"""Commands about training: tasks, run, runs, demo."""

from __future__ import annotations

from typing import Annotated

import typer

from deploy.cli.terminal.options import DEFAULT_PROFILE, Json, Profile
from deploy.cli.terminal.output import guarded


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the command line."""
    train = "Train"
    app.command("demo", rich_help_panel=train)(demo)
    app.command("tasks", rich_help_panel=train)(tasks)
    app.command("run", rich_help_panel=train)(run)
    app.command("runs", rich_help_panel=train)(runs)


@guarded
def demo(
    requests: Annotated[int, typer.Option(min=10, help="How many predictions to ask for.")] = 400,
    port: Annotated[int | None, typer.Option(help="Port of the endpoint; default: from the model's values.")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Run every step again.")] = False,
    drift: Annotated[
        bool, typer.Option("--drift", help="The story after the deployment, in a home of its own.")
    ] = False,
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """The whole story once: simulated payments become a fraud model that answers over HTTP.

    Simulates payments, trains, passes the gate, registers, serves, and asks for predictions of payments the model has
    not seen. In a terminal the endpoint stays up until Ctrl-C; elsewhere the command ends by itself.

    With --drift the world then changes: prices double, the monitor sees it, the loop trains a new model, and a canary
    brings it to all traffic; a careless one is rolled back. It takes about five minutes and ends with a page of plots.

    [bold]Examples[/]
      fairlead demo
      fairlead demo --drift
      fairlead demo --requests 1000
      fairlead demo --json > demo.json
    """
    from deploy.cli.demo.drift_demo import run_drift_demo
    from deploy.cli.demo.fraud_demo import run_demo

    if drift:
        run_drift_demo(profile, as_json)
        return
    run_demo(profile, requests=requests, port=port, no_cache=no_cache, as_json=as_json)


@guarded
def tasks(as_json: Json = False) -> None:
    """List what can be predicted: tasks and their recipes.

    [bold]Examples[/]
      fairlead tasks
      fairlead tasks --json
    """
    from deploy.cli.training.run_listing import show_tasks

    show_tasks(as_json)


@guarded
def run(
    task: Annotated[str | None, typer.Argument(help="The task; see: fairlead tasks. Not needed with --resume.")] = None,
    recipe: Annotated[str | None, typer.Option("--recipe", "-r", help="A named configuration of the task.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Change one setting, key=value.")] = None,
    source: Annotated[str, typer.Option("--source", "-s", help="A file, a folder, s3://... or mongodb://...")] = "",
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Run every step again.")] = False,
    resume: Annotated[str | None, typer.Option("--resume", metavar="RUN", help="Go on, also with --set.")] = None,
    cron: Annotated[str, typer.Option(help="On a cluster: run at these times, five fields.")] = "",
    name: Annotated[str, typer.Option(help="With --cron: name of the schedule; default: the task.")] = "",
    timezone: Annotated[str, typer.Option(help="With --cron: its time zone; default: the cluster's.")] = "",
    image: Annotated[str, typer.Option(help="On a cluster: image of the steps; default: of this version.")] = "",
    train_gpus: Annotated[int, typer.Option(min=0, help="On a cluster: GPUs of each training pod.")] = 0,
    train_nodes: Annotated[int, typer.Option(min=1, help="On a cluster: pods that train together.")] = 1,
    graph: Annotated[str, typer.Option(metavar="FORM", help="Only show the steps: text or mermaid.")] = "",
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Train a task from raw data to a registered model; unchanged steps come from the cache.

    Without --source the task's built-in data is used. Exit code 3 means that the gate refused the model: it is
    registered for inspection, and not promoted.

    On a cluster --set also says what steps need: resources.STEP.KEY, where STEP is a step or all, and KEY memory, cpu,
    gpus, accelerator, node_selector.LABEL or tolerations. workflow.tasks (few, groups, each) says how many share a pod,
    or a process on this machine.

    [bold]Examples[/]
      fairlead run fraud
      fairlead run fraud --recipe logistic --source payments.csv
      fairlead run fraud --graph mermaid
      fairlead run fraud --set data.columns.amount=TX_AMOUNT --set seed=11
      fairlead run --resume fraud-20260102-030405-9f3c --set data.header=false
      fairlead run fraud --profile cluster --cron "0 3 * * *" --name nightly
      fairlead run news --profile cluster --set resources.train.memory=8Gi --set resources.train.gpus=1
    """
    from deploy.cli.runs.graph import show_graph
    from deploy.cli.runs.workflow import RunOptions
    from deploy.cli.training.start_run import run_task
    from pipelines.run import Placing

    if graph:
        show_graph(task, graph, as_json)
        return
    options = RunOptions(
        overrides=overrides or [],
        source=source,
        no_cache=no_cache,
        profile=profile,
        placing=Placing(image=image, train_gpus=train_gpus, train_nodes=train_nodes),
        cron=cron,
        name=name,
        timezone=timezone,
    )
    run_task(task, recipe, resume, options, as_json)


@guarded
def runs(
    run_id: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Show one run; a unique start will do.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many of the latest runs.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow the run to its end, as run does.")] = False,
    logs: Annotated[str, typer.Option("--logs", metavar="STEP", help="What a step has printed.")] = "",
    cancel: Annotated[bool, typer.Option("--cancel", help="End the run.")] = False,
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """List runs, or show the steps, error and result of one; of a cluster, those that anybody started.

    A run whose process is gone is listed as dead; go on with it, or with one that failed, by:
    fairlead run --resume RUN

    [bold]Examples[/]
      fairlead runs
      fairlead runs fraud-20260102-030405-9f3c
      fairlead runs --limit 5 --json
      fairlead runs fraud-20260102-030405-9f3c --follow --profile cluster
      fairlead runs fraud-20260102-030405-9f3c --logs train
    """
    from deploy.cli.training.run_listing import act_on_run, show_run, show_runs

    if run_id is None:
        show_runs(profile, limit, as_json, alone=not (follow or logs or cancel))
    elif follow or logs or cancel:
        act_on_run(profile, run_id, as_json, follow=follow, logs=logs, cancel=cancel)
    else:
        show_run(profile, run_id, as_json)

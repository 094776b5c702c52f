"""Commands around a training: what it will need, which settings are best, and what it cost."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from contracts.errors import PlatformError
from deploy.cli.terminal.options import DEFAULT_PROFILE, Json, Profile
from deploy.cli.terminal.output import guarded


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the command line."""
    app.command("plan", rich_help_panel="Train")(plan)
    app.command("search", rich_help_panel="Train")(search)
    app.command("cost", rich_help_panel="Train")(cost)


@guarded
def plan(
    task: Annotated[str, typer.Argument(help="The task; see: fairlead tasks.")],
    recipe: Annotated[str | None, typer.Option("--recipe", "-r", help="A named configuration of the task.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Change one setting, key=value.")] = None,
    source: Annotated[str, typer.Option("--source", "-s", help="CSV, TSV, Parquet, or a folder of them.")] = "",
    time: Annotated[str, typer.Option("--time", help="For small fits, of which three are made at least.")] = "60s",
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Say what a training will need before it starts: rows, time, memory, disk, and what more data would bring.

    The data are made as the run makes them, and are in its cache then. A few small trainings, each in a process of its
    own, say how time, memory and quality grow with the rows: bands, never one number. What runs took beside their plans
    corrects the next one. fairlead run refuses what does not fit by its plan.

    [bold]Examples[/]
      fairlead plan credit --recipe lightgbm
      fairlead plan news --source articles.csv --recipe embedding_lstm --time 5m
      fairlead plan fraud --set model.leaves=255 --json
    """
    from deploy.cli.runs.workflow import RunOptions
    from deploy.cli.training.plan import plan_task
    from deploy.cli.training.search import duration

    plan_task(
        task, recipe, duration(time), RunOptions(overrides=overrides or [], source=source, profile=profile), as_json
    )


@guarded
def search(
    task: Annotated[str, typer.Argument(help="The task; see: fairlead tasks.")],
    recipe: Annotated[str | None, typer.Option("--recipe", "-r", help="A named configuration of the task.")] = None,
    trials: Annotated[int, typer.Option("--trials", "-n", min=1, help="How many combinations are tried.")] = 30,
    time: Annotated[str, typer.Option("--time", help="No trial starts after so long: 90s, 10m, 2h.")] = "",
    metric: Annotated[
        list[str] | None, typer.Option("--metric", "-m", help="What is optimised; several give a front.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", "-w", min=1, max=64, help="Processes at a time.")] = 1,
    name: Annotated[str, typer.Option(help="Goes on with the search of that name, if there is one.")] = "",
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Change one setting, key=value.")] = None,
    source: Annotated[str, typer.Option("--source", "-s", help="CSV, TSV, Parquet, or a folder of them.")] = "",
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Run every step again.")] = False,
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Search the hyper-parameters of a recipe, and train the best: a run like any other, with gate, card and bundle.

    The recipe declares what is searched; --set search.space replaces it. Trials are measured on the validation rows;
    the test rows are looked at once, for the best beside the recipe as it is. Metrics are those of the gate, latency_ms
    and bundle_mb; the first decides. Limits: --set 'search.at_most={latency_ms: 5}', and search.at_least.

    A search that was stopped or whose storage went away goes on with: fairlead run --resume RUN

    [bold]Examples[/]
      fairlead search fraud
      fairlead search credit --recipe lightgbm --trials 60 --workers 2 --time 10m
      fairlead search credit --recipe lightgbm --metric roc_auc --metric latency_ms
      fairlead search news --recipe embedding_lstm --set 'search.space={model.hidden: {low: 16, high: 64, log: true}}'
    """
    from deploy.cli.runs.workflow import RunOptions
    from deploy.cli.training.search import SearchOptions, duration, search_task

    seconds = duration(time) if time else 0.0
    asked = SearchOptions(trials=trials, seconds=seconds, metrics=metric or (), workers=workers, name=name)
    options = RunOptions(overrides=overrides or [], source=source, no_cache=no_cache, profile=profile)
    search_task(task, recipe, asked, options, as_json)


@guarded
def cost(
    run_id: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="One run, by step; a unique start will do.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many of the latest runs.")] = 20,
    served: Annotated[str, typer.Option(metavar="URL", help="Of what this endpoint serves, since it started.")] = "",
    prometheus: Annotated[str, typer.Option(metavar="URL", help="Of every model that this Prometheus knows.")] = "",
    days: Annotated[float, typer.Option(min=0.001, max=366, help="With --prometheus: of so many last days.")] = 1.0,
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """What runs, or served models, cost: hours of cores, memory and GPUs, and money at the prices of the profile.

    Each step counts with the larger of what it asked for and what it used; idle is the difference. Without `prices` in
    the profile (core_hour, gib_hour, gpu_hour, currency) only hours are shown. Of served models it is the cost of a day
    and of 1,000 requests; an endpoint that wants an API key gets the one in FAIRLEAD_API_KEY.

    [bold]Examples[/]
      fairlead cost
      fairlead cost fraud-20260102-030405-9f3c
      fairlead cost --served http://127.0.0.1:3001
      fairlead cost --prometheus http://127.0.0.1:9090 --days 7
      fairlead cost --profile cluster --json
    """
    from deploy.cli.training.cost_listing import show_costs

    if served or prometheus:
        from deploy.cli.monitoring.served_cost import show_served_costs

        if run_id or (served and prometheus):
            raise PlatformError(
                "of what shall the cost be shown?",
                fix="give one of RUN, --served and --prometheus",
                code="bad_input",
            )
        show_served_costs(profile, served, prometheus, days, os.environ.get("FAIRLEAD_API_KEY", ""), as_json)
        return
    show_costs(profile, run_id, limit, as_json)

"""Commands about deployed models under watch: monitor, fairness."""

from __future__ import annotations

from typing import Annotated

import typer

from contracts.errors import PlatformError
from deploy.cli.terminal.options import DEFAULT_PROFILE, Json, Profile
from deploy.cli.terminal.output import guarded


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the command line."""
    app.command("monitor", rich_help_panel="Serve")(monitor)
    app.command("fairness", rich_help_panel="Govern")(fairness)


@guarded
def monitor(
    model: Annotated[str | None, typer.Argument(help="The name that the model is served by.")] = None,
    every_model: Annotated[bool, typer.Option("--all", help="Watch every model that has a prediction log.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Read what is new, show it and end.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of /metrics; 0: none.")] = 9109,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds from one look at the log to the next.")] = 5.0,
    skew: Annotated[
        bool, typer.Option("--skew", help="Join logged rows again from the feature history, show what differs and end.")
    ] = False,
    rows: Annotated[int, typer.Option(min=1, max=1_000_000, help="With --skew: how many of the newest.")] = 2_000,
    keep_days: Annotated[
        int, typer.Option(min=0, help="Finished days of the log that are kept; older ones are removed; 0: all.")
    ] = 0,
    groups: Annotated[
        str, typer.Option("--groups", metavar="FOLDER", help="Measure groups, by FOLDER/MODEL.csv or .parquet.")
    ] = "",
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Watch what a model is asked and answers, beside what its bundle calls normal.

    Reads the prediction log once, as it grows, and exports metrics until Ctrl-C. An input has changed when its distance
    is large (PSI 0.1 beyond chance) and cannot be chance, all inputs and all looks counted. State and report are kept
    beside the log. While it runs, finished days of the log become Parquet, and of two monitors of one model the second
    waits until the first is gone. --skew compares what was logged with the same entity and moment joined from the
    history, as training does; a running monitor does so each day (in a cluster a pod of the platform), and exports the
    result for two. --groups is a folder with a table of each model that says of a prediction's id whom it is about, as
    in `fairlead fairness`: groups are measured every hour, and nothing of the table is kept. With --once or --skew the
    exit code is 3 where something has changed.

    [bold]Examples[/]
      fairlead monitor fraud --once
      fairlead monitor --all --port 9109
      fairlead monitor fraud --once --json
      fairlead monitor fraud --skew
    """
    if skew:
        from deploy.cli.features.skew import show_skew

        if (model is None) != every_model:
            raise PlatformError(
                "which models?" if model is None else f"{model} or all?",
                fix="fairlead monitor fraud --skew, or fairlead monitor --all --skew",
                code="bad_input",
            )
        raise typer.Exit(show_skew(profile, model, rows, as_json))
    from deploy.cli.features.skew import skew_quietly
    from deploy.cli.monitoring.watching import monitor_models

    def daily(name: str) -> None:
        skew_quietly(profile, name, rows)

    monitor_models(profile, model, every_model, once, port, every, keep_days, as_json, daily, groups)


@guarded
def fairness(
    model: Annotated[str, typer.Argument(help="A model: name (its champion), name@alias or name:version.")],
    groups: Annotated[str, typer.Option("--groups", "-g", help="CSV or Parquet with id (of predictions) and groups.")],
    column: Annotated[
        list[str] | None, typer.Option("--column", metavar="NAME", help="A column of groups; default: all but id.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=3660, help="Of the log, counted back from now.")] = 30,
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Measure how a deployed model treats groups, which its log does not know: a file says whose prediction is whose.

    Selection is of all logged predictions in the file, errors and calibration of those whose labels have come. Groups
    that are too small are named and not judged. The limits are those of the model's own gate: where one is not kept the
    exit code is 3. Nothing of the file is kept.

    [bold]Examples[/]
      fairlead fairness credit --groups people.csv
      fairlead fairness credit --groups people.parquet --column sex --days 90 --json
    """
    from deploy.cli.feedback.groups_live import show_groups

    show_groups(profile, model, groups, column or [], days, as_json)

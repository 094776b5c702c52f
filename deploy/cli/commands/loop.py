"""The command of the loop: watch."""

from __future__ import annotations

from typing import Annotated

import typer

from contracts.errors import PlatformError
from deploy.cli.terminal.options import DEFAULT_PROFILE, Json, Profile
from deploy.cli.terminal.output import guarded

_WORDS = ("approve", "resume")


def register(app: typer.Typer) -> None:
    """Add ``watch`` to the command line."""
    app.command("watch", rich_help_panel="Operate")(watch)


@guarded
def watch(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL", help="Models; default: all with a champion. Or: approve|resume MODEL."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="One pass, then end: for cron, or to look.")] = False,
    interval: Annotated[float, typer.Option(min=1, help="Seconds between two passes.")] = 30.0,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change the policy, loop.KEY=VALUE, also of its runs."),
    ] = None,
    prometheus: Annotated[str, typer.Option(metavar="URL", help="Ask it which alerts fire, too.")] = "",
    metrics_port: Annotated[int, typer.Option(min=0, max=65535, help="Export metrics of runs there; 0: none.")] = 0,
    metrics_host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where they are served.")] = "127.0.0.1",
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Close the loop: what drifts or drops is trained anew; the gate decides, then the rollout or a person.

    Looks at the monitor's report of each champion, at alerts, the schedule and the source, as its policy says (set by
    `run TASK --set loop.approval=true`, and on_drift, on_quality_drop, schedule, on_new_data, source, settings,
    wait_hours, cooldown_hours, runs_per_week, approval, max_failures, silent_minutes, rollout). A run is a process of
    its own, or one of Kubeflow with the profile of a cluster: it goes on when this command ends, and is found again.
    Nothing is done twice, one watch acts at a time, three failed runs in a row stop the loop, and all is in: fairlead
    audit. An installed platform runs this by itself (helm/platform, loop); approve and resume say it to its pod.

    [bold]Examples[/]
      fairlead watch
      fairlead watch fraud --set loop.cooldown_hours=6 --set loop.approval=true
      fairlead watch fraud --once --json
      fairlead watch approve fraud
      fairlead watch resume fraud
    """
    from deploy.cli.loop.watch import WatchOptions, run_watch, say

    names = list(models or [])
    if names and names[0] in _WORDS:
        if len(names) != 2:
            raise PlatformError("which model?", fix=f"fairlead watch {names[0]} MODEL", code="bad_option")
        say(profile, names[0], names[1], as_json)
        return
    options = WatchOptions(
        once=once,
        interval=interval,
        prometheus=prometheus,
        metrics_port=metrics_port,
        metrics_host=metrics_host,
        overrides=tuple(overrides or ()),
    )
    run_watch(profile, names, options, as_json)

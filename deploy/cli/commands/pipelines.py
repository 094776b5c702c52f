"""Commands about the workflows on a cluster: publish, list, keep."""

from __future__ import annotations

from typing import Annotated

import typer

from deploy.cli.terminal.options import Json, Profile
from deploy.cli.terminal.output import guarded

_PROFILE = "cluster"
_pipelines = typer.Typer(
    no_args_is_help=True,
    help="The workflows on a cluster: upload them for Kubeflow's page, list them, keep their runs going.",
)


def register(app: typer.Typer) -> None:
    """Add ``pipelines`` to the command line."""
    app.add_typer(_pipelines, name="pipelines", rich_help_panel="Operate")


@_pipelines.command()
@guarded
def publish(
    wait: Annotated[
        float | None, typer.Option(min=0, help="Seconds to wait for the server; default: 300 in a pod, else 0.")
    ] = None,
    profile: Profile = _PROFILE,
    as_json: Json = False,
) -> None:
    """Upload the workflows as pipelines with a version of this release; what is there already is left as it is.

    Anyone can then run them from Kubeflow's page or by kfp.Client: only the parameter task is needed. An install or
    upgrade of the platform does this by itself.

    [bold]Examples[/]
      fairlead pipelines publish
      fairlead pipelines publish --profile staging.yaml --json
    """
    from deploy.cli.pipelines.pipeline_actions import publish_pipelines

    publish_pipelines(profile, wait, as_json)


@_pipelines.command()
@guarded
def keep(
    every: Annotated[float, typer.Option(min=1, help="Seconds between two looks.")] = 30.0,
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
    profile: Profile = _PROFILE,
    as_json: Json = False,
) -> None:
    """Start again runs that nobody follows and that failed by no fault of their steps.

    What lost its pods is started again three times at most, what ran out of memory once with twice as much where a
    node has it; what is done comes from the cache. Says each in a line. The platform runs this by itself
    (pipelines.keeper); a run that is followed is left to its follower.

    [bold]Examples[/]
      fairlead pipelines keep --once
      fairlead pipelines keep --json
    """
    from deploy.cli.pipelines.pipeline_actions import keep_runs

    keep_runs(profile, every, once, as_json)


@_pipelines.command("list")
@guarded
def list_pipelines(profile: Profile = _PROFILE, as_json: Json = False) -> None:
    """List the published workflows: newest version, since when, and whether it is of this release.

    [bold]Examples[/]
      fairlead pipelines list
      fairlead pipelines list --json
    """
    from deploy.cli.pipelines.pipeline_actions import show_pipelines

    show_pipelines(profile, as_json)

"""Commands about the workflows on Kubeflow's page: publish, list."""

from __future__ import annotations

from typing import Annotated

import typer

from deploy.cli.options import Json, Profile
from deploy.cli.output import guarded

_PROFILE = "cluster"
_pipelines = typer.Typer(no_args_is_help=True, help="The workflows as pipelines of Kubeflow: upload them, list them.")


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
    from deploy.cli.pipelines import publish_pipelines

    publish_pipelines(profile, wait, as_json)


@_pipelines.command("list")
@guarded
def list_pipelines(profile: Profile = _PROFILE, as_json: Json = False) -> None:
    """List the published workflows: newest version, since when, and whether it is of this release.

    [bold]Examples[/]
      fairlead pipelines list
      fairlead pipelines list --json
    """
    from deploy.cli.pipelines import show_pipelines

    show_pipelines(profile, as_json)

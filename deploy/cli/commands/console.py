"""The command about the web page: console."""

from __future__ import annotations

from typing import Annotated

import typer

from deploy.cli.terminal.options import DEFAULT_PROFILE, Json, Profile
from deploy.cli.terminal.output import guarded


def register(app: typer.Typer) -> None:
    """Add the command of this file to the command line."""
    app.command("console", rich_help_panel="Serve")(console)


@guarded
def console(
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8600,
    host: Annotated[str, typer.Option(help="Address to listen on; any but 127.0.0.1 needs --keys.")] = "127.0.0.1",
    prometheus: Annotated[
        str, typer.Option(metavar="URL", help="Traffic, objectives and alerts come from this Prometheus.")
    ] = "",
    keys: Annotated[
        str, typer.Option(metavar="FILE", help="API keys; with them nobody sees anything without one.")
    ] = "",
    endpoint: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL=URL", help="Where a model answers, if not at its port here; may be repeated."),
    ] = None,
    link: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=URL", help="A page to link to, such as Grafana; may be repeated."),
    ] = None,
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Serve the platform's web page until Ctrl-C: models, runs, rollouts, alerts, the audit log, a form to try a model.

    It shows what the profile has and asks nothing outside of it. What is not measured, it says so. An endpoint that
    wants an API key gets the one in FAIRLEAD_API_KEY.

    [bold]Examples[/]
      fairlead console
      fairlead console --prometheus http://127.0.0.1:9090 --link Grafana=http://127.0.0.1:3000
      fairlead console --host 0.0.0.0 --keys keys.txt
    """
    from deploy.cli.console.serve import run_console

    run_console(profile, host.strip("[]"), port, prometheus, keys, endpoint or [], link or [], as_json)

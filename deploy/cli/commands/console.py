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
        str,
        typer.Option(
            metavar="URL",
            help="Traffic, objectives and alerts come from this Prometheus; default: that of the cluster.",
        ),
    ] = "",
    keys: Annotated[
        str, typer.Option(metavar="FILE", help="API keys; with them nobody sees anything without one.")
    ] = "",
    session_secret: Annotated[
        str, typer.Option(metavar="FILE", help="Signs sessions, which several consoles then share and a restart keeps.")
    ] = "",
    model_keys: Annotated[
        str, typer.Option(metavar="FOLDER", help="A file MODEL for each model, with the key that its endpoint wants.")
    ] = "",
    endpoint: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL=URL", help="Where a model answers, if not where it is looked for; may be repeated."
        ),
    ] = None,
    link: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=URL", help="A page to link to, such as Grafana; may be repeated."),
    ] = None,
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Serve the platform's web page until Ctrl-C: models, runs, rollouts, alerts, the audit log, a form to try a model.

    It shows what the profile has and asks nothing outside of it: with the profile of a cluster its releases, runs of
    Kubeflow, Prometheus, and what is in S3. What is not measured, it says so. An endpoint that wants an API key gets
    the one of --model-keys, or of FAIRLEAD_API_KEY.

    [bold]Examples[/]
      fairlead console
      fairlead console --prometheus http://127.0.0.1:9090 --link Grafana=http://127.0.0.1:3000
      fairlead console --host 0.0.0.0 --keys keys.txt
      fairlead console --profile cluster
    """
    from deploy.cli.console.serve import ConsoleOptions, run_console

    options = ConsoleOptions(
        prometheus=prometheus,
        keys=keys,
        session_secret=session_secret,
        model_keys=model_keys,
        places=endpoint or (),
        links=link or (),
    )
    run_console(profile, host.strip("[]"), port, options, as_json)

"""Commands about models on a cluster: deploy, status, diagnose."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from deploy.cli.terminal.options import Env, Json
from deploy.cli.terminal.output import guarded

_ENV = "cluster"
_Strategy = Literal["canary", "shadow", "direct"]


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the command line."""
    for command in (deploy, status, diagnose):
        app.command(command.__name__, rich_help_panel="Operate")(command)


@guarded
def deploy(
    model: Annotated[str, typer.Argument(help="A model: name, name@alias or name:version.")],
    env: Env = _ENV,
    source: Annotated[
        str | None, typer.Option("--from", metavar="PROFILE", help="Bring it from this profile's registry.")
    ] = None,
    chart: Annotated[Path | None, typer.Option(help="Folder of the chart; default: helm/model-service.")] = None,
    timeout: Annotated[int, typer.Option(min=10, help="Seconds until the new pods must be ready.")] = 300,
    write_only: Annotated[
        bool, typer.Option("--write-only", help="Only write the values; another tool applies.")
    ] = False,
    strategy: Annotated[
        _Strategy | None,
        typer.Option(help="canary: more traffic step by step; shadow: copies of requests first; direct: all at once."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for the audit log.")] = "",
    as_json: Json = False,
) -> None:
    """Serve one immutable version of a model on a cluster; a version that is not ready in time never takes traffic.

    The reference is resolved once. Version and digest are written to deploy/env/<env>/models/<model>.yaml, which helm
    then installs or upgrades as one release.

    With --strategy canary or shadow the version comes by evidence, and goes by itself when it is worse; the rules are
    those of its bundle (--set rollout.* of its run). On a cluster the release gets a router and a second slot with the
    first such deployment, without a failed request; later ones without --strategy are direct. On a profile of this
    machine `fairlead serve MODEL --rollouts` brings it, and a plain name means the newest version (its challenger).

    [bold]Examples[/]
      fairlead deploy fraud --env cluster
      fairlead deploy fraud:3 --env cluster
      fairlead deploy fraud --env cluster --from local
      fairlead deploy fraud:4 --env cluster --strategy canary
      fairlead deploy fraud --env local --strategy shadow
    """
    from deploy.cli.profiles.loading import load_profile

    if strategy is not None and load_profile(env).cluster is None:
        from deploy.cli.rollouts.asking import start_rollout

        start_rollout(env, model, strategy, reason, as_json)
        return
    from deploy.cli.releases.release import Wanted, deploy_model

    deploy_model(Wanted(env, model, source, chart, timeout, write_only, strategy, reason), as_json)


@guarded
def status(env: Env = _ENV, as_json: Json = False) -> None:
    """Releases of an environment: version, health, traffic.

    [bold]Examples[/]
      fairlead status
      fairlead status --env cluster --json
    """
    from deploy.cli.releases.status import show_status

    show_status(env, as_json)


@guarded
def diagnose(
    release: Annotated[str | None, typer.Argument(help="Only this release or model.")] = None,
    env: Env = _ENV,
    as_json: Json = False,
) -> None:
    """What is wrong in an environment: failing parts with state, events, logs, the likely cause and its cure.

    Of models with rollouts it tells how far the last one is, why, and on which evidence; of releases that do not log
    their predictions how they would. Exit code 1 when something is wrong.

    [bold]Examples[/]
      fairlead diagnose
      fairlead diagnose fraud --json
    """
    from deploy.cli.releases.diagnose import run_diagnose

    run_diagnose(env, release, as_json)

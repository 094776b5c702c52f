"""Commands about registered models: models, compare, promote, rollback, privacy."""

from __future__ import annotations

from typing import Annotated

import typer

from deploy.cli.terminal.options import DEFAULT_PROFILE, Json, Profile
from deploy.cli.terminal.output import guarded

_REF = "A model: name (its champion), name@alias or name:version."


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the command line."""
    govern = "Govern"
    for command in (models, compare, promote, rollback, privacy):
        app.command(command.__name__, rich_help_panel=govern)(command)


@guarded
def models(
    name: Annotated[str | None, typer.Argument(help="Only this model.")] = None,
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """List registered versions with their aliases, gate verdict and main metrics.

    [bold]Examples[/]
      fairlead models
      fairlead models fraud --json
    """
    from deploy.cli.models.promotion import show_models

    show_models(profile, name, as_json)


@guarded
def compare(
    first: Annotated[str, typer.Argument(help=_REF)],
    second: Annotated[str, typer.Argument(help=_REF)],
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Put two versions side by side: metrics, slices, gate and lineage.

    Metrics are each version's own, on the test data it was evaluated on; the table says when those data differ.

    [bold]Examples[/]
      fairlead compare fraud:1 fraud:2
      fairlead compare fraud@champion fraud@challenger
    """
    from deploy.cli.models.promotion import show_comparison

    show_comparison(profile, first, second, as_json)


@guarded
def promote(
    ref: Annotated[str, typer.Argument(help=_REF)],
    override: Annotated[
        str, typer.Option("--override", metavar="REASON", help="Promote although the gate refused; is recorded.")
    ] = "",
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Make a version the champion. One that the gate refused needs a reason, otherwise exit code 3.

    [bold]Examples[/]
      fairlead promote fraud:3
      fairlead promote fraud@challenger
      fairlead promote fraud:3 --override "labels of the test week are incomplete"
    """
    from deploy.cli.models.promotion import promote_model

    promote_model(profile, ref, override, as_json)


@guarded
def rollback(
    name: Annotated[str, typer.Argument(help="The model's name.")],
    env: Annotated[
        str | None, typer.Option("--env", "-e", help="Roll its release on this cluster back, not the alias.")
    ] = None,
    timeout: Annotated[int, typer.Option(min=10, help="With --env: seconds until the pods must be ready.")] = 300,
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Make the previous champion the champion again; with --env, make a release serve the version before.

    [bold]Examples[/]
      fairlead rollback fraud
      fairlead rollback fraud --env cluster
    """
    if env is not None:
        from deploy.cli.releases.release import rollback_release

        rollback_release(env, name, timeout, as_json)
        return
    from deploy.cli.models.promotion import rollback_model

    rollback_model(profile, name, as_json)


@guarded
def privacy(
    task: Annotated[str | None, typer.Argument(help="Only of this task.")] = None,
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Show what differentially private trainings have cost each version of a data set, and its budget.

    Every private training is charged before it begins, whatever becomes of it; one that the budget does not allow is
    refused. With --json also the noise, the share of rows and the steps of each.

    [bold]Examples[/]
      fairlead privacy
      fairlead privacy credit --json
    """
    from deploy.cli.models.privacy import show_ledger

    show_ledger(profile, task, as_json)

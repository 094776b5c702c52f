"""Commands about schedules of a cluster: list, pause, resume, run, delete."""

from __future__ import annotations

from typing import Annotated

import typer

from contracts.errors import PlatformError
from deploy.cli.terminal.options import Json, Profile
from deploy.cli.terminal.output import guarded

_PROFILE = "cluster"
_Name = Annotated[str, typer.Argument(metavar="NAME", help="A schedule: its name or id, see fairlead schedules.")]
_schedules = typer.Typer(
    invoke_without_command=True,
    help="Runs at set times on a cluster: list them, pause, resume, run now, delete.",
)


def register(app: typer.Typer) -> None:
    """Add ``schedules`` to the command line."""
    app.add_typer(_schedules, name="schedules", rich_help_panel="Train")


@_schedules.callback()
@guarded
def schedules(context: typer.Context, profile: Profile = _PROFILE, as_json: Json = False) -> None:
    """Runs at set times on a cluster: list them, pause, resume, run now, delete.

    Without a command they are listed: when, the next and the last run, and whether they are of the installed release.
    Make one by: fairlead run TASK --profile cluster --cron "0 3 * * *" --name NAME

    [bold]Examples[/]
      fairlead schedules
      fairlead schedules --json
      fairlead schedules pause nightly
    """
    if context.invoked_subcommand is None:
        from deploy.cli.schedules.schedule_actions import show_schedules

        show_schedules(profile, as_json)
        return
    source = context.get_parameter_source("profile")
    if source is not None and source.name == "COMMANDLINE":  # it would be taken for the command's, and is not
        words = " ".join(["fairlead schedules", context.invoked_subcommand, "NAME --profile", profile])
        raise PlatformError("--profile stands behind the command", fix=words, code="bad_option")


@_schedules.command()
@guarded
def pause(name: _Name, profile: Profile = _PROFILE, as_json: Json = False) -> None:
    """Start no more runs of a schedule; one that is in progress goes on.

    [bold]Examples[/]
      fairlead schedules pause nightly
    """
    _change("pause", profile, name, as_json)


@_schedules.command()
@guarded
def resume(name: _Name, profile: Profile = _PROFILE, as_json: Json = False) -> None:
    """Start runs of a schedule again, from its next time on.

    [bold]Examples[/]
      fairlead schedules resume nightly
    """
    _change("resume", profile, name, as_json)


@_schedules.command()
@guarded
def run(name: _Name, profile: Profile = _PROFILE, as_json: Json = False) -> None:
    """Start a run of a schedule now; refused while one of its runs is in progress.

    [bold]Examples[/]
      fairlead schedules run nightly
    """
    _change("run", profile, name, as_json)


@_schedules.command()
@guarded
def delete(name: _Name, profile: Profile = _PROFILE, as_json: Json = False) -> None:
    """Remove a schedule; its runs stay, and one that is in progress goes on.

    [bold]Examples[/]
      fairlead schedules delete nightly
    """
    _change("delete", profile, name, as_json)


def _change(action: str, profile: str, name: str, as_json: bool) -> None:
    from deploy.cli.schedules.schedule_actions import change_schedule

    change_schedule(action, profile, name, as_json)

"""Commands about rollouts: follow, pause, resume, promote, abort."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from deploy.cli.terminal.options import DEFAULT_PROFILE, Json, Profile
from deploy.cli.terminal.output import guarded

_SHOW = "show"
_Model = Annotated[str, typer.Argument(metavar="MODEL", help="A model that is served with rollouts.")]
_Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; it is kept in the audit log.")]


class _ShowByDefault(TyperGroup):
    """A word that is no command is a model to show."""

    def parse_args(self, context: Any, args: list[str]) -> list[str]:
        """Options alone are those of `show`."""
        asks_help = bool(args) and args[0] in context.help_option_names
        if not asks_help and (not args or args[0].startswith("-")):
            args = [_SHOW, *args]
        return super().parse_args(context, args)

    def resolve_command(self, context: Any, args: list[str]) -> Any:
        """Take what is no command for a model."""
        return super().resolve_command(context, args if args and args[0] in self.commands else [_SHOW, *args])


_rollouts = typer.Typer(
    cls=_ShowByDefault, help="Versions on their way to all traffic: follow them, pause, resume, promote, abort."
)


def register(app: typer.Typer) -> None:
    """Add ``rollouts`` to the command line."""
    app.add_typer(_rollouts, name="rollouts", rich_help_panel="Serve")


@_rollouts.command(_SHOW)
@guarded
def show(
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="Only this one, with its evidence.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show it until it ends.")] = False,
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Rollouts with traffic, numbers and what is judged; `fairlead rollouts MODEL` is the same.

    [bold]Examples[/]
      fairlead rollouts
      fairlead rollouts fraud --follow
      fairlead rollouts show fraud --json
    """
    from deploy.cli.rollouts.listing import show_rollouts

    show_rollouts(profile, model, follow, as_json)


@_rollouts.command()
@guarded
def pause(model: _Model, reason: _Reason = "", profile: Profile = DEFAULT_PROFILE, as_json: Json = False) -> None:
    """Keep the traffic as it is; a candidate that is shown to be worse is rolled back all the same.

    [bold]Examples[/]
      fairlead rollouts pause fraud --reason "a sale is on"
    """
    from deploy.cli.rollouts.asking import steer_rollout

    steer_rollout(profile, model, "pause", reason, as_json)


@_rollouts.command()
@guarded
def resume(model: _Model, reason: _Reason = "", profile: Profile = DEFAULT_PROFILE, as_json: Json = False) -> None:
    """Let a paused rollout go on.

    [bold]Examples[/]
      fairlead rollouts resume fraud
    """
    from deploy.cli.rollouts.asking import steer_rollout

    steer_rollout(profile, model, "resume", reason, as_json)


@_rollouts.command()
@guarded
def promote(
    model: _Model,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why; it is kept in the audit log.")],
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Give the candidate all traffic now, whatever is shown; once more: end the wait with the old version kept.

    [bold]Examples[/]
      fairlead rollouts promote fraud --reason "labels came in, it is better"
    """
    from deploy.cli.rollouts.asking import steer_rollout

    steer_rollout(profile, model, "promote", reason, as_json)


@_rollouts.command()
@guarded
def abort(
    model: _Model,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why; it is kept in the audit log.")],
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Give the champion all traffic now, and end the candidate.

    [bold]Examples[/]
      fairlead rollouts abort fraud --reason "wrong version"
    """
    from deploy.cli.rollouts.asking import steer_rollout

    steer_rollout(profile, model, "abort", reason, as_json)

"""Commands about adapters of chat models: adapters, adapters publish, adapters remove."""

from __future__ import annotations

from typing import Annotated

import typer

from deploy.cli.terminal.options import DEFAULT_PROFILE, Json, Profile
from deploy.cli.terminal.output import guarded

_adapters = typer.Typer(invoke_without_command=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the command line."""
    app.add_typer(_adapters, name="adapters", rich_help_panel="Govern")


@_adapters.callback()
@guarded
def adapters(
    context: typer.Context,
    model: Annotated[str, typer.Option("--model", "-m", help="The model that they are of.")] = "chat",
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """List the adapters that a chat service answers with by name, where config.adapters.folder of the model is.

    [bold]Examples[/]
      fairlead adapters
      fairlead adapters --model support --json
    """
    if context.invoked_subcommand is None:
        from deploy.cli.models.adapters import list_adapters

        list_adapters(profile, model, as_json)


@_adapters.command("publish")
@guarded
def publish(
    ref: Annotated[str, typer.Argument(help="A tuned model: name (its champion), name@alias or name:version.")],
    name: Annotated[str, typer.Option("--name", "-n", help="What clients call it by: MODEL:NAME.")] = "",
    user: Annotated[str, typer.Option("--user", metavar="KEY", help="Whose it is, in the place of a name.")] = "",
    override: Annotated[
        str, typer.Option("--override", metavar="REASON", help="Publish although the gate refused; is recorded.")
    ] = "",
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Let services answer with the adapter of a version that the recipes lora, qlora or dpo made and the gate passed.

    It is over the weights of that version, by their hash, and services with other weights refuse it. A service sees it
    without a restart; publishing again replaces it.

    [bold]Examples[/]
      fairlead adapters publish chat:3 --name tone
      fairlead adapters publish chat@challenger --user u0007
    """
    from deploy.cli.models.adapters import publish_adapter

    publish_adapter(profile, ref, name, user, override, as_json)


@_adapters.command("remove")
@guarded
def remove(
    name: Annotated[str, typer.Argument(help="Its name, without the model's.")],
    model: Annotated[str, typer.Option("--model", "-m", help="The model that it is of.")] = "chat",
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Take an adapter away; services answer 404 to its name soon after. A person's goes when the person is forgotten.

    [bold]Examples[/]
      fairlead adapters remove tone
      fairlead adapters remove tone --model support
    """
    from deploy.cli.models.adapters import remove_adapter

    remove_adapter(profile, model, name, as_json)

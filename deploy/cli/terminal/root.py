"""The command line without its commands, which ``deploy/cli/app.py`` adds."""

from __future__ import annotations

import typer

app = typer.Typer(
    name="fairlead",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From raw data to a served, gated, monitored model.\n\n"
    "Start with [bold]fairlead doctor[/] and [bold]fairlead demo[/]; every command has examples in its --help.",
)

"""Entry point of ``fairlead``; importing it must stay quick, so commands import what they need when they run."""

from __future__ import annotations

import signal
import sys
from types import FrameType

import typer

from deploy.cli.commands import data, features, models, pipelines, project, releases, runs, schedules, serving
from deploy.cli.terminal.output import EXIT_INTERRUPTED

app = typer.Typer(
    name="fairlead",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From raw data to a served, gated, monitored model.\n\n"
    "Start with [bold]fairlead doctor[/] and [bold]fairlead demo[/]; every command has examples in its --help.",
)
for part in (runs, schedules, data, models, serving, features, releases, pipelines, project):
    part.register(app)


def main() -> None:
    """Run the command line; Ctrl-C and SIGTERM end it the same way."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt

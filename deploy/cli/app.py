"""Entry point of ``fairlead``; importing it must stay quick, so commands import what they need when they run."""

from __future__ import annotations

import signal
import sys
from types import FrameType

from contracts.garbage import collect_rarely
from deploy.cli.commands import (
    adapters,
    audit,
    console,
    data,
    evaluation,
    features,
    federation,
    feedback,
    loop,
    models,
    monitoring,
    pipelines,
    project,
    releases,
    rollouts,
    runs,
    schedules,
    search,
    serving,
)
from deploy.cli.terminal.output import EXIT_INTERRUPTED
from deploy.cli.terminal.root import app

__all__ = ["app", "main"]

parts = (
    runs,
    search,
    federation,
    schedules,
    data,
    models,
    adapters,
    evaluation,
    serving,
    rollouts,
    console,
    feedback,
    monitoring,
    features,
    releases,
    pipelines,
    loop,
    audit,
    project,
)
for part in parts:
    part.register(app)


def main() -> None:
    """Run the command line; Ctrl-C and SIGTERM end it the same way."""
    collect_rarely()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt

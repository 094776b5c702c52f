"""What people and programs see: tables or one JSON document, and errors with their cure."""

from __future__ import annotations

import functools
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from contracts.errors import PlatformError
from deploy.cli.profiles.homes import located
from deploy.cli.terminal.advice import completed, trainable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

EXIT_ERROR = 1
EXIT_REFUSED = 3  # the gate said no: not a failure of the platform
EXIT_INTERRUPTED = 130
WIDTH = 100  # widest table, and the width where there is no terminal

R = TypeVar("R")


def console(*, stderr: bool = False) -> Console:
    """A console of at most `WIDTH` columns; colours only in a terminal."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = WIDTH
    made.width = min(made.width, WIDTH)
    return made


def emit(document: Any, as_json: bool, show: Callable[[Console], None]) -> None:
    """Print `document` as JSON, or let `show` print it for a person."""
    if as_json:
        write_json(document)
    else:
        show(console())


def write_json(document: Any) -> None:
    """One JSON document on stdout; numbers that JSON lacks (NaN, infinities) become null."""
    sys.stdout.write(json.dumps(_plain(document), indent=2, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value


def table(*headings: str, right: Sequence[str] = ()) -> Table:
    """A table in the house style; columns named in `right` are aligned to the right."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, heading in enumerate(headings):
        # The first column is a name that people copy: it stays in one piece.
        side = "right" if heading in right else "left"
        made.add_column(heading, justify=side, overflow="fold", no_wrap=index == 0)  # type: ignore[arg-type]
    return made


def number(value: Any, digits: int = 4) -> str:
    """A measured value for a table; a dash when there is none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def seconds(value: float | None) -> str:
    """A duration for a table: ``0.4 s``, ``2 min 05 s``."""
    if value is None:
        return "-"
    if value < 60:
        return f"{value:.1f} s"
    return f"{int(value // 60)} min {int(value % 60):02d} s"


def show_error(err: PlatformError) -> None:
    """Headline, detail and fix on stderr."""
    from rich.text import Text

    out = console(stderr=True)
    out.print(Text.assemble(("Error: ", "bold red"), (err.headline, "bold")), soft_wrap=True)
    if err.detail:
        out.print(Text(f"  {err.detail}"), soft_wrap=True)
    if err.fix:
        out.print(Text.assemble(("  Fix: ", "bold green"), err.fix), soft_wrap=True)


def guarded(command: Callable[..., R]) -> Callable[..., R]:
    """Turn a PlatformError of a command into its exit code, and into JSON when the command got ``--json``."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> R:
        try:
            return command(*args, **kwargs)
        except PlatformError as err:
            err = located(err)
            err.fix = completed(trainable(err), sys.argv[1:], kwargs.get("profile") or "")
            if kwargs.get("as_json"):
                write_json({"error": err.as_dict()})
            show_error(err)
            raise typer.Exit(EXIT_REFUSED if err.code == "gate" else EXIT_ERROR) from err
        except BrokenPipeError:
            # The reader went away (| head): nobody is left to tell.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(EXIT_ERROR) from None

    return run

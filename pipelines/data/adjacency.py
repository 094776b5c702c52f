"""Pairs as a name and all that it goes with on each line, ``user item item ...``, as benchmarks of graphs have them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from contracts.errors import PlatformError
from pipelines.data.chunks import TextFormat
from pipelines.data.delimited import open_text
from pipelines.data.formats import lines_of

NAMES = ["id", "user", "item", "part"]
_PARTS = ("train", "valid", "test")


def read_adjacency(path: Path, form: TextFormat) -> Iterator[tuple[int, list[str]]]:
    """Number of each pair (1 = the first), and ``[id, user, item, part]``.

    The id is file, line and place; the part is what the file is called before its first dot, where that is train, valid
    or test, and else empty. A name that goes with nothing has no pair.

    Raises:
        PlatformError: ``code="bad_source"``: a line that is not separated by spaces, or no pair in the whole file.
    """
    name = path.name.partition(".")[0]
    part, number = name if name in _PARTS else "", 0
    with open_text(path, form) as stream:
        for line_number, raw in enumerate(lines_of(stream), 1):
            user, *items = raw.decode("utf-8", "replace").split() or [""]
            if not items and "," in user:
                raise _bad(path, f"line {line_number} has commas, {user[:60]!r}", line_number)
            for place, item in enumerate(items, 1):
                number += 1
                yield number, [f"{name}:{line_number}:{place}", user, item, part]
    if not number:
        raise _bad(path, "no line has a second name", 1)


def _bad(path: Path, said: str, row: int) -> PlatformError:
    return PlatformError(
        f"{path.name}: {said}",
        detail="data.adjacency reads a name and all that it goes with on each line, with spaces between",
        fix="separate them by spaces, or leave data.adjacency out for a table",
        code="bad_source",
        file=str(path),
        row=row,
    )

"""Text files without personal data: redacted, looked at, or revealed again."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import typer

from contracts.errors import PlatformError
from contracts.pii.finders import Finder, open_finder
from contracts.pii.finding import NAMES, find
from contracts.pii.redaction import Redactor, reveal
from deploy.cli.terminal.output import EXIT_REFUSED, console, table, write_json

if TYPE_CHECKING:
    from rich.console import Console

_BLOCK = 1 << 20  # characters at a time, cut at the end of a line
_KEY_BEGINS, _KEY_ENDS = "-----BEGIN", "-----END"
_LISTED = 50


def redact_files(
    files: Sequence[str], operator: str, kinds: Sequence[str], out: str, as_json: bool, tagger: str = ""
) -> None:
    """Write the redacted text of `files` (none, or "-": standard input) to `out`, a folder, or to standard output.

    What was found is told on standard error, by kind.

    Raises:
        PlatformError: a file that is no text, a kind, operator or key that is none, or a file that would be replaced.
    """
    redactor = Redactor(operator, kinds=kinds or NAMES, finder=_finder(tagger))
    counts: Counter[str] = Counter()

    def done(text: str) -> str:
        made = redactor.redact(text)
        counts.update(span.kind.name for span in made.found)
        return made.text

    if as_json:
        text = {} if out else {"text": "".join(done(block) for name in files or ["-"] for block in _blocks(name))}
        written = _rewrite(files, out, done) if out else []
        write_json({**text, "files": written, "operator": operator, "found": dict(counts.most_common())})
        return
    _rewrite(files, out, done)
    told = ", ".join(f"{kind} {count:,}" for kind, count in counts.most_common()) or "nothing"
    console(stderr=True).print(f"Found {told}", soft_wrap=True, markup=False)


def reveal_files(files: Sequence[str], out: str) -> None:
    """Write `files` with what `encrypt` wrote decrypted.

    Raises:
        PlatformError: the key is none, or another one.
    """
    _rewrite(files, out, reveal)


def check_files(files: Sequence[str], kinds: Sequence[str], as_json: bool, tagger: str = "") -> None:
    """Tell where `files` hold personal data, by line and kind and without the values; exit code 3 where they do."""
    finder = _finder(tagger)
    found = [
        {"file": name, "line": line, "kind": span.kind.name}
        for name in files or ["-"]
        for first, text in _numbered(name)
        for span, line in _lines(text, first, kinds, finder)
    ]
    if as_json:
        write_json({"found": found})
    else:
        _show(console(), found)
    if found:
        raise typer.Exit(EXIT_REFUSED)


def _finder(tagger: str) -> Finder | None:
    """A folder, Presidio, or a model of the registry, by default its champion."""
    if not tagger or Path(tagger).exists() or tagger.partition(":")[0] == "presidio":
        return open_finder(tagger)
    from contracts.registry import Registry
    from deploy.cli.profiles.loading import load_endpoints

    return open_finder(str(Registry(load_endpoints("local")).fetch(tagger).path))


def _lines(text: str, first: int, kinds: Sequence[str], finder: Finder | None) -> Iterator[tuple[Any, int]]:
    at, line = 0, first
    for span in find(text, kinds=kinds or NAMES, finder=finder):
        line, at = line + text.count("\n", at, span.start), span.start
        yield span, line


def _show(to: Console, found: Sequence[dict[str, Any]]) -> None:
    if not found:
        to.print("No personal data found")
        return
    made = table("file", "line", "kind", right=("line",))
    for one in found[:_LISTED]:
        made.add_row(one["file"], f"{one['line']:,}", one["kind"])
    to.print(made)
    if len(found) > _LISTED:
        to.print(f"and {len(found) - _LISTED:,} more")


def _rewrite(files: Sequence[str], out: str, change: Callable[[str], str]) -> list[str]:
    """Change the text of each file; the names of what was written."""
    if not out:
        for name in files or ["-"]:
            for text in _blocks(name):
                sys.stdout.write(change(text))
        sys.stdout.flush()
        return []
    folder, written = Path(out), []
    folder.mkdir(parents=True, exist_ok=True)
    for name in files:
        target = folder / Path(name).name
        if target.exists():
            raise PlatformError(f"{target} is there already", fix="name another folder, or move it", code="bad_input")
        staged = folder / f".{target.name}.part"
        try:
            with staged.open("w", encoding="utf-8", newline="") as stream:
                for text in _blocks(name):
                    stream.write(change(text))
            staged.replace(target)
        finally:
            staged.unlink(missing_ok=True)
        written.append(str(target))
    return written


def _numbered(name: str) -> Iterator[tuple[int, str]]:
    """Blocks with the number of their first line."""
    line = 1
    for text in _blocks(name):
        yield line, text
        line += text.count("\n")


def _blocks(name: str) -> Iterator[str]:
    """The text of a file in whole lines; a private key is in one block."""
    with _opened(name) as stream:
        try:
            while lines := stream.readlines(_BLOCK):
                while _KEY_BEGINS in lines[-1] or _open_key(lines):
                    if not (line := stream.readline()):
                        break
                    lines.append(line)
                yield "".join(lines)
        except UnicodeDecodeError as err:
            raise PlatformError(
                f"{name} is no text in UTF-8",
                detail=f"byte 0x{err.object[err.start]:02x} at {err.start}",
                fix="convert it, for example iconv -f GB18030 -t UTF-8; tables are read by fairlead run",
                code="bad_input",
            ) from err


def _open_key(lines: Sequence[str]) -> bool:
    """Whether the last key that begins in these lines does not end in them."""
    for line in reversed(lines[-200:]):
        if _KEY_ENDS in line:
            return False
        if _KEY_BEGINS in line:
            return True
    return False


@contextmanager
def _opened(name: str) -> Iterator[TextIO]:
    if name == "-":
        sys.stdin.reconfigure(encoding="utf-8", newline="")  # type: ignore[union-attr]
        yield sys.stdin
        return
    try:
        with open(name, encoding="utf-8", newline="") as stream:
            yield stream
    except (FileNotFoundError, IsADirectoryError, PermissionError) as err:
        raise PlatformError(
            f"{name} cannot be read", detail=str(err.strerror), fix="give the path of a text file", code="bad_input"
        ) from err

"""Files of lines that one process appends to while others read them; in S3, objects that never change."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

import orjson

from contracts import storage
from contracts.errors import PlatformError
from services.feedback.layout import LogFile
from services.feedback.records import Placed, R

_PIECE = 4 << 20  # bytes that are read at once
_NAMED = 10


@dataclass(kw_only=True)
class Unreadable:
    """Lines that are no records.

    Attributes:
        count: of them all.
        named: of the first ten, the file, the byte at which the line begins, and what is wrong.
    """

    count: int = 0
    named: list[str] = field(default_factory=list)

    def add(self, name: str, at: int, reason: str) -> None:
        """Count one."""
        self.count += 1
        if len(self.named) < _NAMED:
            self.named.append(f"{name} at byte {at}: {reason}")


def append(file: Path, lines: bytes) -> None:
    """Add whole lines; a line that an earlier process left half is ended first, so that it spoils no other.

    Raises:
        OSError: nothing of `lines` is in the file.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with locked(file) as stream:
        before = stream.seek(0, 2)
        if before:
            stream.seek(before - 1)
            if stream.read(1) != b"\n":
                lines = b"\n" + lines
        try:
            if stream.write(lines) != len(lines):
                raise OSError(28, "disk full")
        except OSError:
            with suppress(OSError):  # the next one ends what cannot be taken back
                stream.truncate(before)  # a full disk takes part of a line
            raise


@contextmanager
def locked(file: Path) -> Iterator[FileIO]:
    """The file, made where there is none, open to be appended to, while no other process appends or replaces it."""
    while True:
        with file.open("ab+", buffering=0) as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            if file.exists() and os.path.samestat(os.fstat(stream.fileno()), file.stat()):
                yield stream
                return


def rewrite(file: LogFile, gone: Callable[[bytes], bool]) -> int:
    """Blank the lines that are `gone`; returns how many there are. Where each line begins stays as it was."""
    if storage.is_remote(file.uri):
        kept, count = _without(storage.read_bytes(file.uri), gone)
        if count:
            storage.write_bytes(file.uri, kept)
        return count
    with locked(Path(file.uri)) as stream:
        stream.seek(0)
        kept, count = _without(stream.read(), gone)
        if count:
            storage.write_bytes(file.uri, kept)
    return count


def _without(data: bytes, gone: Callable[[bytes], bool]) -> tuple[bytes, int]:
    lines = data.split(b"\n")
    found = [number for number, line in enumerate(lines) if line.strip() and gone(line)]
    for number in found:
        lines[number] = b" " * len(lines[number])
    return b"\n".join(lines), len(found)


def piece(file: LogFile, start: int) -> bytes:
    """Whole lines from `start`, about `_PIECE` bytes of a local file; all that an object has.

    Raises:
        PlatformError: ``code="not_found"`` when the file was compacted meanwhile, or the storage's own.
    """
    if storage.is_remote(file.uri):
        return storage.read_bytes(file.uri) if not start else b""
    try:
        with Path(file.uri).open("rb") as stream:
            stream.seek(start)
            data = stream.read(_PIECE)
            while b"\n" not in data and (more := stream.read(_PIECE)):
                data += more
    except FileNotFoundError:
        raise PlatformError(f"not found: {file.uri}", fix="read again, it was replaced", code="not_found") from None
    return data[: data.rfind(b"\n") + 1]


def _not_blank(line: bytes) -> bool:
    return bool(line.strip())


def parsed(
    file: LogFile,
    at: int,
    data: bytes,
    of: Callable[[Any], R],
    bad: Unreadable,
    only: Callable[[bytes], bool] = _not_blank,
) -> Iterator[Placed[R]]:
    """The records of `data`, which begins at byte `at` of the file; lines that are none go to `bad`.

    Args:
        only: whether a line is wanted at all; all that are not blank.
    """
    for line in data.split(b"\n"):
        if only(line):
            try:
                yield Placed(record=of(orjson.loads(line)), source=file.name, at=at)
            except orjson.JSONDecodeError:
                bad.add(file.name, at, "is no JSON")
            except (ValueError, TypeError) as err:
                bad.add(file.name, at, str(err))
        at += len(line) + 1


def placed(
    file: LogFile,
    of: Callable[[Any], R],
    bad: Unreadable,
    at: int = 0,
    only: Callable[[bytes], bool] = _not_blank,
) -> Iterator[Placed[R]]:
    """All records of a file from byte `at`, piece by piece."""
    while data := piece(file, at):
        yield from parsed(file, at, data, of, bad, only)
        at += len(data)

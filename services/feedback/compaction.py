"""Lines of finished days become Parquet by the day of the event; a crash at any point loses and repeats nothing.

One batch replaces the lines of one day. Its steps: the marker says "writing" and names the lines; the Parquet files are
written, which no reader counts yet; the marker says "committed", and from then on they count and the lines do not; the
lines are removed; the marker says "done". Whoever comes after a crash finds in the marker which half is to be finished.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from contracts import storage
from contracts.errors import PlatformError
from services.feedback.layout import (
    Kind,
    LogFile,
    Marker,
    files,
    home,
    listed,
    parquet_name,
    read_marker,
    write_marker,
)
from services.feedback.line_file import Unreadable, placed
from services.feedback.reading import parquet_form
from services.feedback.records import Label, Placed, Prediction

FINISHED = timedelta(minutes=15)  # after midnight, what was queued before it is written
_SILENT = timedelta(hours=1)  # an owner that says nothing for so long is taken for dead
RECORDS: Mapping[Kind, Any] = {"predictions": Prediction, "labels": Label}


@dataclass(kw_only=True)
class Compacted:
    """What a compaction did: files of lines that are gone, and records that are in Parquet instead."""

    files: int = 0
    records: int = 0


def compact(
    folder: str,
    model: str,
    kind: Kind,
    bad: Unreadable,
    *,
    now: datetime | None = None,
    tell: Callable[[date], None] = lambda day: None,
) -> Compacted:
    """Turn the lines of finished days into Parquet; files that today's writers are at are left alone.

    Args:
        bad: gets the lines that are no records, which are not kept.
        tell: hears each day before it is begun.

    Raises:
        PlatformError: ``code="compacting"`` when another process is at it, or the storage's own.
    """
    base = home(folder, model, kind)
    resume(base)
    done, last = Compacted(), ((now or datetime.now(UTC)) - FINISHED).date()
    by_day: dict[date, list[LogFile]] = {}
    for file in files(folder, model, kind):
        if file.is_lines and file.day < last:
            by_day.setdefault(file.day, []).append(file)
    for day, sources in by_day.items():
        tell(day)
        done.records += _batch(base, RECORDS[kind], sources, bad)
        done.files += len(sources)
    return done


def resume(base: str) -> None:
    """Finish or undo what a process left that died.

    Raises:
        PlatformError: ``code="compacting"`` when it may not be dead.
    """
    marker = read_marker(base)
    if marker is None or marker.state == "done":
        return
    if not _is_dead(marker):
        raise PlatformError(
            f"{base} is being compacted by another process",
            detail=f"{marker.owner} said so last at {marker.since}",
            fix=f"wait for it; when it is gone, what it left is taken over {_SILENT.seconds // 3600} h after that time",
            code="compacting",
        )
    if marker.state == "writing":
        undo(base, marker)
    else:
        _finish(base, marker)


@contextmanager
def alone(base: str) -> Iterator[None]:
    """Keep others from replacing files of a folder meanwhile; whoever reads is not disturbed.

    Raises:
        PlatformError: ``code="compacting"`` when another process is at it.
    """
    resume(base)
    marker = owned(new_batch(), "writing", ())
    write_marker(base, marker)
    try:
        yield
    finally:
        write_marker(base, replace(marker, state="done"))


def undo(base: str, marker: Marker) -> None:
    """Remove the Parquet of a batch that was not committed."""
    for file in listed(base):
        if not file.is_lines and file.name.partition("/")[2].startswith(marker.batch):
            storage.remove(file.uri)
    write_marker(base, replace(marker, state="done", sources=()))


def owned(batch: str, state: Any, sources: tuple[str, ...]) -> Marker:
    """A marker of this process."""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return Marker(batch=batch, state=state, sources=sources, owner=_owner(), since=since)


def new_batch() -> str:
    """The name of a batch; names sort by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(4)}"


def _batch(base: str, of: Any, sources: list[LogFile], bad: Unreadable) -> int:
    batch, names = new_batch(), tuple(file.name for file in sources)
    write_marker(base, owned(batch, "writing", names))
    lines = Unreadable()
    count = write_parquet(base, batch, lambda: _records(sources, of, lines))
    bad.count += lines.count // 2  # they were read twice
    bad.named += lines.named[: lines.count // 2]
    marker = owned(batch, "committed", names)
    write_marker(base, marker)
    _finish(base, marker)
    return count


def _records(sources: list[LogFile], of: Any, bad: Unreadable) -> Iterator[Placed[Any]]:
    for file in sources:
        yield from placed(file, of.of, bad)


def write_parquet(base: str, batch: str, records: Callable[[], Iterator[Placed[Any]]]) -> int:
    """Write records, which are read twice, as the Parquet files of a batch; returns how many there are."""
    form = parquet_form()
    kinds: dict[tuple[Any, ...], Any] = {}
    for one in records():
        key = (one.record.time.date(), *form.members(one.record))
        kinds.setdefault(key, form.Kinds()).see(one.record)
    written = 0
    with TemporaryDirectory(prefix="fairlead-compact-") as folder:
        parts = {key: Path(folder) / str(number) for number, key in enumerate(kinds)}
        with ExitStack() as stack:
            writers = {key: stack.enter_context(form.Writer(parts[key], kinds[key])) for key in kinds}
            for one in records():
                writers[(one.record.time.date(), *form.members(one.record))].add(one)
                written += 1
        for number, (key, part) in enumerate(parts.items()):
            storage.upload_file(part, storage.join(base, parquet_name(key[0], batch, number)))
    return written


def _finish(base: str, marker: Marker) -> None:
    for name in marker.sources:
        storage.remove(storage.join(base, name))
    write_marker(base, replace(marker, state="done", sources=()))


def _owner() -> str:
    return f"{socket.gethostname()} {os.getpid()}"


def _is_dead(marker: Marker) -> bool:
    host, _, pid = marker.owner.rpartition(" ")
    if marker.owner == _owner():
        return True
    if host == socket.gethostname() and pid.isdigit():
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
    return datetime.now(UTC) - datetime.fromisoformat(marker.since) > _SILENT

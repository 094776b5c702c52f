"""Lines of finished days become Parquet by the day of the event; a crash at any point loses and repeats nothing.

One batch replaces the lines of one day. Its steps: the marker says "writing" and names the lines; the Parquet files are
written, which no reader counts yet; the marker says "committed", and from then on they count and the lines do not; the
lines are removed; the marker says "done". `services.feedback.turn` says whose turn it is, and ends what a crash left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from contracts import storage
from services.feedback.layout import Kind, LogFile, files, home, parquet_name
from services.feedback.line_file import Unreadable, placed
from services.feedback.reading import parquet_form
from services.feedback.records import Annotation, Label, Placed, Prediction
from services.feedback.turn import Turn, new_batch

FINISHED = timedelta(minutes=15)  # after midnight, what was queued before it is written
_RENEWED = 10_000  # records after which a turn may have to be renewed
RECORDS: Mapping[Kind, Any] = {"predictions": Prediction, "labels": Label, "annotations": Annotation}


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
    done, last = Compacted(), ((now or datetime.now(UTC)) - FINISHED).date()
    with Turn(base) as turn:
        by_day: dict[date, list[LogFile]] = {}
        for file in files(folder, model, kind):
            if file.is_lines and file.day < last:
                by_day.setdefault(file.day, []).append(file)
        for day, sources in by_day.items():
            tell(day)
            done.records += _batch(turn, base, RECORDS[kind], sources, bad)
            done.files += len(sources)
    return done


def _batch(turn: Turn, base: str, of: Any, sources: list[LogFile], bad: Unreadable) -> int:
    batch, lines = new_batch(), Unreadable()
    turn.begin(batch, tuple(file.name for file in sources))
    count = write_parquet(base, batch, lambda: _records(turn, sources, of, lines))
    bad.count += lines.count // 2  # they were read twice
    bad.named += lines.named[: lines.count // 2]
    turn.commit()
    turn.finish()
    return count


def _records(turn: Turn, sources: list[LogFile], of: Any, bad: Unreadable) -> Iterator[Placed[Any]]:
    for file in sources:
        for number, one in enumerate(placed(file, of.of, bad)):
            if not number % _RENEWED:
                turn.renew()
            yield one


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

"""What the log of a model holds, day by day, and how long it is kept."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from contracts import storage
from services.feedback.compaction import FINISHED
from services.feedback.layout import KINDS, files, home
from services.feedback.line_file import Unreadable
from services.feedback.reading import parquet_groups, whole
from services.feedback.records import Label, Prediction, id_time, is_id
from services.feedback.turn import alone


@dataclass(kw_only=True)
class Day:
    """One day of a model: of lines the day on which they were written, of Parquet that of the events.

    Attributes:
        labels: of predictions that were made on the day.
        uncounted: files of lines whose records are not among the rows.
    """

    day: date
    rows: int = 0
    versions: set[str] = field(default_factory=set)
    labels: int = 0
    bytes: int = 0
    lines: bool = False
    uncounted: int = 0

    def document(self) -> dict[str, Any]:
        """For JSON."""
        form = "lines" if self.lines else "parquet"
        said = {"day": self.day.isoformat(), "rows": self.rows, "versions": sorted(self.versions)}
        return {**said, "labels": self.labels, "bytes": self.bytes, "form": form, "uncounted_files": self.uncounted}


def days(folder: str, model: str, unreadable: Unreadable, *, count: bool = True) -> list[Day]:
    """The days that have predictions, in their order: of Parquet the end of each file is read, and all lines.

    Args:
        count: whether lines are read at all.
    """
    labelled, found = _labelled(folder, model, unreadable, count), dict[date, Day]()
    sizes = {one.uri: one.size for one in storage.listing(home(folder, model))}
    for file in files(folder, model):
        day = found.setdefault(file.day, Day(day=file.day, labels=labelled[file.day]))
        day.bytes += sizes.get(file.uri, 0)
        if not file.is_lines:
            rows, versions = parquet_groups().summary(file.uri)
            day.rows, day.versions = day.rows + rows, day.versions | versions
            continue
        day.lines = True
        if not count:
            day.uncounted += 1
            continue
        for one in whole(folder, model, "predictions", file, Prediction, unreadable):
            day.rows += 1
            day.versions.add(one.version)
    return [found[day] for day in sorted(found)]


def _labelled(folder: str, model: str, unreadable: Unreadable, count: bool) -> Counter[date]:
    """How many labels predictions of each day have."""
    found = Counter[date]()
    for file in files(folder, model, "labels"):
        if not file.is_lines:
            found += parquet_groups().labelled_days(file.uri)
        elif count:
            for label in whole(folder, model, "labels", file, Label, unreadable):
                if is_id(label.id):
                    found[id_time(label.id).date()] += 1
    return found


def drop_before(folder: str, model: str, keep_days: int, *, now: datetime | None = None) -> list[str]:
    """Remove what is older than `keep_days` finished days and in Parquet; returns the names of the files.

    Raises:
        PlatformError: ``code="compacting"`` when another process replaces files, or the storage's own.
    """
    last = ((now or datetime.now(UTC)) - FINISHED).date() - timedelta(days=keep_days + 1)
    removed: list[str] = []
    for kind in KINDS:
        old = [file for file in files(folder, model, kind, until=last) if not file.is_lines]
        if not old:
            continue
        with alone(home(folder, model, kind)) as turn:
            for file in old:
                turn.renew()
                storage.remove(file.uri)
                removed.append(f"{kind}/{file.name}")
    return removed

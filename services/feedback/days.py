"""What the log of a model holds, day by day, and how long it is kept."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from contracts import storage
from services.feedback.compaction import FINISHED, alone
from services.feedback.layout import files, home
from services.feedback.line_file import Unreadable
from services.feedback.reading import labels, parquet_form, whole
from services.feedback.records import Prediction, id_time, is_id


@dataclass(kw_only=True)
class Day:
    """One day of a model: of lines the day on which they were written, of Parquet that of the events.

    Attributes:
        labels: of predictions that were made on the day.
    """

    day: date
    rows: int = 0
    versions: set[str] = field(default_factory=set)
    labels: int = 0
    bytes: int = 0
    lines: bool = False

    def document(self) -> dict[str, Any]:
        """For JSON."""
        form = "lines" if self.lines else "parquet"
        said = {"day": self.day.isoformat(), "rows": self.rows, "versions": sorted(self.versions)}
        return {**said, "labels": self.labels, "bytes": self.bytes, "form": form}


def days(folder: str, model: str, unreadable: Unreadable) -> list[Day]:
    """The days that have predictions, in their order; every file is read."""
    labelled: Counter[date] = Counter()
    for label in labels(folder, model, unreadable=unreadable):
        if is_id(label.id):
            labelled[id_time(label.id).date()] += 1
    found: dict[date, Day] = {}
    for file in files(folder, model):
        day = found.setdefault(file.day, Day(day=file.day, labels=labelled[file.day]))
        day.bytes += storage.size(file.uri)
        if not file.is_lines:
            rows, versions = parquet_form().summary(file.uri)
            day.rows, day.versions = day.rows + rows, day.versions | versions
            continue
        day.lines = True
        for one in whole(folder, model, "predictions", file, Prediction, unreadable):
            day.rows += 1
            day.versions.add(one.version)
    return [found[day] for day in sorted(found)]


def drop_before(folder: str, model: str, keep_days: int, *, now: datetime | None = None) -> list[str]:
    """Remove what is older than `keep_days` finished days and in Parquet; returns the names of the files.

    Raises:
        PlatformError: ``code="compacting"`` when another process replaces files, or the storage's own.
    """
    first = ((now or datetime.now(UTC)) - FINISHED).date() - timedelta(days=keep_days)
    removed: list[str] = []
    for kind in ("predictions", "labels"):
        with alone(home(folder, model, kind)):
            for file in files(folder, model, kind, until=first - timedelta(days=1)):
                if not file.is_lines:
                    storage.remove(file.uri)
                    removed.append(f"{kind}/{file.name}")
    return removed

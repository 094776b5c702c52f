"""Reads the log: what is new since a position, and the records of a window by event time.

Lines that are no records are counted and named, they stop nobody.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from importlib import import_module
from typing import Any, Generic

from contracts import storage
from contracts.errors import PlatformError
from services.feedback.layout import Kind, LogFile, day_of, files
from services.feedback.line_file import Unreadable, parsed, piece, placed
from services.feedback.records import Annotation, Label, Prediction, R, id_in, id_time, is_id

_READ = -1  # in a position: a Parquet file that was read to its end
_LATE = timedelta(days=1)  # files of a day may appear so long after it


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far the log was read.

    Attributes:
        files: bytes that were read of each file of lines, and groups of rows of Parquet, by its name.
        since: the first day whose lines are still looked at, earlier ones are read to their end; None: all.
    """

    files: Mapping[str, int] = field(default_factory=dict)
    since: date | None = None

    def to_json(self) -> str:
        """The position as a JSON document."""
        return json.dumps({"since": self.since and self.since.isoformat(), "files": dict(self.files)})

    @classmethod
    def from_json(cls, text: str) -> Position:
        """The position that `to_json` wrote.

        Raises:
            PlatformError: ``code="bad_position"``.
        """
        try:
            document = json.loads(text)
            since = document["since"] and date.fromisoformat(document["since"])
            return cls(files={str(name): int(size) for name, size in document["files"].items()}, since=since)
        except (ValueError, KeyError, TypeError, AttributeError) as err:
            raise PlatformError(
                "not a position in the prediction log",
                detail=f"expected a document with since and files: {err}",
                fix="remove the stored position, then the log is read from its beginning",
                code="bad_position",
            ) from err


@dataclass(kw_only=True)
class News(Generic[R]):
    """What is new.

    Attributes:
        position: to go on from, once the records are dealt with.
        more: whether there is more at once.
    """

    records: list[R]
    position: Position
    unreadable: Unreadable
    more: bool


def new_predictions(folder: str, model: str, position: Position, *, limit: int = 20_000) -> News[Prediction]:
    """Predictions that were logged after `position`: about `limit` of them at most, whole S3 objects only.

    A last line without its end is left for the next time: its writer may be at it.
    """
    return _news(folder, model, "predictions", position, limit, Prediction)


def new_labels(folder: str, model: str, position: Position, *, limit: int = 20_000) -> News[Label]:
    """Labels that came after `position`, as `new_predictions`."""
    return _news(folder, model, "labels", position, limit, Label)


def predictions(
    folder: str, model: str, start: datetime, end: datetime, unreadable: Unreadable | None = None
) -> Iterator[Prediction]:
    """Predictions with start <= event time < end, file by file: in the order of their time within a writer only."""
    bad = unreadable or Unreadable()
    for file in files(folder, model, since=start.date(), until=end.date()):
        for one in whole(folder, model, "predictions", file, Prediction, bad, (start, end)):
            if start <= one.time < end:
                yield one


def find_predictions(folder: str, model: str, ids: Iterable[str]) -> Iterator[Prediction]:
    """The logged predictions of these ids. Of Parquet the groups that may have one are read, of lines those that do."""
    by_day: dict[date, list[str]] = {}
    for one in sorted({one for one in ids if is_id(one)}):
        by_day.setdefault(id_time(one).date(), []).append(one)
    if not by_day:
        return
    wanted = {one for some in by_day.values() for one in some}
    for file in files(folder, model, since=min(by_day) - _LATE, until=max(by_day) + _LATE):
        if file.is_lines:
            yield from _among_lines(folder, model, file, wanted)
            continue
        near = [one for day in (file.day - _LATE, file.day, file.day + _LATE) for one in by_day.get(day, ())]
        if near:
            for table in parquet_groups().rows_of(file.uri, near):
                yield from (row.record for row in parquet_form().records_of(table, Prediction))


def _among_lines(folder: str, model: str, file: LogFile, wanted: set[str]) -> Iterator[Prediction]:
    """The predictions of a file of lines with these ids; only their lines are taken apart."""
    at = -1
    try:
        for one in placed(file, Prediction.of, Unreadable(), only=lambda line: id_in(line) in wanted):
            at = one.at
            if one.record.id in wanted:
                yield one.record
    except PlatformError as err:
        if err.code != "not_found":
            raise
        rest = _moved(folder, model, "predictions", file.name, Prediction, at)
        yield from (record for record in rest if record.id in wanted)


def labels(
    folder: str, model: str, *, since: date | None = None, unreadable: Unreadable | None = None
) -> Iterator[Label]:
    """All labels that came, or have their time, on the day `since` or later, in the order of files."""
    bad = unreadable or Unreadable()
    for file in files(folder, model, "labels", since=since):
        yield from whole(folder, model, "labels", file, Label, bad)


def logged_annotations(
    folder: str, model: str, *, since: date | None = None, unreadable: Unreadable | None = None
) -> Iterator[Annotation]:
    """Annotations that are in the log yet, of the day `since` or later, as `labels`."""
    bad = unreadable or Unreadable()
    for file in files(folder, model, "annotations", since=since):
        yield from whole(folder, model, "annotations", file, Annotation, bad)


def whole(
    folder: str,
    model: str,
    kind: Kind,
    file: LogFile,
    of: type[R],
    bad: Unreadable,
    window: tuple[datetime, datetime] | None = None,
) -> Iterator[R]:
    """All records of a file; those of lines that are compacted meanwhile come from the Parquet that has them now."""
    if not file.is_lines:
        for table in _tables(file.uri, window):
            yield from (one.record for one in parquet_form().records_of(table, of))
        return
    at = -1
    try:
        for one in placed(file, of.of, bad):
            at = one.at
            yield one.record
    except PlatformError as err:
        if err.code != "not_found":
            raise
        yield from _moved(folder, model, kind, file.name, of, at)


def _tables(uri: str, window: tuple[datetime, datetime] | None) -> Iterator[Any]:
    if window is not None:
        return parquet_groups().groups_between(uri, *window)  # type: ignore[no-any-return]
    return (table for _, table in parquet_groups().groups(uri))


def _moved(folder: str, model: str, kind: Kind, source: str, of: type[R], after: int) -> Iterator[R]:
    """The records that were in a file of lines behind this byte, from the Parquet that has them now."""
    for new in files(folder, model, kind):
        if not new.is_lines:
            for _, table in parquet_groups().groups(new.uri, 0, lambda name, at: name == source and at > after):
                rows = parquet_form().records_of(table, of)
                yield from (row.record for row in rows if row.source == source and row.at > after)


def _news(folder: str, model: str, kind: Kind, position: Position, limit: int, of: type[R]) -> News[R]:
    """Lines after the position; and of Parquet what was compacted before its lines were read."""
    found = files(folder, model, kind, since=position.since and position.since - _LATE)
    reading = _Following(position, limit, of)
    for file in found:
        if file.is_lines and position.since is not None and file.day < position.since:
            continue
        if not (reading.lines(file) if file.is_lines else reading.compacted(file)):
            return reading.news(position.since, more=True)
    since = position.since
    if found:  # a clock that is ahead must not end what others write
        newest = max(file.day for file in found)
        since = max(min(newest, datetime.now(UTC).date()) - _LATE, since or date.min)
        still = {file.name for file in found if not file.is_lines and file.day >= since - _LATE}
        at = reading.at
        reading.at = {name: at[name] for name in at if name in still or (day_of(name) or date.min) >= since}
    return reading.news(since, more=False)


class _Following(Generic[R]):
    """What is read on from a position, until there are enough records."""

    def __init__(self, position: Position, limit: int, of: type[R]) -> None:
        self.at, self._since = dict(position.files), position.since
        self._limit = limit
        self._of: type[R] = of
        self._records: list[R] = []
        self._bad = Unreadable()

    def news(self, since: date | None, *, more: bool) -> News[R]:
        """What was read."""
        position = Position(files=self.at, since=since)
        return News(records=self._records, position=position, unreadable=self._bad, more=more)

    def lines(self, file: LogFile) -> bool:
        """Read a file of lines to its end; False when the limit came first."""
        remote = storage.is_remote(file.uri)
        while not (remote and file.name in self.at):  # an object never changes
            if len(self._records) >= self._limit:
                return False
            before = self.at.get(file.name, 0)
            try:
                data = piece(file, before)
            except PlatformError as err:
                if err.code != "not_found":
                    raise
                return True  # it was compacted meanwhile: the next time, its rest is in Parquet
            self.at[file.name] = before + len(data)
            self._records += (one.record for one in parsed(file, before, data, self._of.of, self._bad))
            if not data:
                break
        return True

    def compacted(self, file: LogFile) -> bool:
        """Read a Parquet file but for the lines that were read before; False when the limit came first."""
        if self.at.get(file.name) == _READ:
            return True
        for number, table in parquet_groups().groups(file.uri, self.at.get(file.name, 0), self._is_new):
            if number != self.at.setdefault(file.name, number):
                self.at[file.name] = number
                if len(self._records) >= self._limit:
                    return False
            for one in parquet_form().records_of(table, self._of):
                if self._is_new(one.source, one.at):
                    self._records.append(one.record)
        self.at[file.name] = _READ
        return True

    def _is_new(self, source: str, at: int) -> bool:
        """Whether the line at this byte of a file was not read yet."""
        day = day_of(source)
        known = self._since is not None and (day is None or day < self._since)
        return not known and at >= self.at.get(source, 0)


def parquet_form() -> Any:
    """The module `parquet_form`, loaded when there is Parquet.

    Raises:
        PlatformError: ``code="missing_package"``.
    """
    return _loaded("parquet_form")


def parquet_groups() -> Any:
    """The module `parquet_groups`, as `parquet_form`."""
    return _loaded("parquet_groups")


def _loaded(name: str) -> Any:
    try:
        return import_module(f"services.feedback.{name}")
    except ImportError as err:
        raise PlatformError(
            "pyarrow is not installed", fix="pip install 'fairlead[feedback]'", code="missing_package"
        ) from err

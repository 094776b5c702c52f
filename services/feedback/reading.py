"""Reads the log: what is new since a position, and the records of a window by event time.

Lines that are no records are counted and named, they stop nobody.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Generic, TypeVar

import orjson

from contracts import storage
from contracts.errors import PlatformError
from services.feedback.layout import Kind, LogFile, files
from services.feedback.records import Label, Prediction

R = TypeVar("R", Prediction, Label)
_PIECE = 4 << 20  # bytes that are read at once
_NAMED = 10
_LATE = timedelta(days=1)  # files of a day may appear so long after it


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


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far the log was read.

    Attributes:
        files: bytes that were read of each file, by its name; files of days before `since` are read to their end.
        since: the first day that is still looked at; None: all.
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
    return _news(folder, model, "predictions", position, limit, Prediction.of)


def new_labels(folder: str, model: str, position: Position, *, limit: int = 20_000) -> News[Label]:
    """Labels that came after `position`, as `new_predictions`."""
    return _news(folder, model, "labels", position, limit, Label.of)


def predictions(
    folder: str, model: str, start: datetime, end: datetime, unreadable: Unreadable | None = None
) -> Iterator[Prediction]:
    """Predictions with start <= event time < end, file by file: in the order of their time within a writer only."""
    found, bad = files(folder, model, since=start.date()), unreadable or Unreadable()
    for file in found:
        for one in _whole(file, Prediction.of, bad):
            if start <= one.time < end:
                yield one


def labels(
    folder: str, model: str, *, since: date | None = None, unreadable: Unreadable | None = None
) -> Iterator[Label]:
    """All labels that came on the day `since` or later, in the order of files."""
    bad = unreadable or Unreadable()
    for file in files(folder, model, "labels", since=since):
        yield from _whole(file, Label.of, bad)


def _news(folder: str, model: str, kind: Kind, position: Position, limit: int, of: Callable[[Any], R]) -> News[R]:
    at, records, bad = dict(position.files), list[R](), Unreadable()
    found = files(folder, model, kind, since=position.since)
    for file in found:
        remote = storage.is_remote(file.uri)
        while not (remote and file.name in at):  # an object never changes
            if len(records) >= limit:
                stopped = Position(files=at, since=position.since)
                return News(records=records, position=stopped, unreadable=bad, more=True)
            before = at.get(file.name, 0)
            data = _piece(file, before)
            at[file.name] = before + len(data)
            records += _parsed(file, before, data, of, bad)
            if not data:
                break
    since = found[-1].day - _LATE if found else position.since
    at = {file.name: at[file.name] for file in found if since is None or file.day >= since}
    return News(records=records, position=Position(files=at, since=since), unreadable=bad, more=False)


def _piece(file: LogFile, start: int) -> bytes:
    """Whole lines from `start`, about `_PIECE` bytes of a local file; all that an object has."""
    if storage.is_remote(file.uri):
        return storage.read_bytes(file.uri) if not start else b""
    with Path(file.uri).open("rb") as stream:
        stream.seek(start)
        data = stream.read(_PIECE)
        while b"\n" not in data and (more := stream.read(_PIECE)):
            data += more
    return data[: data.rfind(b"\n") + 1]


def _whole(file: LogFile, of: Callable[[Any], R], bad: Unreadable) -> Iterator[R]:
    at = 0
    while data := _piece(file, at):
        yield from _parsed(file, at, data, of, bad)
        at += len(data)


def _parsed(file: LogFile, at: int, data: bytes, of: Callable[[Any], R], bad: Unreadable) -> Iterator[R]:
    for line in data.split(b"\n"):
        if line:
            try:
                yield of(orjson.loads(line))
            except orjson.JSONDecodeError:
                bad.add(file.name, at, "is no JSON")
            except (ValueError, TypeError) as err:
                bad.add(file.name, at, str(err))
        at += len(line) + 1

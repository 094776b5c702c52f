"""Where the log of predictions, labels and annotations is, in a local folder or below ``s3://``::

<folder>/<model>/<day>.<host>-<pid>.jsonl           of one process and day (UTC), locally; once without <host>-
<folder>/<model>/<day>/<time>-<host>-<pid>-<n>.jsonl of one process and some seconds, in S3
<folder>/<model>/labels/...                         labels, in files of the same two forms
<folder>/<model>/annotations/...                    annotations, as labels
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime
from itertools import count
from pathlib import Path
from typing import Literal

from contracts import storage
from contracts.errors import PlatformError
from contracts.numbered import Numbered

Kind = Literal["predictions", "labels", "annotations"]
KINDS: tuple[Kind, ...] = ("predictions", "labels", "annotations")
MARKER = "compaction"
_OLD_MARKER = "compaction.json"  # of version 1, one document that was replaced
REMOVED = "removed.jsonl"
_PARTITION = "day="
_TRIES = 20
_LINES = ".jsonl"
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_numbers = count()


@dataclass(frozen=True, kw_only=True, order=True)
class LogFile:
    """One file or object.

    Attributes:
        day: of lines the one on which they were begun, of Parquet that of the events.
        name: below the folder of its model and kind; files sort by day, then by name.
        uri: its path or address.
    """

    day: date
    name: str
    uri: str

    @property
    def is_lines(self) -> bool:
        """Whether it is one of lines, else it is Parquet."""
        return self.name.endswith(_LINES)


@dataclass(frozen=True, kw_only=True)
class Marker:
    """What a compaction does or did last: the one word on whether lines or Parquet count.

    Attributes:
        batch: the beginning of the names of its Parquet files.
        state: while "writing", the lines count; once "committed", the Parquet; "done" when the lines are gone.
        sources: names of the files of lines that the batch replaces.
        owner: host, process and what it is at.  since: when the owner began, or said last that it goes on.
        abandoned: the latest batches that were undone; what their owners may write yet is counted by nobody.
        number: of this version; who replaces it has seen it.
    """

    batch: str
    state: Literal["writing", "committed", "done"]
    sources: tuple[str, ...] = ()
    owner: str = field(default="", compare=False)
    since: str = field(default="", compare=False)
    abandoned: tuple[str, ...] = ()
    number: int = field(default=0, compare=False)


def read_marker(home: str) -> Marker | None:
    """The marker of a folder; None where nothing was compacted yet."""
    try:
        number, document = Numbered(storage.join(home, MARKER)).last()
        if not number:
            document = json.loads(storage.read_bytes(storage.join(home, _OLD_MARKER)))
        lists = {name: tuple(document.get(name, ())) for name in ("sources", "abandoned")}
        return Marker(**{**document, **lists, "number": number})
    except PlatformError as err:
        if err.code != "not_found":
            raise
        return None
    except (ValueError, TypeError, KeyError) as err:
        raise PlatformError(
            f"cannot read {storage.join(home, MARKER)}",
            detail=f"expected what a compaction writes: {err}",
            fix="restore the file; without it, lines may be counted twice",
            code="unreadable_log",
        ) from err


def write_marker(home: str, marker: Marker) -> Marker | None:
    """Replace the version that `marker.number` names; None where another process has done so."""
    new = replace(marker, number=marker.number + 1)
    document = asdict(new)
    del document["number"]
    return new if Numbered(storage.join(home, MARKER)).put(new.number, document) else None


def home(folder: str, model: str, kind: Kind = "predictions") -> str:
    """The folder of a model's records of one kind: an absolute path or an address."""
    base = folder if storage.is_remote(folder) else str(Path(folder).expanduser().absolute())
    return storage.join(base, model, *([] if kind == "predictions" else [kind]))


def own_file(home: str) -> Path:
    """The local file that this process appends to today."""
    return Path(home) / f"{datetime.now(UTC):%Y-%m-%d}.{socket.gethostname()}-{os.getpid()}{_LINES}"


def new_object(home: str) -> str:
    """The address of a new object of this process."""
    now = datetime.now(UTC)
    name = f"{now:%H%M%S%f}-{socket.gethostname()}-{os.getpid()}-{next(_numbers)}{_LINES}"
    return storage.join(home, f"{now:%Y-%m-%d}", name)


def models(folder: str) -> list[str]:
    """Models that have a folder, sorted."""
    base = folder if storage.is_remote(folder) else str(Path(folder).expanduser().absolute())
    return [name for name in storage.list_names(base) if storage.is_remote(base) or (Path(base) / name).is_dir()]


def files(
    folder: str, model: str, kind: Kind = "predictions", *, since: date | None = None, until: date | None = None
) -> list[LogFile]:
    """The files that hold the records of a model, each record once, in the order of their days.

    Files of days before `since` are left out, and Parquet of days after `until`: lines may be written late.

    Raises:
        PlatformError: the storage's own; ``code="log_changes"`` when it is compacted again and again meanwhile.
    """
    base = home(folder, model, kind)
    for _ in range(_TRIES):
        before = read_marker(base)
        found = sorted(listed(base, since, until))
        after = read_marker(base)
        if after == before:
            return [file for file in found if _counts(file, after)]
    raise PlatformError(
        f"the log of {model} changes while it is read",
        detail=f"{storage.join(base, MARKER)} was replaced {_TRIES} times",
        fix="end compactions but one",
        code="log_changes",
    )


def _counts(file: LogFile, marker: Marker | None) -> bool:
    if marker is None:
        return True
    if file.is_lines:
        return marker.state != "committed" or file.name not in marker.sources
    uncounted = (*marker.abandoned, *([marker.batch] if marker.state == "writing" else ()))
    return not file.name.partition("/")[2].startswith(uncounted)


def listed(base: str, since: date | None = None, until: date | None = None) -> Iterator[LogFile]:
    """Every file; of one record lines and Parquet may both be there while it is compacted."""
    for name in storage.list_names(base):
        day = day_of(name.removeprefix(_PARTITION))
        if day is None or (since is not None and day < since):
            continue
        if name.startswith(_PARTITION):
            if until is None or day <= until:
                yield from _within(base, name, day, ".parquet")
        elif name.endswith(_LINES):
            yield LogFile(day=day, name=name, uri=storage.join(base, name))
        elif len(name) == len("2026-01-31"):
            yield from _within(base, name, day, _LINES)


def _within(base: str, name: str, day: date, ending: str) -> Iterator[LogFile]:
    for inner in storage.list_names(storage.join(base, name)):
        if inner.endswith(ending) and not inner.startswith("."):
            yield LogFile(day=day, name=f"{name}/{inner}", uri=storage.join(base, name, inner))


def parquet_name(day: date, batch: str, number: int) -> str:
    """The name of a file of a batch, below the folder of its model and kind."""
    return f"{_PARTITION}{day}/{batch}-{number}.parquet"


def day_of(name: str) -> date | None:
    """The day that the name of a file of lines begins with."""
    if not _DAY.match(name):
        return None
    try:
        return date.fromisoformat(name[:10])
    except ValueError:
        return None

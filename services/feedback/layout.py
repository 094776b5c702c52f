"""Where the log of predictions and labels is, in a local folder or below ``s3://``::

<folder>/<model>/<day>.<host>-<pid>.jsonl           of one process and day (UTC), locally; once without <host>-
<folder>/<model>/<day>/<time>-<host>-<pid>-<n>.jsonl of one process and some seconds, in S3
<folder>/<model>/labels/...                         labels, in files of the same two forms
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import count
from pathlib import Path
from typing import Literal

from contracts import storage

Kind = Literal["predictions", "labels"]
LABELS = "labels"
_LINES = ".jsonl"
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_numbers = count()


@dataclass(frozen=True, kw_only=True, order=True)
class LogFile:
    """One file or object of lines.

    Attributes:
        day: on which it was begun.
        name: below the folder of its model and kind; files sort by day, then by name.
        uri: its path or address.
    """

    day: date
    name: str
    uri: str


def home(folder: str, model: str, kind: Kind = "predictions") -> str:
    """The folder of a model's predictions or labels: an absolute path or an address."""
    base = folder if storage.is_remote(folder) else str(Path(folder).expanduser().absolute())
    return storage.join(base, model, *([LABELS] if kind == "labels" else []))


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


def files(folder: str, model: str, kind: Kind = "predictions", *, since: date | None = None) -> list[LogFile]:
    """The files of lines of a model, of both forms, in their order; those of days before `since` are left out."""
    base = home(folder, model, kind)
    found = [file for name in storage.list_names(base) for file in _below(base, name, since)]
    return sorted(found)


def _below(base: str, name: str, since: date | None) -> Iterator[LogFile]:
    day = _day_of(name)
    if day is None or (since is not None and day < since):
        return
    if name.endswith(_LINES):
        yield LogFile(day=day, name=name, uri=storage.join(base, name))
    elif len(name) == len("2026-01-31"):
        for inner in storage.list_names(storage.join(base, name)):
            if inner.endswith(_LINES):
                yield LogFile(day=day, name=f"{name}/{inner}", uri=storage.join(base, name, inner))


def _day_of(name: str) -> date | None:
    if not _DAY.match(name):
        return None
    try:
        return date.fromisoformat(name[:10])
    except ValueError:
        return None

"""Whose turn it is to replace files of a log: one process at a time, and what a dead one left is ended by the next.

The marker is replaced by compare and swap, so who was taken for dead and wakes up can say nothing more; the batch that
it was writing is named as abandoned, and nobody counts what it may write yet.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from contracts import storage
from contracts.errors import PlatformError
from services.feedback.layout import Marker, listed, read_marker, write_marker

SILENT = timedelta(hours=1)  # an owner that says nothing for so long is taken for dead
_RENEWED = 60.0  # seconds after which it says that it goes on
_KEPT = 50  # abandoned batches that are remembered
_here: set[str] = set()  # owners of this process that are at work


class Turn:
    """A turn at one folder, as a context; `begin`, `commit` and `finish` are the steps of one batch."""

    def __init__(self, base: str) -> None:
        self._base, self._said = base, time.monotonic()
        self._owner = f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(4)}"
        self._marker = Marker(batch="", state="done")

    def __enter__(self) -> Turn:
        """Finish or undo what a process left that died.

        Raises:
            PlatformError: ``code="compacting"`` when it may not be dead.
        """
        found = read_marker(self._base)
        if found is not None and found.state != "done" and not _is_dead(found):
            raise _taken(self._base, found)
        _here.add(self._owner)
        if found is not None:
            self._marker = found
            if found.state != "done":
                self._say()  # from here on it is this one's
                self._undo() if found.state == "writing" else self.finish()
        return self

    def __exit__(self, _: object, err: BaseException | None, __: object) -> None:
        """Undo what a failure of the storage left half; what else ends a process is for the next one."""
        if self._marker.state == "writing" and isinstance(err, PlatformError | OSError):
            with suppress(PlatformError, OSError):
                self._undo()
        _here.discard(self._owner)

    def begin(self, batch: str, sources: tuple[str, ...] = ()) -> None:
        """Say what is to be replaced; Parquet of this batch counts from `commit` on.

        Raises:
            PlatformError: ``code="compacting"`` when another process was quicker, as all steps.
        """
        self._say(batch=batch, state="writing", sources=sources)

    def renew(self) -> None:
        """Say from time to time that this process goes on."""
        if time.monotonic() - self._said > _RENEWED:
            self._say()

    def commit(self) -> None:
        """Let the Parquet of the batch count, and its lines no more."""
        self._say(state="committed")

    def finish(self) -> None:
        """Remove the lines of the batch."""
        for name in self._marker.sources:
            self.renew()
            storage.remove(storage.join(self._base, name))
        self._say(state="done", sources=())

    def _undo(self) -> None:
        """Remove the Parquet of a batch that was not committed."""
        batch = self._marker.batch
        for file in listed(self._base):
            if not file.is_lines and file.name.partition("/")[2].startswith(batch):
                storage.remove(file.uri)
        self._say(state="done", sources=(), abandoned=(*self._marker.abandoned, batch)[-_KEPT:])

    def _say(self, **changes: Any) -> None:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        said = write_marker(self._base, replace(self._marker, owner=self._owner, since=since, **changes))
        if said is None:
            raise _taken(self._base, read_marker(self._base) or self._marker)
        self._marker, self._said = said, time.monotonic()


def new_batch() -> str:
    """The name of a batch; names sort by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(4)}"


@contextmanager
def alone(base: str) -> Iterator[Turn]:
    """A turn in which files are replaced one by one; whoever reads is not disturbed.

    Raises:
        PlatformError: ``code="compacting"`` when another process is at it.
    """
    with Turn(base) as turn:
        turn.begin(new_batch())
        yield turn
        turn.finish()


def _is_dead(marker: Marker) -> bool:
    host, pid, token = [*marker.owner.split(" "), "", ""][:3]
    if host == socket.gethostname() and pid.isdigit():
        if int(pid) == os.getpid():
            return marker.owner not in _here or not token
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
    return datetime.now(UTC) - datetime.fromisoformat(marker.since) > SILENT


def _taken(base: str, marker: Marker) -> PlatformError:
    return PlatformError(
        f"{base} is being compacted by another process",
        detail=f"{marker.owner} said so last at {marker.since}",
        fix=f"wait for it; when it is gone, what it left is taken over {SILENT.seconds // 3600} h after that time",
        code="compacting",
    )

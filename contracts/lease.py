"""One process acts at a time: a lease that is renewed while it works, in a folder or in S3.

The moments in it are of the holders' clocks, which may differ by less than a lease lasts.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from contracts.numbered import Numbered


class Lease:
    """The right to act for what is below one address.

    Attributes:
        holder: who has it now, as far as it was seen.
    """

    def __init__(self, place: str, seconds: float, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._document, self._lasts, self._clock = Numbered(place), timedelta(seconds=seconds), clock
        self._name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._until = datetime.fromtimestamp(0, UTC)
        self._number = 0  # of this one's last renewal
        self.holder = ""

    def take(self) -> bool:
        """Take or renew it; False where another one holds it."""
        number, document = self._document.last()
        self.holder = str(document.get("holder", ""))
        if self.holder not in ("", self._name) and not self._free(document):
            return False
        return self._put(number + 1, self._clock() + self._lasts)

    def keep(self) -> bool:
        """Renew it where less than half of its time is left; False where another one has it, or had it meanwhile."""
        if self._clock() < self._until - self._lasts / 2:
            return True
        before = self._number
        return self.take() and before in (0, self._number - 1)

    def release(self) -> None:
        """Give it back, so that another one need not wait until it ends."""
        number, document = self._document.last()
        if document.get("holder") == self._name:
            self._put(number + 1, self._clock())

    def _free(self, document: dict[str, Any]) -> bool:
        """Whether its time is over, or its holder is a process of this machine that is gone."""
        if datetime.fromisoformat(document["until"]) <= self._clock():
            return True
        return bool(document["host"] == _host() and _start(document["pid"]) != document["process_started"])

    def _put(self, number: int, until: datetime) -> bool:
        process = {"host": _host(), "pid": os.getpid(), "process_started": _start(os.getpid())}
        document = {"holder": self._name, "until": until.isoformat(), **process}
        if not self._document.put(number, document):
            return False
        self.holder, self._until, self._number = self._name, until, number
        return True


def _host() -> str:
    """The machine, or the container, as it started: process ids mean something there only."""
    try:
        return f"{socket.gethostname()} {Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"
    except OSError:
        return socket.gethostname()


def _start(pid: int) -> str | None:
    """When a process started, in the kernel's ticks; None where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None

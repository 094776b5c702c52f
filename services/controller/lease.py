"""One controller acts at a time: a lease that is renewed at each pass, in a folder or in S3.

Each renewal is an object with the next number, put on condition that it is new; the highest number holds. So a lease
needs no server of its own, and of two that want it one gets it. The moments in it are of the holders' clocks, which may
differ by less than a lease lasts.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from contracts import storage
from contracts.errors import PlatformError


class Lease:
    """The right to act for what is below one address.

    Attributes:
        holder: who has it now, as far as it was seen.
    """

    def __init__(self, place: str, seconds: float, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._place, self._lasts, self._clock = place, timedelta(seconds=seconds), clock
        self._name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.holder = ""

    def take(self) -> bool:
        """Take or renew it; False where another one holds it."""
        last, document = self._last()
        self.holder = str(document.get("holder", ""))
        if self.holder not in ("", self._name) and not self._free(document):
            return False
        return self._put(last + 1, self._clock() + self._lasts)

    def release(self) -> None:
        """Give it back, so that another one need not wait until it ends."""
        last, document = self._last()
        if document.get("holder") == self._name:
            self._put(last + 1, self._clock())

    def _free(self, document: dict[str, Any]) -> bool:
        """Whether its time is over, or its holder is a process of this machine that is gone."""
        if datetime.fromisoformat(document["until"]) <= self._clock():
            return True
        return bool(document["host"] == _host() and _start(document["pid"]) != document["process_started"])

    def _last(self) -> tuple[int, dict[str, Any]]:
        numbers = self._numbers()
        if not numbers:
            return 0, {}
        try:
            document: dict[str, Any] = json.loads(storage.read_bytes(self._address(numbers[-1])))
        except PlatformError as err:
            if err.code != "not_found":
                raise
            return self._last()  # its holder has just renewed it
        return numbers[-1], document

    def _put(self, number: int, until: datetime) -> bool:
        process = {"host": _host(), "pid": os.getpid(), "process_started": _start(os.getpid())}
        document = {"holder": self._name, "until": until.isoformat(), **process}
        if not storage.write_new(self._address(number), json.dumps(document).encode()):
            return False
        numbers = self._numbers()
        if numbers[-1] != number:  # others went on meanwhile, and took the numbers before theirs away
            storage.remove(self._address(number))
            return False
        for old in numbers[:-1]:
            storage.remove(self._address(old))
        self.holder = self._name
        return True

    def _numbers(self) -> list[int]:
        names = (name.removesuffix(".json") for name in storage.list_names(self._place))
        return sorted(int(name) for name in names if name.isdigit())

    def _address(self, number: int) -> str:
        return storage.join(self._place, f"{number:012d}.json")


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

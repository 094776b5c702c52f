"""Who looks after a run: who follows it leaves a sign in its record, and the keeper takes over where that stops."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
from types import TracebackType

from contracts.errors import PlatformError
from pipelines.io.record import read_followed, remove_followed, write_followed

HOLDS = 60.0
"""Seconds for which a sign holds: one that did not change for as long is of somebody who has gone."""

_BEAT = 15.0  # seconds between two signs


class Followed:
    """The sign of one follower at one run; a context in which it is renewed.

    Attributes:
        name: of the follower, no other one's.
    """

    def __init__(self, records: str, kfp_run: str, name: str = "") -> None:
        self.name = name or f"{socket.gethostname()}-{secrets.token_hex(4)}"
        self._where = (records, kfp_run)
        self._beats = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="followed", daemon=True)

    def __enter__(self) -> Followed:
        self.sign()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join(_BEAT)
        if self.mine():
            with contextlib.suppress(PlatformError):
                remove_followed(*self._where)

    def sign(self) -> None:
        """Say that this follower is there; a store that is away keeps nobody from following."""
        self._beats += 1
        with contextlib.suppress(PlatformError):
            write_followed(*self._where, {"by": self.name, "beat": self._beats})

    def mine(self) -> bool:
        """Whether nobody else has taken over; unknown is no."""
        try:
            return bool(read_followed(*self._where).get("by") == self.name)
        except PlatformError:
            return False

    def _renew(self) -> None:
        while not self._ended.wait(_BEAT) and not self._of_another():
            self.sign()

    def _of_another(self) -> bool:
        with contextlib.suppress(PlatformError):
            return str(read_followed(*self._where).get("by") or self.name) != self.name
        return False

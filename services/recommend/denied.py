"""The operator's deny list: items that are never listed, one a line, such as those that are out of stock."""

from __future__ import annotations

import logging
from pathlib import Path
from time import monotonic

from contracts.errors import PlatformError
from services.logs import log_event

_LOOK_AGAIN_SECONDS = 1.0


class DenyList:
    """The items of a file, which is read again when it changes; while it cannot be read, the last list holds.

    Raises:
        PlatformError: the file cannot be read at the start.
    """

    def __init__(self, file: str) -> None:
        self._file = Path(file)
        self._looked, self._stamp = monotonic(), self._stamped()
        self._items: list[str] | None = self._read()

    def changed(self) -> list[str] | None:
        """The items when they are others than at the last call; None when they are the same."""
        if monotonic() - self._looked >= _LOOK_AGAIN_SECONDS:
            self._look_again()
        items, self._items = self._items, None
        return items

    def _look_again(self) -> None:
        self._looked = monotonic()
        try:
            stamp = self._stamped()
            if stamp != self._stamp:
                self._items, self._stamp = self._read(), stamp
        except PlatformError as err:
            log_event("deny_list_failed", logging.ERROR, file=str(self._file), error=err.detail, fix=err.fix)

    def _stamped(self) -> tuple[int, int]:
        try:
            found = self._file.stat()
        except OSError as err:
            raise self._unreadable(err) from err
        return found.st_mtime_ns, found.st_size

    def _read(self) -> list[str]:
        try:
            text = self._file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as err:
            raise self._unreadable(err) from err
        return [line.strip() for line in text.splitlines() if line.strip()]

    def _unreadable(self, err: Exception) -> PlatformError:
        return PlatformError(
            f"the deny list cannot be read: {self._file}",
            detail=str(err),
            fix="give deny_file of the service a text file with an item a line, or leave it empty",
            code="bad_settings",
        )

"""What was found or made, kept for a while: pages show it at once, and new things come behind them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as waited
from pathlib import Path
from time import monotonic
from typing import Generic, TypeVar

from contracts import storage

Made = TypeVar("Made")
SOON = 0.05  # seconds that a page waits for something newer than what it has
REMOTE_SECONDS = 15.0  # for which a document in S3 is not asked for again
_OLDEST = 60.0  # seconds from which on something is too old to be shown meanwhile
_MOST = 5000
_POOL = ThreadPoolExecutor(32, thread_name_prefix="console")


class Fresh(Generic[Made]):
    """A value, or the error in its place, that is found again when it is some seconds old.

    Who asks waits for the first one. Later the last one is given while the next is found, unless it is a minute old.
    """

    def __init__(self, find: Callable[[], Made], seconds: float = 5.0) -> None:
        self._find, self._seconds = find, seconds
        self._lock = threading.Lock()
        self._last: Future[Made] | None = None
        self._next: Future[Made] | None = None
        self._at = 0.0

    def begin(self) -> None:
        """Find it if it is time to, and do not wait."""
        with self._lock:
            if self._next is not None or (self._last is not None and monotonic() - self._at < self._seconds):
                return
            self._next = coming = _POOL.submit(self._find)
        coming.add_done_callback(self._arrived)

    def _arrived(self, found: Future[Made]) -> None:
        with self._lock:
            self._last, self._next, self._at = found, None, monotonic()

    def get(self, until: float | None = None) -> Made:
        """The value; `until`: the moment to which something newer is waited for, of `monotonic`."""
        self.begin()
        with self._lock:
            last, coming, age = self._last, self._next, monotonic() - self._at
        if coming is None:
            assert last is not None
            return last.result()
        if last is None or age >= _OLDEST:
            return coming.result()
        waited([coming], timeout=SOON if until is None else max(0.0, until - monotonic()))
        return coming.result() if coming.done() else last.result()


class Kept(Generic[Made]):
    """Makes something of a document, such as a model's report, once for each of its forms."""

    def __init__(self, make: Callable[[str, str], Made]) -> None:
        self._make = make
        self._known: OrderedDict[tuple[str, str], tuple[object, Made]] = OrderedDict()
        self._remote: OrderedDict[tuple[str, str], Fresh[Made]] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, uri: str, word: str) -> None:
        """Ask for a document that is elsewhere, and do not wait."""
        if storage.is_remote(uri):
            self._fresh(uri, word).begin()

    def of(self, uri: str, word: str, until: float | None = None) -> Made:
        """What `make` says of the document at `uri` and of `word`; `until`: see `Fresh.get`."""
        if storage.is_remote(uri):
            return self._fresh(uri, word).get(until)
        stamp = stamp_of(uri)
        with self._lock:
            known = self._known.get((uri, word))
        if known is not None and known[0] == stamp:
            return known[1]
        made = self._make(uri, word)
        with self._lock:
            self._known[uri, word] = stamp, made
            while len(self._known) > _MOST:
                self._known.popitem(last=False)
        return made

    def _fresh(self, uri: str, word: str) -> Fresh[Made]:
        with self._lock:
            found = self._remote.setdefault((uri, word), Fresh(lambda: self._make(uri, word), REMOTE_SECONDS))
            while len(self._remote) > _MOST:
                self._remote.popitem(last=False)
        return found


def stamp_of(file: str) -> object:
    """Something that is another when a file has changed."""
    try:
        found = Path(file).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino

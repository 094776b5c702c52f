"""What was made of a document, kept until the document changes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Generic, TypeVar

from contracts import storage

Made = TypeVar("Made")
_REMOTE_SECONDS = 15.0  # for which a document in S3 is not asked for again
_MOST = 5000


class Kept(Generic[Made]):
    """Makes something of a document, such as a model's report, once for each of its forms."""

    def __init__(self, make: Callable[[str, str], Made]) -> None:
        self._make = make
        self._known: OrderedDict[tuple[str, str], tuple[object, Made]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, uri: str, word: str) -> Made:
        """What `make` says of the document at `uri` and of `word`."""
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


def stamp_of(uri: str) -> object:
    """Something that is another when a file has changed; of a document in S3, when some seconds have passed."""
    if storage.is_remote(uri):
        return int(monotonic() / _REMOTE_SECONDS)
    try:
        found = Path(uri).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino

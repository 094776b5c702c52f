"""Where rows come from: a path, object storage or a collection of documents; steps read files of this disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contracts import mongodb, storage

_ADDRESSES: dict[Path, str] = {}  # of the copies in S3 that are here now


def is_address(source: str) -> bool:
    """Whether `source` is no path of this disk.

    Raises:
        PlatformError: a scheme that nothing here can read, or an address that names no collection.
    """
    if mongodb.is_collection(source):
        mongodb.parse(source)
        return True
    return storage.is_remote(source)


@contextmanager
def source_here(
    source: str, step: str = "", keep: str = "", most: int = 0, about: dict[str, Any] | None = None
) -> Iterator[str]:
    """The path of a file or folder of rows; "" (built-in data) and local paths stay as they are.

    step: the one whose events say what is found on the way; "" says nothing.
    keep: an address where what was read of a collection that grows is kept for the next time.
    most: so many rows are enough, where not all have to be fetched; 0 is all.
    about: gets what a report says of the reading: of a collection, its ``moment``.
    """
    if not source or not is_address(source):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="fairlead-") as name:
        if mongodb.is_collection(source):
            from pipelines.data.collection import fetch

            yield str(fetch(mongodb.parse(source), Path(name), step, keep, most, about))
        else:
            here = storage.copy_here(source, Path(name)).absolute()
            _ADDRESSES[here] = source
            try:
                yield str(here)
            finally:
                del _ADDRESSES[here]


def address_of(path: Path) -> str:
    """Where a file or folder that `source_here` has copied came from; "" of what was on this disk."""
    return _ADDRESSES.get(path.absolute(), "")

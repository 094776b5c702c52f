"""Whether the rows of a source are others than before: files by name, size and time, and how many rows they have."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import PurePath

from contracts import storage
from contracts.errors import PlatformError
from contracts.storage import Listed
from services.controller.state import Source

_CHUNK = 2**20


def look_at_source(source: str, count_rows: bool) -> Source:
    """A source as it is now: a file or a folder, here or in S3. Of S3 names, sizes and marks are listed.

    Raises:
        PlatformError: ``code="bad_source"``: it is not there, or cannot be read; or the storage's own.
    """
    if not source:
        raise PlatformError(
            "new data cannot be seen at the built-in data",
            fix="name rows: --set loop.source=FOLDER, or s3://bucket/prefix",
            code="bad_source",
        )
    try:
        listed = sorted(storage.listing(source), key=lambda one: PurePath(one.uri))
        files = [one for one in listed if one.uri == source or PurePath(one.uri).name[0] not in "._"]
        if not files:
            raise PlatformError(f"no rows at {source}", fix="correct loop.source", code="bad_source")
        rows = sum(map(_rows, files)) if count_rows else None
    except OSError as err:
        raise PlatformError(
            f"the rows at {source} cannot be read", detail=str(err), fix="look at the folder", code="bad_source"
        ) from err
    stats = [(one.uri, one.size, int(one.mark) if one.mark.isdigit() else one.mark) for one in files]
    return Source(fingerprint=hashlib.sha256(repr(stats).encode()).hexdigest(), rows=rows)


@lru_cache(maxsize=10_000)
def _rows(file: Listed) -> int:
    """Rows of a Parquet file, whose end says it, lines of another one; files that have not changed are read once."""
    with storage.open_parts(file.uri) as parts:
        if file.uri.endswith((".parquet", ".pq")):
            import pyarrow.parquet as pq
            from pyarrow.lib import ArrowInvalid

            try:
                return int(pq.read_metadata(parts).num_rows)
            except ArrowInvalid:  # it is being written
                return 0
        return sum(chunk.count(b"\n") for chunk in iter(lambda: parts.read(_CHUNK), b""))

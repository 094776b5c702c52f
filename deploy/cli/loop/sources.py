"""Whether the rows of a source are others than before: files by name, size and time, and how many rows they have."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from contracts.errors import PlatformError
from contracts.storage import is_remote
from services.controller.state import Source

_CHUNK = 2**20


def look_at_source(source: str, count_rows: bool) -> Source:
    """A source as it is now.

    Raises:
        PlatformError: ``code="bad_source"``: it is not there, or not on this machine.
    """
    if not source or is_remote(source):
        raise PlatformError(
            f"new data cannot be seen at {source or 'the built-in data'}",
            fix="name rows on this machine: --set loop.source=FOLDER",
            code="bad_source",
        )
    root = Path(source)
    files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file() and p.name[0] not in "._")
    if not files:
        raise PlatformError(f"no rows at {source}", fix="correct loop.source", code="bad_source")
    try:
        stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        rows = sum(_rows(*stat) for stat in stats) if count_rows else None
    except OSError as err:
        raise PlatformError(
            f"the rows at {source} cannot be read", detail=str(err), fix="look at the folder", code="bad_source"
        ) from err
    return Source(fingerprint=hashlib.sha256(repr(stats).encode()).hexdigest(), rows=rows)


@lru_cache(maxsize=10_000)
def _rows(file: str, size: int, changed: int) -> int:
    """Rows of a Parquet file, lines of another one; files that have not changed are read once."""
    if file.endswith((".parquet", ".pq")):
        import pyarrow.parquet as pq
        from pyarrow.lib import ArrowInvalid

        try:
            return int(pq.read_metadata(file).num_rows)
        except ArrowInvalid:  # it is being written
            return 0
    with open(file, "rb") as lines:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: lines.read(_CHUNK), b""))

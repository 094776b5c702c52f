"""What a step needs on its own disk, when it is kept in S3: steps of one run share no disk on a cluster."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contracts import objects


@contextmanager
def folder_here(uri: str, last: str) -> Iterator[Path]:
    """The folder `uri` itself, or a copy that is gone afterwards when it is in S3.

    `last` is the file whose presence means that the folder is complete.
    """
    if not objects.is_remote(uri):
        yield Path(uri)
        return
    with tempfile.TemporaryDirectory(prefix="fairlead-") as name:
        yield objects.download(uri, Path(name) / "copy", last=last)


@contextmanager
def source_here(source: str) -> Iterator[str]:
    """The path of a file or folder of rows; "" (built-in data) and local paths stay as they are."""
    if not source or not objects.is_remote(source):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="fairlead-") as name:
        yield str(objects.copy_here(source, Path(name)))

"""What a step needs on its own disk, when it is kept in S3: steps of one run share no disk on a cluster."""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contracts import storage
from contracts.errors import PlatformError

_LOG = logging.getLogger(__name__)
_COPY_SECONDS = 5.0


@contextmanager
def folder_here(uri: str, last: str) -> Iterator[Path]:
    """The folder `uri` itself, or a copy that is gone afterwards when it is in S3.

    `last` is the file whose presence means that the folder is complete.
    """
    if not storage.is_remote(uri):
        yield Path(uri)
        return
    with tempfile.TemporaryDirectory(prefix="fairlead-") as name:
        yield storage.download(uri, Path(name) / "copy", last=last)


@contextmanager
def folder_kept(uri: str) -> Iterator[str]:
    """A folder that outlives this machine: `uri` itself, or one that begins with what is in S3 and is copied back.

    Every few seconds what has changed is copied. Files must be replaced whole, as checkpoints are; those whose names
    begin with a dot are left out. What S3 does not take is tried again the next time, and never ends the work.
    """
    if not storage.is_remote(uri):
        yield uri
        return
    with tempfile.TemporaryDirectory(prefix="fairlead-") as name:
        folder = Path(name) / "kept"
        folder.mkdir()
        if storage.list_names(uri):
            storage.copy_here(uri, folder)
        copied = _stamps(folder)
        over = threading.Event()

        def follow() -> None:
            while not over.wait(_COPY_SECONDS):
                _copy_back(folder, uri, copied)

        thread = threading.Thread(target=follow, name="checkpoints", daemon=True)
        thread.start()
        try:
            yield str(folder)
        finally:
            over.set()
            thread.join()
            _copy_back(folder, uri, copied)


def _stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Time and size of every file, by its name below `folder`."""
    found = {}
    for file in folder.rglob("*"):
        if file.is_file() and not file.name.startswith("."):
            stat = file.stat()
            found[file.relative_to(folder).as_posix()] = (stat.st_mtime_ns, stat.st_size)
    return found


def _copy_back(folder: Path, uri: str, copied: dict[str, tuple[int, int]]) -> None:
    """Make what is at `uri` like `folder`; `copied` says what is there already, and is brought up to date."""
    try:
        now = _stamps(folder)
        for name, stamp in now.items():
            if copied.get(name) != stamp:
                storage.write_bytes(storage.join(uri, name), (folder / name).read_bytes())
                copied[name] = stamp
        for name in set(copied) - set(now):
            storage.remove(storage.join(uri, name))
            del copied[name]
    except (OSError, PlatformError) as err:  # a file that goes away while one looks, or a storage that is down
        _LOG.warning("checkpoints were not copied to %s: %s", uri, err)

"""The cache of steps that share a task: what a step made, in the store, found again by what decides it.

``{data}/.steps/{step}/{key}/`` has the step's output below a name of its own, and ``result.json``, which is written
last and says which: an upload that was broken off is not seen, and two runs that make the same at once do not mix.
The key of a step is a digest of its arguments, in which the files of earlier steps are named by their keys; so what
changes an input changes the keys of exactly the steps behind it. In a folder, entries that no run has used for
`KEPT_DAYS` are deleted when the next run begins; in S3 a lifecycle rule may do it, since an entry of which a part is
gone is no entry.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts import storage
from contracts.errors import PlatformError
from pipelines.io.files import clean_numbers, missing, write_json

FOLDER = ".steps"
KEPT_DAYS = 30
OUT = "out"
_FILES = "files.json"
_RESULT = "result.json"
_MAKING, _LOCK = ".making-", ".lock"
_FORMAT = 1  # raise when the same key would mean something else


@dataclass(frozen=True)
class Entry:
    """What a step made: the `address` of its output (a file or folder), and its result."""

    address: str
    result: Any


def step_key(step: str, given: Mapping[str, Any]) -> str:
    """The key of `step` with these arguments; files are given as their keys."""
    document = json.dumps([_FORMAT, step, given], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(document.encode()).hexdigest()[:32]


class StepCache:
    """The entries below one address, a folder or ``s3://``."""

    def __init__(self, root: str) -> None:
        self.root = root

    def find(self, step: str, key: str) -> Entry | None:
        """The entry, or None where there is none, its upload was broken off, or a part of it is gone."""
        place = storage.join(self.root, step, key)
        try:
            document = json.loads(storage.read_bytes(storage.join(place, _RESULT)))
            found = Entry(storage.join(place, document["at"]), document["result"])
            files = json.loads(storage.read_bytes(storage.join(found.address, _FILES)))
            if not all(storage.exists(storage.join(found.address, name)) for name in files):
                return None
            if not storage.is_remote(place):
                os.utime(Path(place) / _RESULT)  # it is used
            return found
        except PlatformError as err:
            if err.code == "not_found":
                return None
            raise
        except (ValueError, KeyError, TypeError):
            return None

    def address(self, step: str, key: str) -> str:
        """Where what the step is about to make will be kept, in ``out`` below it."""
        return storage.join(self.root, step, key, secrets.token_hex(4))

    def keep(self, address: str, folder: Path, result: Any) -> Entry:
        """Make what a step made known by its key: ``out`` in `folder`, which is moved to `address`, or uploaded."""
        place, _, name = address.rpartition("/")
        files = {p.relative_to(folder).as_posix(): p.stat().st_size for p in folder.rglob("*") if p.is_file()}
        write_json(folder / _FILES, files)
        if storage.is_remote(place):
            storage.upload(folder, address, last=_FILES)
        else:
            Path(place).mkdir(parents=True, exist_ok=True)
            shutil.move(folder, address)
        document = {"at": name, "result": clean_numbers(result)}
        storage.write_bytes(storage.join(place, _RESULT), json.dumps(document, default=str).encode())
        return Entry(address, document["result"])

    def leave(self, address: str, folder: Path) -> None:
        """Keep what a step that failed says of its input, where it said that it would be: its reports, and no rows."""
        for file in (folder / OUT).glob("*"):
            if file.suffix in (".csv", ".json"):
                storage.write_bytes(storage.join(address, OUT, file.name), file.read_bytes())

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder for what steps are making: beside the entries, so that they can be moved, or on this disk for S3.

        What a process left that was killed goes when the next one begins.
        """
        if storage.is_remote(self.root):
            with tempfile.TemporaryDirectory(prefix="fairlead-steps-") as name:
                yield Path(name)
            return
        root = Path(self.root)
        root.mkdir(parents=True, exist_ok=True)
        with (root / _LOCK).open("a") as one:
            fcntl.flock(one, fcntl.LOCK_EX)  # a folder is made and claimed at once
            _sweep(root)
            _forget(root)
            folder = Path(tempfile.mkdtemp(prefix=_MAKING, dir=root))
            held = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR)
            fcntl.flock(held, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            os.close(held)
            shutil.rmtree(folder, ignore_errors=True)


def _sweep(root: Path) -> None:
    """Delete the folders of processes that are gone."""
    for folder in root.glob(f"{_MAKING}*"):
        try:
            with (folder / _LOCK).open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        shutil.rmtree(folder, ignore_errors=True)


def _forget(root: Path) -> None:
    """Delete the entries that were not used for long; without its result an entry is found no more."""
    for entry in root.glob("*/*/"):
        with contextlib.suppress(OSError):
            used = max(path.stat().st_mtime for path in (entry, entry / _RESULT) if path.exists())
            if time.time() - used > KEPT_DAYS * 86_400:
                (entry / _RESULT).unlink(missing_ok=True)
                shutil.rmtree(entry, ignore_errors=True)


def fetch(address: str, folder: Path) -> Path:
    """What a step made, by the address of its entry: where it is, or a copy in `folder` when it is in S3.

    Raises:
        PlatformError: ``code="missing_artifact"``: somebody deleted it, or a part of it.
    """
    try:
        here = storage.download(address, folder, last=_FILES) if storage.is_remote(address) else Path(address)
    except PlatformError as err:
        raise (missing(address) if err.code == "not_found" else err) from err
    try:
        files = json.loads((here / _FILES).read_text(encoding="utf-8"))
        lost = [name for name, size in files.items() if (here / name).stat().st_size != size]
    except (OSError, ValueError) as err:
        raise missing(address) from err
    if lost:
        raise missing(storage.join(address, lost[0]))
    return here / OUT

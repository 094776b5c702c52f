"""The cache of steps that share a task: what a step made, in the store, found again by what decides it.

``{data}/.steps/{step}/{key}/`` has the step's output below a name of its own, and ``result.json``, which is written
last and says which: an upload that was broken off is not seen, and two runs that make the same at once do not mix.
The key of a step is a digest of its arguments, in which the files of earlier steps are named by their keys; so what
changes an input changes the keys of exactly the steps behind it.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts import storage
from contracts.errors import PlatformError
from pipelines.io.files import clean_numbers, missing, write_json

FOLDER = ".steps"
OUT = "out"
_FILES = "files.json"
_RESULT = "result.json"
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
            return found if all(storage.exists(storage.join(found.address, name)) for name in files) else None
        except PlatformError as err:
            if err.code == "not_found":
                return None
            raise
        except (ValueError, KeyError, TypeError):
            return None

    def keep(self, step: str, key: str, folder: Path, result: Any) -> Entry:
        """Upload `folder`, in which ``out`` is what the step made, and make it known by `key`."""
        place, name = storage.join(self.root, step, key), secrets.token_hex(4)
        files = {p.relative_to(folder).as_posix(): p.stat().st_size for p in folder.rglob("*") if p.is_file()}
        write_json(folder / _FILES, files)
        storage.upload(folder, storage.join(place, name), last=_FILES)
        document = {"at": name, "result": clean_numbers(result)}
        storage.write_bytes(storage.join(place, _RESULT), json.dumps(document, default=str).encode())
        return Entry(storage.join(place, name), document["result"])


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

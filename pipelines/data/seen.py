"""Which rows a model has learned from: hashes of them travel in its bundle, so that no comparison uses these rows.

``seen.bin`` is a sequence of unsigned numbers of 8 bytes, little-endian: first a bound, then the hashes of the rows'
keys, rising. All hashes up to the bound are there. Of more rows than `LIMIT` the lowest hashes are kept, and the bound
falls; so the file has at most 8 MiB, and of a share of all rows it is still known for sure whether they were seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.stores.keys import RefusedKeyError, canonical_text
from pipelines.data.columns import NUMBERED
from pipelines.io.files import missing

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.task import Task

FILE = "seen.bin"
LIMIT = 2**20
Hashes = NDArray[np.uint64]
_EVERYTHING = 2**64 - 1


def row_hashes(keys: Iterable[str]) -> Hashes:
    """A number of 64 bits for each key."""
    digests = (hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest() for key in keys)
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def digest(keys: Iterable[str]) -> str:
    """What these rows are, in whatever order: equal for the same rows."""
    return hashlib.sha256(np.sort(row_hashes(keys)).astype("<u8").tobytes()).hexdigest()


def row_keys(rows: pd.DataFrame, frame: pd.DataFrame, task: Task, numbered: bool) -> list[str]:
    """What each of `rows` is known by: ``row_key`` where the task gives it, else the id in its one form.

    An id that is the row's number says nothing about another file: its row is known by its other values in `frame`,
    but for the label, which may be corrected.
    """
    if "row_key" in rows.columns:
        return [str(key) for key in rows["row_key"]]
    if not numbered:
        return [_canonical(value) for value in rows["id"]]
    others = [column.name for column in task.columns if column.name not in (task.id, task.label)]
    contents = ("\x1f".join(map(str, values)) for values in frame[others].itertuples(index=False, name=None))
    content_of = dict(zip(frame[task.id].astype(str), contents, strict=True))
    return [content_of.get(str(value), str(value)) for value in rows["id"]]


def is_numbered(task: Task, columns: Mapping[str, str]) -> bool:
    """Whether the ids are numbers of rows; `columns` is the mapping of DataConfig."""
    return columns.get(task.id) == NUMBERED


def _canonical(value: Any) -> str:
    try:
        return canonical_text(value)
    except RefusedKeyError:
        return str(value)


@dataclass(frozen=True)
class Seen:
    """The rows that a model has learned from: of hashes up to `bound`, exactly `hashes` (rising)."""

    bound: int
    hashes: Hashes

    @classmethod
    def of(cls, hashes: Hashes, bound: int = _EVERYTHING, limit: int = LIMIT) -> Seen:
        """What is kept of these rows."""
        each = np.unique(hashes)
        each = each[each <= np.uint64(bound)]
        if len(each) > limit:
            each = each[:limit]
            bound = int(each[-1])
        return cls(bound, each)

    @classmethod
    def unknown(cls) -> Seen:
        """Of a model that does not tell what it has seen."""
        return cls(0, np.zeros(0, dtype=np.uint64))

    @property
    def known(self) -> bool:
        """Whether anything can be told."""
        return self.bound > 0

    def tells(self, hashes: Hashes) -> NDArray[np.bool_]:
        """For which rows it is known whether they were seen."""
        return hashes <= np.uint64(self.bound)

    def has(self, hashes: Hashes) -> NDArray[np.bool_]:
        """Which rows were seen; of those that it tells nothing about, none."""
        if not len(self.hashes):
            return np.zeros(len(hashes), dtype=np.bool_)
        at = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        found: NDArray[np.bool_] = self.hashes[at] == hashes
        return found

    def with_those_of(self, other: Seen, limit: int = LIMIT) -> Seen:
        """Rows of either."""
        return Seen.of(np.concatenate([self.hashes, other.hashes]), min(self.bound, other.bound), limit)

    def write(self, folder: Path) -> None:
        """Write ``seen.bin``: the same rows give the same bytes, whatever their order."""
        numbers = np.concatenate([np.array([self.bound], dtype="<u8"), self.hashes.astype("<u8")])
        (folder / FILE).write_bytes(numbers.tobytes())


def read_seen(folder: Path) -> Seen:
    """What ``seen.bin`` in `folder` says; `Seen.unknown` where it is not there, as in bundles of before.

    Raises:
        PlatformError: ``code="missing_artifact"`` when it is damaged.
    """
    file = folder / FILE
    if not file.exists():
        return Seen.unknown()
    content = file.read_bytes()
    if not content or len(content) % 8:
        raise missing(file)
    numbers = np.frombuffer(content, dtype="<u8").astype(np.uint64)
    return Seen(int(numbers[0]), numbers[1:])


def carry(dataset: Path, model: Path, candidate: Path) -> None:
    """Give a candidate what it has seen: the training and validation rows, and those of a model that it was taken from.

    A task that takes a model from elsewhere leaves that model's ``seen.bin`` (see `keep_of`) in its folder.
    """
    seen = read_seen(dataset)
    if (model / FILE).exists():
        seen = seen.with_those_of(read_seen(model))
    seen.write(candidate)


def keep_of(bundle: Path, model: Path) -> None:
    """Note in a new model's folder what the model of a bundle, which it is made from, has seen."""
    read_seen(bundle).write(model)

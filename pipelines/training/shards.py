"""Training images streamed from Parquet shards, local or in S3: decoded and changed at random in worker processes.

An epoch is a fixed sequence of its seed and number, whatever the number of workers: row groups of all shards in random
order, as many at a time as make a window, whose rows are mixed. It can be begun anywhere, and is then the rest of the
same sequence, to the bit; of what lies before nothing is fetched or decoded.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from pydantic import Field
from pydantic.dataclasses import dataclass as settings

from contracts import storage
from contracts.engine import MAX_PIXELS
from contracts.images import ImageSpec, read_pixels
from pipelines.task import STRICT
from pipelines.training.pictures import AugmentConfig, drawn_changes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_OPEN = 8  # shards whose footer a worker keeps
_AHEAD = 2  # windows a worker, that are made before they are asked for

Share = Callable[[int, int, int], "NDArray[np.int64]"]  # epoch, batch and its rows -> those that are wanted, rising


@settings(frozen=True, kw_only=True, config=STRICT)
class LoaderConfig:
    """How training images reach the loop.

    workers: processes that fetch, decode and change them; 0: all are decoded once, and changed by the training process.
    window: rows that are mixed with one another; a worker holds the pixels of one window, and files of a row group.
    """

    workers: Annotated[int, Field(ge=0, le=256)] = 0
    window: Annotated[int, Field(ge=16, le=1_000_000)] = 2048


@dataclass(frozen=True)
class _Group:
    shard: str
    number: int
    rows: int


@dataclass(frozen=True)
class _Work:
    """A window: its row groups, what the order of their rows and the changes are drawn from, and which of its places
    are decoded."""

    groups: tuple[_Group, ...]
    seed: tuple[int, ...]
    column: str
    reader: Reader
    places: NDArray[np.int64]


class Reader(Protocol):
    """What rows become; it is sent to the workers."""

    @property
    def spec(self) -> ImageSpec:
        """How a file becomes pixels."""
        ...

    def read(self, file: bytes, label: str, wanted: bool) -> tuple[NDArray[np.uint8] | None, Any]:
        """The pixels of a file, if they are wanted, and what is learned of its label."""
        ...

    def changed(
        self, pixels: NDArray[np.uint8], labels: Sequence[Any], places: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        """Images and labels as they are learned; `labels` are those of all rows, `pixels` those of rows `places`."""
        ...


@dataclass(frozen=True)
class ClassReader:
    """Images of a class: labels become its number among `classes`."""

    spec: ImageSpec
    classes: Sequence[str]
    augment: AugmentConfig

    @cached_property
    def _numbers(self) -> Mapping[str, int]:
        return {name: at for at, name in enumerate(self.classes)}

    def read(self, file: bytes, label: str, wanted: bool) -> tuple[NDArray[np.uint8] | None, int]:
        """See `Reader`."""
        return read_pixels(file, self.spec, MAX_PIXELS)[0] if wanted else None, self._numbers[label]

    def changed(
        self, pixels: NDArray[np.uint8], labels: Sequence[int], places: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """See `Reader`."""
        import numpy as np

        changes = drawn_changes((len(labels), *pixels.shape[1:]), self.augment, rng)
        return changes.made(pixels, places), np.array(labels, np.int64)


class ShardLoader:
    """Batches of the images in Parquet files with a column of files and one called ``label``.

    Args:
        shards: paths or ``s3://...``.  column: of the files.  reader: what rows become.
        size: rows of a batch; the last one of an epoch may have fewer, but two at least.

    Attributes:
        rows: of all shards.
    """

    def __init__(
        self,
        shards: Sequence[str],
        column: str,
        reader: Reader,
        *,
        size: int,
        seed: int,
        config: LoaderConfig,
    ) -> None:
        self._groups = [group for shard in shards for group in _groups_of(shard)]
        self.rows = sum(group.rows for group in self._groups)
        self._size, self._seed, self._config = size, seed, config
        self._column, self._reader = column, reader
        self._pool: ProcessPoolExecutor | None = None

    @classmethod
    def of_part(
        cls, part: Path, column: str, reader: Reader, *, size: int, seed: int, config: LoaderConfig
    ) -> ShardLoader:
        """The same of a part of a data set."""
        from pipelines.data.file_rows import shards_of

        return cls([str(shard) for shard in shards_of(part)], column, reader, size=size, seed=seed, config=config)

    def __len__(self) -> int:
        """Batches of an epoch."""
        full, rest = divmod(self.rows, self._size)
        return max(1, full + (rest > 1))

    @contextmanager
    def running(self) -> Iterator[ShardLoader]:
        """The worker processes, for as long as batches are asked for."""
        if not self._config.workers:
            yield self
            return
        # Spawned: a fork of a process whose libraries have threads may hang.
        with ProcessPoolExecutor(self._config.workers, get_context("spawn")) as pool:
            self._pool = pool
            try:
                yield self
            finally:
                self._pool = None
                pool.shutdown(cancel_futures=True)

    def epoch(
        self, number: int, start: int = 0, share: Share | None = None
    ) -> Iterator[tuple[NDArray[np.uint8], NDArray[Any]]]:
        """Pixels, shape (rows, height, width, channels), and labels of each batch from number `start` on.

        share: says which rows of a batch are decoded and changed, so that processes which train together do so once;
        the labels are those of the whole batch.
        """
        import numpy as np

        at, last = start, len(self) - 1
        works = self._plan(number, start, share) if at <= last else deque[_Work]()
        pixels: list[Any] = []
        labels: list[Any] = []
        skipped = start * self._size - (self.rows - sum(one.rows for work in works for one in work.groups))
        for found, known in self._made(works):
            pixels.append(found)
            labels.append(known[skipped:])
            skipped = 0
            if sum(map(len, labels)) < self._rows_of(at):
                continue
            some, names = np.concatenate(pixels), np.concatenate(labels)
            while at <= last and len(names) >= (count := self._rows_of(at)):
                wanted = count if share is None else len(share(number, at, count))
                yield some[:wanted], names[:count]
                some, names, at = some[wanted:], names[count:], at + 1
            pixels, labels = [some], [names]

    def _rows_of(self, batch: int) -> int:
        """The last one takes a single row that would be left over."""
        return self._size if batch < len(self) - 1 else self.rows - batch * self._size

    def _plan(self, number: int, start: int, share: Share | None) -> deque[_Work]:
        """The windows of an epoch that are not over when batch `start` begins."""
        import numpy as np

        order = np.random.default_rng([self._seed, number]).permutation(len(self._groups))
        works: deque[_Work] = deque()
        some: list[_Group] = []
        first = windows = 0
        for place, at in enumerate(order):
            some.append(self._groups[at])
            if (rows := sum(one.rows for one in some)) >= self._config.window or place + 1 == len(order):
                if first + rows > start * self._size:
                    seed, places = (self._seed, number, windows), self._places(number, first, rows, start, share)
                    works.append(_Work(tuple(some), seed, self._column, self._reader, places))
                some, first, windows = [], first + rows, windows + 1
        return works

    def _places(self, number: int, first: int, rows: int, start: int, share: Share | None) -> NDArray[np.int64]:
        """Which places of a window are decoded; `first` is that of its first row within the epoch."""
        import numpy as np

        if share is None:
            return np.arange(max(0, start * self._size - first), rows)
        last = len(self) - 1
        batches = range(max(start, min(first // self._size, last)), min((first + rows - 1) // self._size, last) + 1)
        wanted = [at * self._size + share(number, at, self._rows_of(at)) for at in batches]
        found = np.concatenate(wanted) - first
        places: NDArray[np.int64] = found[(found >= 0) & (found < rows)]
        return places

    def _made(self, works: deque[_Work]) -> Iterator[tuple[Any, Any]]:
        """The windows in their order; some are made ahead."""
        if self._pool is None:
            yield from map(_window, works)
            return
        ahead: deque[Future[tuple[Any, Any]]] = deque()
        for work in works:
            ahead.append(self._pool.submit(_window, work))
            if len(ahead) > _AHEAD * self._config.workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


_files: OrderedDict[str, Any] = OrderedDict()  # of this process, those read last


def _open(shard: str) -> Any:
    from pyarrow import parquet

    if shard not in _files:
        while len(_files) >= _OPEN:
            _files.popitem(last=False)
        _files[shard] = parquet.ParquetFile(storage.open_parts(shard))
    _files.move_to_end(shard)
    return _files[shard]


def _groups_of(shard: str) -> list[_Group]:
    about = _open(shard).metadata
    return [_Group(shard, at, about.row_group(at).num_rows) for at in range(about.num_row_groups)]


def _window(work: _Work) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """The rows of a window, mixed: those at its places decoded and changed, and the labels of all."""
    import numpy as np

    rows, spec = sum(group.rows for group in work.groups), work.reader.spec
    rng = np.random.default_rng(work.seed)
    place = np.argsort(rng.permutation(rows))  # of each row, where it comes
    wanted = np.full(rows, -1)
    wanted[work.places] = np.arange(len(work.places))
    pixels = np.empty((len(work.places), spec.height, spec.width, len(spec.mode)), np.uint8)
    labels, row = [None] * rows, 0
    for group in work.groups:  # of files, those of one group are held
        table = _open(group.shard).read_row_group(group.number, columns=[work.column, "label"])
        for file, label in zip(table.column(work.column), table.column("label"), strict=True):
            at = wanted[place[row]]
            found, labels[place[row]] = work.reader.read(file.as_py(), label.as_py(), at >= 0)
            if found is not None:
                pixels[at] = found
            row += 1
    return work.reader.changed(pixels, labels, work.places, rng)

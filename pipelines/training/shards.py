"""Training images streamed from Parquet shards, local or in S3: decoded and changed at random in worker processes.

An epoch is a fixed sequence of its seed and number, whatever the number of workers: row groups of all shards in random
order, as many at a time as make a window, whose rows are mixed. It can be begun anywhere, and is then the rest of the
same sequence, to the bit; of what lies before nothing is fetched or decoded.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import Field
from pydantic.dataclasses import dataclass as settings

from contracts import storage
from contracts.engine import MAX_PIXELS
from contracts.images import ImageSpec, read_pixels
from pipelines.task import STRICT
from pipelines.training.pictures import AugmentConfig, augmented

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_OPEN = 8  # shards whose footer a worker keeps
_AHEAD = 2  # windows a worker, that are made before they are asked for


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
    """A window: its row groups, the order of their rows, and what the changes are drawn from."""

    groups: tuple[_Group, ...]
    seed: tuple[int, ...]
    column: str
    spec: ImageSpec
    classes: tuple[str, ...]
    augment: AugmentConfig


class ShardLoader:
    """Batches of the images in Parquet files with a column of files and one called ``label``.

    Args:
        shards: paths or ``s3://...``.  column: of the files.  spec: how a file becomes pixels.
        size: rows of a batch; the last one of an epoch may have fewer, but two at least.

    Attributes:
        rows: of all shards.
    """

    def __init__(
        self,
        shards: Sequence[str],
        column: str,
        spec: ImageSpec,
        classes: Sequence[str],
        *,
        size: int,
        seed: int,
        augment: AugmentConfig,
        config: LoaderConfig,
    ) -> None:
        self._groups = [group for shard in shards for group in _groups_of(shard)]
        self.rows = sum(group.rows for group in self._groups)
        self._size, self._seed, self._config = size, seed, config
        self._column, self._spec, self._classes, self._augment = column, spec, tuple(classes), augment
        self._pool: ProcessPoolExecutor | None = None

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

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        """Pixels, shape (rows, height, width, channels), and class numbers of each batch from number `start` on."""
        import numpy as np

        works, skipped = self._plan(number), start * self._size
        while works and (rows := sum(one.rows for one in works[0].groups)) <= skipped:
            skipped -= rows
            works.popleft()
        pixels: list[Any] = []
        labels: list[Any] = []
        held, left = 0, len(self) - start
        for found, known in self._made(works):
            pixels.append(found[skipped:])
            labels.append(known[skipped:])
            held, skipped = held + len(known) - skipped, 0
            if held < self._size:
                continue
            some, names = np.concatenate(pixels), np.concatenate(labels)
            at = 0
            while left > 1 and held - at >= self._size:
                yield some[at : at + self._size], names[at : at + self._size]
                at, left = at + self._size, left - 1
            pixels, labels, held = [some[at:]], [names[at:]], held - at
        if left and held:  # the last one takes a single row that would be left over
            yield np.concatenate(pixels), np.concatenate(labels)

    def _plan(self, number: int) -> deque[_Work]:
        import numpy as np

        order = np.random.default_rng([self._seed, number]).permutation(len(self._groups))
        works: deque[_Work] = deque()
        some: list[_Group] = []
        for place, at in enumerate(order):
            some.append(self._groups[at])
            if sum(one.rows for one in some) >= self._config.window or place + 1 == len(order):
                seed = (self._seed, number, len(works))
                works.append(_Work(tuple(some), seed, self._column, self._spec, self._classes, self._augment))
                some = []
        return works

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


def _window(work: _Work) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The rows of a window, mixed, decoded and changed."""
    import numpy as np

    numbers = {name: at for at, name in enumerate(work.classes)}
    rows, spec = sum(group.rows for group in work.groups), work.spec
    rng = np.random.default_rng(work.seed)
    place = np.argsort(rng.permutation(rows))  # of each row, where it comes
    pixels = np.empty((rows, spec.height, spec.width, len(spec.mode)), np.uint8)
    labels, row = np.empty(rows, np.int64), 0
    for group in work.groups:  # of files, those of one group are held
        table = _open(group.shard).read_row_group(group.number, columns=[work.column, "label"])
        for file, label in zip(table.column(work.column), table.column("label"), strict=True):
            pixels[place[row]] = read_pixels(cast("bytes", file.as_py()), spec, MAX_PIXELS)[0]
            labels[place[row]] = numbers[label.as_py()]
            row += 1
    return augmented(pixels, work.augment, rng), labels

"""Rows with files, such as images, of a data set that may be larger than memory: the files stay on disk.

In memory a file is its number, which a split moves about as it does any value. A part of a data set whose task has
files is a folder of its name (``train.parquet/``) with shards of bounded size, ``part-00000.parquet`` and so on, whose
row groups are bounded too: readers take one at a time. Where a whole part fits, ``pandas.read_parquet`` reads it.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.io.files import missing

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray

_GROUP_ROWS, _GROUP_BYTES = 512, 8 << 20
_SHARD_BYTES = 128 << 20
_PARTS = "part-*.parquet"


class FileRows:
    """The rows of Parquet files, in order, of which `column` holds files; "": of which none does.

    Memory is that of the other columns, of the files of one Parquet file, and of one row group that is written.
    """

    def __init__(self, sources: Sequence[Path], column: str) -> None:
        self._sources, self._column = list(sources), column
        self._starts: list[int] = []  # the number of the first row of each source
        self._sizes: NDArray[np.int64] | None = None  # of each file, in bytes
        self._held: tuple[int, pa.Array] | None = None  # the files of the source that was read last

    @classmethod
    def of_folder(cls, folder: Path, column: str = "") -> FileRows:
        """The rows of the parts that a step left in a folder.

        Raises:
            PlatformError: ``code="missing_artifact"``: there are none.
        """
        found = sorted(folder.glob(_PARTS))
        if not found:
            raise missing(folder / "part-00000.parquet")
        return cls(found, column)

    def frame(self) -> pd.DataFrame:
        """All rows; in the place of each file its number, from 0 on."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc
        from pyarrow import parquet

        tables, sizes, rows = [], [], 0
        for source in self._sources:
            table = parquet.read_table(source)
            self._starts.append(rows)
            rows += table.num_rows
            if self._column:
                at = table.column_names.index(self._column)
                sizes.append(pc.fill_null(pc.binary_length(table.column(at)), 0).to_numpy())
                numbers = pa.array(np.arange(rows - table.num_rows, rows))
                table = table.set_column(at, self._column, numbers)
            tables.append(table)
        if self._column:
            self._sizes = np.concatenate(sizes).astype(np.int64)
        frame: pd.DataFrame = pa.concat_tables(tables).to_pandas()
        return frame

    def write(self, rows: pd.DataFrame, target: Path) -> None:
        """Write rows with their files; what is at `target` goes.

        `rows` whose column has files themselves, not numbers, are written alike; without the column, as one file.
        """
        if target.is_dir():
            shutil.rmtree(target)
        if not self._column or self._column not in rows:
            rows.to_parquet(target, index=False)
            return
        import pandas as pd
        import pyarrow as pa

        target.mkdir(parents=True)
        schema = pa.Schema.from_pandas(rows.assign(**{self._column: b""}), preserve_index=False)
        shards = _Shards(target, schema)
        try:
            for start, end in self._groups(rows[self._column]):
                group = rows.iloc[start:end]
                held = pd.Series(self._files(group[self._column]), index=group.index, dtype=object)
                whole = group.assign(**{self._column: held})
                shards.add(pa.Table.from_pandas(whole, schema, preserve_index=False))
        finally:
            shards.close()

    def digests(self, numbers: pd.Series[Any]) -> list[str]:
        """A hash of each of the files with these numbers."""
        found: list[str] = []
        for start, end in self._groups(numbers):
            files = self._files(numbers.iloc[start:end])
            found += [hashlib.blake2b(file or b"", digest_size=16).hexdigest() for file in files]
        return found

    def _groups(self, files: pd.Series[Any]) -> Iterator[tuple[int, int]]:
        """First and last place of runs of bounded size."""
        import numpy as np

        sizes = (
            np.array([len(file or b"") for file in files], np.int64)
            if files.dtype == object or self._sizes is None
            else self._sizes[files.to_numpy()]
        )
        ends = np.cumsum(sizes)
        start = 0
        while start < len(sizes):
            before = ends[start] - sizes[start]
            within = int(np.searchsorted(ends, before + _GROUP_BYTES, "right"))
            end = max(start + 1, min(start + _GROUP_ROWS, within))
            yield start, end
            start = end

    def _files(self, files: pd.Series[Any]) -> list[bytes | None]:
        """Files by their numbers; of files themselves, these."""
        import numpy as np
        from pyarrow import parquet

        if files.dtype == object:
            return list(files)
        numbers = files.to_numpy()
        found: list[bytes | None] = [None] * len(numbers)
        sources = np.searchsorted(self._starts, numbers, "right") - 1
        for source in np.unique(sources):
            if self._held is None or self._held[0] != source:
                self._held = None  # two are never held
                table = parquet.read_table(self._sources[source], columns=[self._column])
                self._held = int(source), table.column(0).combine_chunks()
            for place in np.flatnonzero(sources == source):
                found[place] = self._held[1][int(numbers[place]) - self._starts[source]].as_py()
        return found


class StoredFiles:
    """The files in a column of a part of a data set, read as they are asked for; those of one row group are held."""

    def __init__(self, part: Path, column: str) -> None:
        from pyarrow import parquet

        self._column = column
        self._starts: list[int] = []  # the number of the first row of each group
        self._groups: list[tuple[Path, int]] = []
        self._rows = 0
        for shard in shards_of(part):
            about = parquet.read_metadata(shard)
            for at in range(about.num_row_groups):
                self._starts.append(self._rows)
                self._groups.append((shard, at))
                self._rows += about.row_group(at).num_rows
        self._held: tuple[int, pa.Array] | None = None

    def all(self) -> list[StoredFile]:
        """Every file, in the order of the rows."""
        return [StoredFile(self, number) for number in range(self._rows)]

    def read(self, number: int) -> bytes:
        """The file of the row with this number, from 0 on."""
        from bisect import bisect_right

        from pyarrow import parquet

        group = bisect_right(self._starts, number) - 1
        if self._held is None or self._held[0] != group:
            self._held = None  # two are never held
            shard, at = self._groups[group]
            with parquet.ParquetFile(shard) as file:
                self._held = group, file.read_row_group(at, [self._column]).column(0).combine_chunks()
        found: bytes = self._held[1][number - self._starts[group]].as_py()
        return found


class StoredFile:
    """One of `StoredFiles`, which ``bytes`` reads."""

    __slots__ = ("_files", "_number")

    def __init__(self, files: StoredFiles, number: int) -> None:
        self._files, self._number = files, number

    def __bytes__(self) -> bytes:
        return self._files.read(self._number)


class _Shards:
    """Row groups to files of bounded size in a folder."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self._folder, self._schema = folder, schema
        self._writer: Any = None
        self._written = self._shards = 0

    def add(self, group: pa.Table) -> None:
        from pyarrow import parquet

        if self._writer is not None and self._written + group.nbytes > _SHARD_BYTES:
            self.close()
        if self._writer is None:
            self._writer = parquet.ParquetWriter(self._folder / f"part-{self._shards:05d}.parquet", self._schema)
            self._shards, self._written = self._shards + 1, 0
        self._writer.write_table(group)
        self._written += group.nbytes

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def shards_of(part: Path) -> list[Path]:
    """The files of a part of a data set, in order; of a part in one file, that.

    Raises:
        PlatformError: ``code="missing_artifact"``: there are none.
    """
    found = sorted(part.glob(_PARTS)) if part.is_dir() else [part] * part.exists()
    if not found:
        raise missing(part)
    return found


def file_column(part: Path) -> str:
    """The column of a part of a data set that has files; "" where none has."""
    from pyarrow import parquet, types

    for item in parquet.read_schema(shards_of(part)[0]):
        if types.is_binary(item.type) or types.is_large_binary(item.type):
            return str(item.name)
    return ""


def digest_of(part: Path) -> str:
    """Names the content of a part of a data set."""
    from contracts.bundle import sha256_file

    names = [sha256_file(shard) for shard in shards_of(part)]
    return names[0] if len(names) == 1 else hashlib.sha256("\n".join(names).encode()).hexdigest()


def row_count(part: Path) -> int:
    """Rows of a part of a data set, by the ends of its files alone."""
    return rows_in(shards_of(part))


def rows_in(files: Sequence[Path]) -> int:
    """Rows of Parquet files, by their ends alone."""
    from pyarrow import parquet

    return sum(parquet.read_metadata(file).num_rows for file in files)


def some_rows(
    part: Path, chosen: NDArray[np.int64] | None = None, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """The rows of a part with these numbers, which must rise, or all: at most a row group in each table, in order.

    What a row group without such rows holds is not read.
    """
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet

    first = 0
    for shard in shards_of(part):
        with parquet.ParquetFile(shard) as file:
            for at in range(file.metadata.num_row_groups):
                last = first + file.metadata.row_group(at).num_rows
                if chosen is None:
                    yield file.read_row_group(at, columns)
                else:
                    low, high = np.searchsorted(chosen, [first, last])
                    if low < high:
                        yield file.read_row_group(at, columns).take(pa.array(chosen[low:high] - first))
                first = last

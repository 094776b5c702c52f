"""Documents in one Parquet file, whose bytes follow from the documents and their order, however they arrived."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.data.documents import Kinds, Rows, conformed, type_of

if TYPE_CHECKING:
    import pyarrow as pa

_OBJECT_IDS = {"fairlead.object_ids": "_id"}
_ROWS, _BYTES = 1 << 16, 32 << 20  # of a row group; it ends with the row that reaches one of them


class DocumentFile:
    """A file in the making: columns may be seen late, and may turn out to be wider than at first."""

    def __init__(self, file: Path, kinds: Kinds) -> None:
        self._file, self._kinds = file, kinds
        self._waiting, self._bytes = Rows(), 0
        self._pieces: list[Path] = []
        self._open: _Groups | None = None
        self.rows = 0

    def add(self, documents: Sequence[Mapping[str, Any]], size: int) -> None:
        """Take documents in, of `size` bytes; `kinds` is brought up to date when they are written."""
        self._waiting.add(documents)
        self._bytes += size
        self.rows += len(documents)
        if self._waiting.rows >= _ROWS or self._bytes >= _BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting.rows:
            return
        table = conformed(self._waiting.table(self._kinds), self._kinds)
        self._bytes = 0
        if self._open is None or table.schema != self._open.schema:
            self._end()
            piece = self._file.with_name(f"{self._file.name}.{len(self._pieces)}")
            self._open = _Groups(piece, self._kinds)
            self._pieces.append(piece)
        self._open.write(table)

    def _end(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def close(self) -> Path:
        """Write the file with the columns of all documents; it is not there when there were none."""
        self._flush()
        self._end()
        if len(self._pieces) == 1:
            os.replace(self._pieces[0], self._file)
        elif self._pieces:
            out = _Groups(self._file, self._kinds)
            for piece in self._pieces:
                for table in _tables(piece):
                    out.write(conformed(table, self._kinds))
                piece.unlink()
            out.close()
        return self._file


def schema_of(kinds: Kinds) -> pa.Schema:
    """The columns that values of these kinds give."""
    import pyarrow as pa

    return pa.schema([(name, type_of(found)) for name, found in sorted(kinds.items()) if found])


class _Groups:
    """Writes row groups that end where their content says, not where tables do."""

    def __init__(self, file: Path, kinds: Kinds) -> None:
        from pyarrow import parquet

        self.schema, self._kinds = schema_of(kinds), kinds
        self._writer = parquet.ParquetWriter(file, self.schema, compression="zstd", compression_level=1)
        self._waiting: list[pa.Table] = []
        self._rows = self._bytes = 0

    def write(self, table: pa.Table) -> None:
        import numpy as np

        sums = np.cumsum(_row_bytes(table))
        start, before = 0, 0
        while start < table.num_rows:
            full = int(np.searchsorted(sums, before + _BYTES - self._bytes)) + 1
            end = min(full, start + _ROWS - self._rows, table.num_rows)
            self._waiting.append(table.slice(start, end - start))
            self._rows += end - start
            self._bytes += int(sums[end - 1]) - before
            start, before = end, int(sums[end - 1])
            if self._rows >= _ROWS or self._bytes >= _BYTES:
                self._group()

    def _group(self) -> None:
        import pyarrow as pa

        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting).combine_chunks(), row_group_size=_ROWS)
        self._waiting, self._rows, self._bytes = [], 0, 0

    def close(self) -> None:
        self._group()
        if self._kinds.get("_id") == {"id"}:  # of all documents, also those that came last
            self._writer.add_key_value_metadata(_OBJECT_IDS)
        self._writer.close()


def has_object_ids(file: Path) -> bool:
    """Whether the texts in column ``_id`` of a file were ObjectIds; a file of another origin says nothing of it."""
    from pyarrow import parquet

    if file.suffix != ".parquet" or not file.is_file():
        return False
    said = parquet.read_metadata(file).metadata or {}
    return all(said.get(key.encode()) == value.encode() for key, value in _OBJECT_IDS.items())


def _row_bytes(table: pa.Table) -> Any:
    """About how large each row is, an array of whole numbers."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    sizes = np.full(table.num_rows, 8 * table.num_columns, dtype=np.int64)
    for column in table.columns:
        if pa.types.is_string(column.type) or pa.types.is_binary(column.type):
            sizes += pc.fill_null(pc.binary_length(column), 0).to_numpy().astype(np.int64)
    return sizes


def _tables(file: Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The row groups of a file."""
    from pyarrow import parquet

    with parquet.ParquetFile(file) as source:
        for group in range(source.num_row_groups):
            yield source.read_row_group(group, columns=columns)


def null_counts(file: Path) -> dict[str, int]:
    """Of each column, how many values are null."""
    counts: dict[str, int] = {}
    for table in _tables(file):
        for name in table.column_names:
            counts[name] = counts.get(name, 0) + table.column(name).null_count
    return counts


def merged(out: Path, known: Path, newer: Path, kinds: Kinds) -> int:
    """Write both files as one, of rows with the same ``_id`` those of `newer`; returns the number of rows."""
    import pyarrow as pa
    import pyarrow.compute as pc

    replaced = pa.concat_tables(_tables(newer, ["_id"])).column("_id")
    rows = 0
    groups = _Groups(out, kinds)
    for table in _tables(known):
        kept = table.filter(pc.invert(pc.is_in(table.column("_id"), value_set=replaced)))
        groups.write(conformed(kept, kinds))
        rows += kept.num_rows
    for table in _tables(newer):
        groups.write(conformed(table, kinds))
        rows += table.num_rows
    groups.close()
    return rows

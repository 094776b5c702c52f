"""Rows of a table that memory need not hold: in order by DuckDB, which spills, and written as they come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.model_memory import memory_limit
from pipelines.io.files import missing

if TYPE_CHECKING:
    import pandas as pd

_SHARE = 0.1  # of the memory; pandas takes about five times what rows take in Parquet, and a split copies them
_BATCH_ROWS = 50_000


def parts_of(folder: Path) -> list[Path]:
    """The files that a step left in a folder, in order.

    Raises:
        PlatformError: ``code="missing_artifact"``: there are none.
    """
    found = sorted(folder.glob("part-*.parquet"))
    if not found:
        raise missing(folder / "part-00000.parquet")
    return found


def is_large(files: Sequence[Path], limit: int | None = None) -> bool:
    """Whether the rows of Parquet files, unpacked, are more than a tenth of the memory that this process may have."""
    from pyarrow import parquet

    size = 0
    for file in files:
        about = parquet.read_metadata(file)
        size += sum(about.row_group(at).total_byte_size for at in range(about.num_row_groups))
    return size > _SHARE * (memory_limit() if limit is None else limit)


def has_gaps(files: Sequence[Path], columns: Sequence[str]) -> bool:
    """Whether a value of one of the columns is missing, or the files do not say."""
    from pyarrow import parquet

    for file in files:
        about = parquet.read_metadata(file)
        for at in range(about.num_row_groups):
            group = about.row_group(at)
            for place in range(group.num_columns):
                one = group.column(place)
                if one.path_in_schema in columns:
                    told = one.statistics
                    if told is None or not told.has_null_count or told.null_count:
                        return True
    return False


def in_order(files: Sequence[Path], by: Sequence[str], memory: str = "") -> Iterator[pd.DataFrame]:
    """All rows, some at a time, as they stand, or sorted by columns: equal ones as they stand, missing values last.

    memory: of DuckDB, which spills beyond; "" is a share of the memory that this process may have.
    """
    from pyarrow import parquet

    if not by:
        for file in files:
            with parquet.ParquetFile(file) as opened:
                for batch in opened.iter_batches(_BATCH_ROWS):
                    yield batch.to_pandas()
        return
    from feature_repo.stores.parquet_sources import connect, quote, text

    listed = ", ".join(text(str(file)) for file in files)
    order = ", ".join(f"{quote(column)} ASC NULLS LAST" for column in by)
    with connect(memory) as connection:
        found = connection.execute(
            f"SELECT * EXCLUDE (filename, file_row_number) FROM read_parquet([{listed}], filename=true, "
            f"file_row_number=true) ORDER BY {order}, filename, file_row_number"
        )
        for batch in found.to_arrow_reader(_BATCH_ROWS):
            yield batch.to_pandas()


class TableWriter:
    """One Parquet file of frames that come one after another, each with the columns of the first."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._writer: Any = None
        self.rows = 0

    def add(self, frame: pd.DataFrame) -> None:
        """Write some rows."""
        import pyarrow as pa
        from pyarrow import parquet

        if self._writer is None:
            made = pa.Schema.from_pandas(frame, preserve_index=False)
            for at, field in enumerate(made):
                if pa.types.is_null(field.type):  # the first rows lack all values
                    made = made.set(at, field.with_type(pa.string()))
            self._writer = parquet.ParquetWriter(self._file, made)
        self._writer.write_table(pa.Table.from_pandas(frame, self._writer.schema, preserve_index=False))
        self.rows += len(frame)

    def close(self) -> None:
        """End the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

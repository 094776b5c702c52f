"""Labels of a file or a collection of MongoDB: rows with an id, a label and, where it is not now, a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError

if TYPE_CHECKING:
    import pyarrow as pa

_TEXT = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
ROWS = 100_000  # that are dealt with at a time


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the columns; that of the time may be missing in the file, unless it was asked for."""

    id: str = "id"
    label: str = "label"
    time: str = ""

    def chosen(self, file: Path, present: list[str]) -> list[str]:
        """The three columns as the file has them; the last one is "" where it has no time.

        Raises:
            PlatformError: ``code="unknown_column"``.
        """
        wanted = [self.id, self.label, self.time or ("time" if "time" in present else "")]
        missing = [name for name in wanted if name and name not in present]
        if missing:
            raise PlatformError(
                f"{file.name} has no column {', '.join(missing)}",
                detail=f"it has: {', '.join(present[:40])}",
                fix="name its columns: --id-column NAME --label-column NAME --time-column NAME",
                code="unknown_column",
            )
        return wanted


def read_rows(source: str, columns: Columns) -> Iterator[list[tuple[Any, Any, Any]]]:
    """Rows of (id, label, time), some at a time and in their order; None is an empty cell, or a time that is not there.

    Raises:
        PlatformError: there is no such file, it is none of the formats, a column is missing, or it cannot be read.
    """
    from pipelines.data.origins import source_here

    with source_here(source) as here:
        yield from _rows(Path(here).expanduser(), source, columns)


def _rows(file: Path, source: str, columns: Columns) -> Iterator[list[tuple[Any, Any, Any]]]:
    import pyarrow as pa

    if not file.is_file():
        raise PlatformError(
            f"no such file: {source}",
            fix="give the path of a CSV, TSV or Parquet file, or mongodb://...",
            code="not_found",
        )
    read = _parquet if file.suffix == ".parquet" else _text if file.suffix in _TEXT else None
    if read is None:
        raise PlatformError(
            f"cannot tell the format of {file.name}",
            detail=f"known endings: .parquet, {', '.join(_TEXT)}",
            fix="rename the file; what is no label of one form: fairlead predictions annotate MODEL --source FILE",
            code="unknown_format",
        )
    try:
        for batch in read(file, columns):
            values = batch.to_pydict()
            none = [None] * len(batch)
            names = columns.chosen(file, list(values))
            yield list(zip(*(values[name] if name else none for name in names), strict=True))
    except (pa.ArrowException, OSError) as err:
        raise PlatformError(
            f"cannot read {file}", detail=str(err), fix="correct the file, and give it again", code="unreadable_file"
        ) from err


def _parquet(file: Path, columns: Columns) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as opened:
        names = columns.chosen(file, list(opened.schema_arrow.names))
        yield from opened.iter_batches(ROWS, columns=[name for name in names if name])


def _text(file: Path, columns: Columns) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    from pyarrow import csv

    parse = csv.ParseOptions(delimiter=_TEXT[file.suffix], newlines_in_values=True)
    with csv.open_csv(file, parse_options=parse) as opened:
        names = [name for name in columns.chosen(file, opened.schema.names) if name]
    convert = csv.ConvertOptions(
        include_columns=names,
        column_types=dict.fromkeys(names, pa.string()),
        strings_can_be_null=True,
        null_values=[""],
    )
    with csv.open_csv(file, parse_options=parse, convert_options=convert) as opened:
        yield from opened

"""Rows on their way from a source: chunks of bounded memory, and the rows that cannot be read."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from contracts import storage
from contracts.errors import PlatformError
from pipelines.task import DataConfig

if TYPE_CHECKING:
    import pyarrow as pa

ROW = "_row"  # added column: number of the row, 1 = first row of data


@dataclass(frozen=True, kw_only=True)
class TextFormat:
    """How text files are read; see `DataConfig`."""

    header: bool = True
    delimiter: str = ","
    quoted: bool = True
    encoding: str = ""
    tagged: bool = False
    adjacency: bool = False


def text_format(data: DataConfig) -> TextFormat:
    """The part of `data` that text files are read by."""
    return TextFormat(**{item.name: getattr(data, item.name) for item in fields(TextFormat)})


@dataclass(frozen=True)
class Rejected:
    """A row that cannot be read: it is kept out of the data and reported."""

    row: int
    column: str
    value: str
    reason: str
    label: str | None = None  # of its class, where that can be read
    undecodable: bool = False  # bytes that are none of the file's encoding
    file: str = ""  # that is the row, where rows are files


@dataclass
class Chunk:
    """Some rows, in order: `table` has the column ROW last; `through` is the number of the last row, good or bad."""

    table: pa.Table
    through: int
    rejected: list[Rejected] = field(default_factory=list)


def size(table: pa.Table) -> int:
    """Bytes of the values, however they lie in memory."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = 0
    for column in table.columns:
        kind = column.type
        if pa.types.is_string(kind) or pa.types.is_binary(kind):
            found += 4 * len(column) + int(pc.sum(pc.binary_length(column)).as_py() or 0)
        else:
            try:
                found += kind.bit_width * len(column) // 8
            except ValueError:  # of no fixed width
                found += column.nbytes
    return found


def write_table(table: pa.Table, file: Path) -> None:
    """Write rows that are read once, by `read_table`."""
    import pyarrow as pa

    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema, options=options) as out:
        out.write_table(table)


def read_table(address: str) -> pa.Table:
    """The rows at a path, or an address of S3."""
    import pyarrow as pa

    data = storage.read_bytes(address) if storage.is_remote(address) else Path(address).read_bytes()
    return pa.ipc.open_file(pa.BufferReader(data)).read_all()


def empty(path: Path | str) -> PlatformError:
    return PlatformError(
        f"the source is empty: {path}", fix="give a file with at least one row of data", code="empty_source"
    )

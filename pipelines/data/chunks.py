"""Rows on their way from a source: chunks of bounded memory, and the rows that cannot be read."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

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


def empty(path: Path | str) -> PlatformError:
    return PlatformError(
        f"the source is empty: {path}", fix="give a file with at least one row of data", code="empty_source"
    )

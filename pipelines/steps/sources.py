"""Reading CSV, TSV and Parquet in chunks of bounded memory, without altering a value."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError

if TYPE_CHECKING:
    import pyarrow as pa

ROW = "_row"  # added column: number of the row, 1 = first row of data
BLOCK = 8 << 20  # bytes parsed at a time; no row may be longer
MOST_REJECTED = 100_000  # rows of a file: more are not bad rows but a wrong setting
_TEXT = (".csv", ".tsv", ".tab", ".txt")
_PACKED = (".gz", ".bz2", ".zst")


@dataclass(frozen=True, kw_only=True)
class TextFormat:
    """How text files are read."""

    header: bool = True
    delimiter: str = ","
    quoted: bool = True


@dataclass(frozen=True)
class Rejected:
    """A row that cannot be read: it is kept out of the data and reported."""

    row: int
    column: str
    value: str
    reason: str
    label: str | None = None  # of its class, where that can be read


@dataclass
class Chunk:
    """Some rows, in order: `table` has the column ROW last; `through` is the number of the last row, good or bad."""

    table: pa.Table
    through: int
    rejected: list[Rejected] = field(default_factory=list)


def list_files(source: str) -> list[Path]:
    """The data files of `source`, a file or a folder, sorted by name.

    Raises:
        PlatformError: ``code="bad_source"`` when there is none.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise PlatformError(
            f"source not found: {source}",
            fix="give the path of a CSV, TSV or Parquet file, or of a folder of them",
            code="bad_source",
        )
    hidden = (".", "_")
    found = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith(hidden) and _kind(p))
    kinds = {_kind(p) for p in found}
    if len(kinds) != 1:
        raise PlatformError(
            f"source has {'text and Parquet files mixed' if kinds else 'no data files'}: {source}",
            detail=f"accepted: all {', '.join(_TEXT)} (also {', '.join(_PACKED)}), or all .parquet",
            fix="point at one file, or at a folder of files of one kind",
            code="bad_source",
        )
    return found


def _kind(path: Path) -> str:
    name = path.name.lower()
    for suffix in _PACKED:
        name = name.removesuffix(suffix)
    return "parquet" if name.endswith((".parquet", ".pq")) else "text" if name.endswith(_TEXT) else ""


def column_names(path: Path, form: TextFormat) -> list[str]:
    """Names of a file's columns; positions "0", "1", ... where text has no header.

    Raises:
        PlatformError: empty file, a header that repeats a name, or a file that is not what its name says.
    """
    packed = _kind(path) == "parquet"
    names = list(_parquet(path).schema_arrow.names) if packed else _text_names(path, form)
    if repeated := sorted({n for n in names if names.count(n) > 1}):
        raise PlatformError(
            f"{path.name}: the header repeats column {repeated[0]!r}",
            detail=f"columns: {_listing(names)}",
            fix="give every column a name of its own in the file",
            code="bad_schema",
            column=repeated[0],
            file=str(path),
        )
    return [_free(name) for name in names]


def _free(name: str) -> str:
    """A source's own column may be called like the one that we add, for example in a version that we made."""
    return f"{ROW}_source" if name == ROW else name


def read_chunks(path: Path, names: list[str], form: TextFormat, label: str = "") -> Iterator[Chunk]:
    """Stream a file: text columns come as strings exactly as written, Parquet columns with their types."""
    return _read_parquet(path) if _kind(path) == "parquet" else _read_text(path, names, form, label)


def _text_names(path: Path, form: TextFormat) -> list[str]:
    with _open(path) as stream:
        start = stream.read(BLOCK)
    if not start.strip():
        raise empty(path)
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise _undecodable(path, "it starts with a UTF-16 byte order mark", "UTF-16")
    if start[:4] == b"PAR1":
        raise PlatformError(f"{path.name} is a Parquet file", fix="name it .parquet", code="bad_source")
    start = start.removeprefix(b"\xef\xbb\xbf")
    text = start.decode("utf-8", errors="surrogateescape")
    csv.field_size_limit(BLOCK)
    lines, delimiter = io.StringIO(text, newline=""), _delimiter(path, form)
    quoted = csv.reader(lines, delimiter=delimiter)
    rows = quoted if form.quoted else csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    first = next(row for row in rows if row)
    if not form.header:
        return [str(i) for i in range(len(first))]
    if any("\udc80" <= c <= "\udcff" for name in first for c in name):
        raise _undecodable(path, "the header has bytes that are not UTF-8", "its encoding")
    return [name or str(i) for i, name in enumerate(first)]


def _delimiter(path: Path, form: TextFormat) -> str:
    tabbed = any(s in (".tsv", ".tab") for s in (x.lower() for x in path.suffixes))
    return "\t" if tabbed and form.delimiter == "," else form.delimiter


def _open(path: Path) -> Any:
    import pyarrow as pa

    return pa.input_stream(str(path), compression="detect")


def _read_text(path: Path, names: list[str], form: TextFormat, label: str) -> Iterator[Chunk]:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    skipped: list[Rejected] = []
    offset = 1 if form.header else 0

    def skip(row: Any) -> str:
        reason = f"{row.actual_columns} values, expected {row.expected_columns}"
        skipped.append(Rejected(row.number - offset, "", row.text[:200], reason))
        return "skip" if len(skipped) < MOST_REJECTED else "error"

    counter = _RowCounter(skipped)
    last = rejected = 0
    try:
        with _open(path) as stream:
            reader = arrow_csv.open_csv(
                stream,
                # Without threads, because only then rows that are skipped come with their number.
                read_options=arrow_csv.ReadOptions(column_names=names, block_size=BLOCK, use_threads=False),
                parse_options=arrow_csv.ParseOptions(
                    delimiter=_delimiter(path, form),
                    quote_char='"' if form.quoted else False,
                    newlines_in_values=form.quoted,
                    invalid_row_handler=skip,
                ),
                convert_options=arrow_csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.binary()), strings_can_be_null=False, check_utf8=False
                ),
            )
            first = form.header
            for batch in reader:
                table = pa.Table.from_batches([batch])
                if first:
                    table, first = table.slice(1), False
                if not table.num_rows:
                    continue
                rows = counter.next(table.num_rows)
                last = int(rows[-1])
                chunk = _decode(table, rows, counter.take(last), label)
                rejected += len(chunk.rejected)
                if rejected >= MOST_REJECTED:
                    raise _too_many(path, chunk.rejected[-1])
                yield chunk
    except pa.ArrowInvalid as err:
        if len(skipped) >= MOST_REJECTED:
            raise _too_many(path, skipped[-1]) from err
        raise _unparsable(path, err, last) from err
    if rest := counter.take(None):
        table = _decode(_no_rows(names), counter.next(0), []).table
        yield Chunk(table, rest[-1].row, rest)


class _RowCounter:
    """Numbers the rows that the parser kept, given those that it skipped (it parses ahead of what it hands out)."""

    def __init__(self, skipped: list[Rejected]) -> None:
        self._skipped, self._next, self._taken = skipped, 1, 0

    def next(self, count: int) -> Any:
        import numpy as np

        gaps = np.array([r.row for r in self._skipped if r.row >= self._next], dtype=np.int64)
        end = self._next + count
        while (wider := self._next + count + int((gaps < end).sum())) != end:
            end = wider
        rows = np.arange(self._next, end, dtype=np.int64)
        self._next = end
        return rows[~np.isin(rows, gaps)]

    def take(self, through: int | None) -> list[Rejected]:
        found = []
        while self._taken < len(self._skipped):
            if through is not None and self._skipped[self._taken].row > through:
                break
            found.append(self._skipped[self._taken])
            self._taken += 1
        return found


def _decode(table: pa.Table, rows: Any, rejected: list[Rejected], label: str = "") -> Chunk:
    """Bytes to strings; rows with bytes that are not UTF-8 are rejected, not repaired. `label` is a column."""
    import numpy as np
    import pyarrow as pa

    good = np.ones(table.num_rows, dtype=bool)
    through = int(rows[-1]) if len(rows) else 0
    for name in table.column_names:
        try:
            table.column(name).cast(pa.string())
        except pa.ArrowInvalid:
            for at, value in enumerate(table.column(name).to_pylist()):
                try:
                    value.decode("utf-8")
                except UnicodeDecodeError as err:
                    if good[at]:
                        shown = value[max(err.start - 20, 0) : err.start + 20].decode(
                            "utf-8", errors="backslashreplace"
                        )
                        reason = f"byte 0x{value[err.start]:02x} at position {err.start} is not UTF-8"
                        rejected.append(Rejected(int(rows[at]), name, shown, reason, _label(table, label, at)))
                    good[at] = False
    if not good.all():
        table, rows = table.filter(pa.array(good)), rows[good]
    columns = [table.column(name).cast(pa.string()) for name in table.column_names]
    rejected.sort(key=lambda r: r.row)
    return Chunk(pa.table([*columns, pa.array(rows)], names=[*table.column_names, ROW]), through, rejected)


def _label(table: pa.Table, name: str, at: int) -> str | None:
    if name not in table.column_names:
        return None
    try:
        text: str = table.column(name)[at].as_py().decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text


def _no_rows(names: list[str]) -> pa.Table:
    import pyarrow as pa

    return pa.table({name: pa.array([], type=pa.binary()) for name in names})


def _parquet(path: Path) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(path)
    except pa.ArrowInvalid as err:
        if path.stat().st_size == 0:
            raise empty(path) from err
        raise PlatformError(
            f"{path.name} is not a readable Parquet file", detail=str(err), fix="write it again", code="bad_source"
        ) from err


def _read_parquet(path: Path) -> Iterator[Chunk]:
    import numpy as np
    import pyarrow as pa

    start = 1
    try:
        for batch in _parquet(path).iter_batches(batch_size=1 << 16):
            table = pa.Table.from_batches([batch])
            table = table.rename_columns([_free(name) for name in table.column_names])
            for at, kind in enumerate(table.schema):
                if pa.types.is_dictionary(kind.type):
                    table = table.set_column(at, kind.name, table.column(at).cast(kind.type.value_type))
            rows = np.arange(start, start + table.num_rows, dtype=np.int64)
            start += table.num_rows
            yield Chunk(table.append_column(ROW, pa.array(rows)), start - 1)
    except (pa.ArrowInvalid, OSError) as err:
        raise PlatformError(
            f"{path.name} is damaged after row {start - 1}", detail=str(err), fix="write it again", code="bad_source"
        ) from err


def empty(path: Path | str) -> PlatformError:
    return PlatformError(
        f"the source is empty: {path}", fix="give a file with at least one row of data", code="empty_source"
    )


def _unparsable(path: Path, err: Exception, last: int) -> PlatformError:
    if "straddling" in str(err) or "block" in str(err):
        return PlatformError(
            f"{path.name}: a row after row {last} does not end within {BLOCK >> 20} MB",
            detail='most likely a " opens a quoted value that is never closed',
            fix="close the quote in the file; if quotes are ordinary characters there, --set data.quoted=false",
            code="bad_source",
            row=last + 1,
            file=str(path),
        )
    return PlatformError(
        f"{path.name}: cannot be read after row {last}",
        detail=str(err)[:500],
        fix="correct the file, or set data.delimiter, data.header or data.quoted to what it uses",
        code="bad_source",
        row=last + 1,
        file=str(path),
    )


def _too_many(path: Path, example: Rejected) -> PlatformError:
    where = f", column {example.column!r}" if example.column else ""
    return PlatformError(
        f"{path.name}: more than {MOST_REJECTED:,} rows cannot be read",
        detail=f"for example row {example.row}{where}: {example.reason}",
        fix="set data.delimiter, data.header or data.quoted to what the file uses, or convert it to UTF-8",
        code="bad_source",
        row=example.row,
        file=str(path),
    )


def _undecodable(path: Path, detail: str, encoding: str) -> PlatformError:
    return PlatformError(
        f"{path.name} is not UTF-8",
        detail=detail,
        fix=f"convert it: iconv -f {encoding if ' ' not in encoding else 'ENCODING'} -t UTF-8 {path.name}",
        code="bad_source",
        file=str(path),
    )


def _listing(names: list[str], most: int = 30) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

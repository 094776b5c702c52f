"""Delimited text: names of the columns, and rows exactly as written, whatever the encoding."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from pipelines.data import formats
from pipelines.data.chunks import ROW, Chunk, Rejected, TextFormat, empty
from pipelines.data.decoding import Transcoded, encoding_of, guess_delimiter, is_in, not_this_encoding
from pipelines.settings import setting

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK = 8 << 20  # bytes parsed at a time; no row may be longer
_ROW_SHOWN = re.compile(r"(got \d+): .*", re.DOTALL)  # what a row holds is no part of a message
MOST_REJECTED = 100_000  # rows of a file: more are not bad rows but a wrong setting


def text_sample(path: Path, form: TextFormat) -> str:
    """The beginning of a text file, decoded."""
    with formats.named(path), open_text(path, form) as stream:
        return str(stream.read(1 << 16).decode("utf-8", errors="replace"))


def undecodable(path: Path, form: TextFormat, detail: str) -> PlatformError | None:
    """The error for rows that are not in the encoding of `form`; None when the file does not look like another one."""
    with formats.named(path), formats.open_unpacked(path) as stream:
        found = not_this_encoding(path, form.encoding, stream.read(BLOCK), detail)
    return found if found.context["encoding"] not in ("", form.encoding) else None


def text_names(path: Path, form: TextFormat) -> list[str]:
    with formats.named(path), formats.open_unpacked(path) as stream:
        start = stream.read(BLOCK)
    if not start.strip():
        raise empty(path)
    formats.refuse_other_than_text(path, start)
    encoding = encoding_of(start, form.encoding)
    if encoding not in ("utf-8", "utf-8-sig") and not start.isascii() and is_in(start, "utf-8"):
        raise not_this_encoding(path, encoding, start, "every byte of it is UTF-8", "utf-8")
    text = Transcoded(io.BytesIO(start), encoding).read().decode("utf-8", errors="surrogateescape")
    if "\0" in text[:1000]:
        raise not_this_encoding(path, form.encoding, start, "it has characters of value 0")
    csv.field_size_limit(BLOCK)
    lines, delimiter = io.StringIO(text, newline=""), _delimiter(path, form)
    quoted = csv.reader(lines, delimiter=delimiter)
    rows = quoted if form.quoted else csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    first = next(row for row in rows if row)
    if not form.header:
        return [str(i) for i in range(len(first))]
    if any("\udc80" <= c <= "\udcff" for name in first for c in name):
        raise not_this_encoding(path, form.encoding, start, "the header has bytes that are none of its characters")
    _refuse_quotes(path, first)
    return [name or str(i) for i, name in enumerate(first)]


def _refuse_quotes(path: Path, names: list[str]) -> None:
    if late := next((name for name in names if name[:1].isspace() and name.strip().startswith('"')), None):
        raise PlatformError(
            f"{path.name}: a space stands before the quote of column {late.strip()}",
            detail="values with delimiters in them cannot be told apart then",
            fix="write it again without spaces before quotes",
            code="bad_schema",
            file=str(path),
        )


def _delimiter(path: Path, form: TextFormat) -> str:
    tabbed = any(s in (".tsv", ".tab") for s in (x.lower() for x in path.suffixes))
    return "\t" if tabbed and form.delimiter == "," else form.delimiter


def open_text(path: Path, form: TextFormat) -> Any:
    """A stream of a text file's content in UTF-8, without a byte order mark."""
    with formats.named(path), formats.open_unpacked(path) as stream:
        encoding = encoding_of(stream.read(4), form.encoding)
    stream = formats.open_unpacked(path)
    if encoding == "utf-8-sig":
        stream.read(3)
    plain = encoding in ("utf-8", "utf-8-sig")
    return stream if plain else io.BufferedReader(Transcoded(stream, encoding), 1 << 20)


def read_text(path: Path, names: list[str], form: TextFormat, label: str) -> Iterator[Chunk]:
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
        with formats.named(path), open_text(path, form) as stream:
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
                chunk = _decode(table, rows, counter.take(last), label, form.encoding or "UTF-8")
                rejected += len(chunk.rejected)
                if rejected >= MOST_REJECTED:
                    raise _too_many(path, chunk.rejected[-1], form)
                yield chunk
    except pa.ArrowInvalid as err:
        if len(skipped) >= MOST_REJECTED:
            raise _too_many(path, skipped[-1], form) from err
        raise _unparsable(path, err, last, form) from err
    if rest := counter.take(None):
        table = _decode(_no_rows(names), counter.next(0), [], label, "").table
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


def _decode(table: pa.Table, rows: Any, rejected: list[Rejected], label: str, encoding: str) -> Chunk:
    """Bytes to strings; rows with bytes that are none of the file's encoding are rejected, not repaired.

    `label` is the column that tells which class loses a row.
    """
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
                        reason = f"byte 0x{value[err.start]:02x} at position {err.start} is not {encoding}"
                        told = _label(table, label, at)
                        rejected.append(Rejected(int(rows[at]), name, shown, reason, told, undecodable=True))
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


def _unparsable(path: Path, err: Exception, last: int, form: TextFormat) -> PlatformError:
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
        detail=_ROW_SHOWN.sub(r"\1", str(err))[:500],
        fix=delimiter_fix(path, form) or "correct the file, or set data.delimiter, data.header or data.quoted",
        code="bad_source",
        row=last + 1,
        file=str(path),
    )


def delimiter_fix(path: Path, form: TextFormat) -> str:
    """The setting for the delimiter that a file looks like; "" when the one of `form` is as good."""
    found = guess_delimiter(text_sample(path, form), _delimiter(path, form))
    return setting("data.delimiter", found) if found else ""


def _too_many(path: Path, example: Rejected, form: TextFormat) -> PlatformError:
    detail = f"for example row {example.row}: {example.reason}"
    if example.undecodable and (found := undecodable(path, form, detail)):
        return found
    where = f", column {example.column!r}" if example.column else ""
    return PlatformError(
        f"{path.name}: more than {MOST_REJECTED:,} rows cannot be read",
        detail=f"for example row {example.row}{where}: {example.reason}",
        fix=delimiter_fix(path, form)
        or "set data.delimiter, data.header, data.quoted or data.encoding to what it uses",
        code="bad_source",
        row=example.row,
        file=str(path),
    )

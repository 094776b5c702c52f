"""Reading CSV, TSV, JSON lines, Excel and Parquet in chunks of bounded memory, without altering a value."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contracts.errors import PlatformError
from pipelines.data import formats
from pipelines.data.adjacency import NAMES as OF_ADJACENCY
from pipelines.data.adjacency import read_adjacency
from pipelines.data.chunks import ROW, Chunk, Rejected, TextFormat, empty
from pipelines.data.conll import NAMES as OF_TAGGED
from pipelines.data.conll import read_conll
from pipelines.data.delimited import read_text, text_names

_KINDS = {
    **dict.fromkeys((".csv", ".tsv", ".tab", ".txt"), "text"),
    **dict.fromkeys((".jsonl", ".ndjson"), "json"),
    **dict.fromkeys((".xlsx", ".xlsm"), "excel"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
}
_ROWS, _BYTES = 1 << 16, 256 << 20  # rows of a chunk; about so many bytes of Parquet, whose rows may be files


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
            fix="give the path of a CSV, TSV, JSON lines, Excel or Parquet file, or of a folder of them",
            code="bad_source",
        )
    hidden = (".", "_")
    found = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith(hidden) and kind_of(p))
    kinds = {kind_of(p) for p in found}
    if len(kinds) != 1:
        raise PlatformError(
            f"source has {'files of different kinds' if kinds else 'no data files'}: {source}",
            detail=f"accepted: {', '.join(_KINDS)}, text also packed as {', '.join(formats.PACKED)}",
            fix="point at one file, or at a folder of files of one kind",
            code="bad_source",
        )
    return found


def kind_of(path: Path) -> str:
    """What a file is by its name: text (delimited), json, excel or parquet; "" for others."""
    name = path.name.lower()
    for suffix in formats.PACKED:
        name = name.removesuffix(suffix)
    packed = "text" if path.suffix.lower() in formats.PACKED and "." not in name else ""  # payments.zip
    return _KINDS.get(Path(name).suffix, packed)


def column_names(path: Path, form: TextFormat) -> list[str]:
    """Names of a file's columns; positions "0", "1", ... where text has no header.

    Raises:
        PlatformError: empty file, a header that repeats a name, or a file that is not what its name says.
    """
    names = [name.strip() or str(at) for at, name in enumerate(_names(path, form))]
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


def _names(path: Path, form: TextFormat) -> list[str]:
    kind = kind_of(path)
    if kind == "text" and form.tagged:
        return OF_TAGGED
    if kind == "text" and form.adjacency:
        return OF_ADJACENCY
    if kind == "parquet":
        return list(_parquet(path).schema_arrow.names)
    if kind == "json":
        if not (names := formats.json_columns(path)):
            raise _no_objects(path)
        return names
    if kind == "excel":
        first = next(formats.read_excel(path), None)
        if first is None:
            raise empty(path)
        return [name or str(i) for i, name in enumerate(first)] if form.header else [str(i) for i in range(len(first))]
    return text_names(path, form)


def _no_objects(path: Path) -> PlatformError:
    if path.stat().st_size == 0:
        return empty(path)
    return PlatformError(
        f"no line of {path.name} is an object of JSON",
        detail='accepted: one object on each line, {"column": value, ...}',
        fix=f"write a list as lines: jq -c '.[]' {path.name}",
        code="bad_source",
        file=str(path),
    )


def _free(name: str) -> str:
    """A source's own column may be called like the one that we add, for example in a version that we made."""
    return f"{ROW}_source" if name == ROW else name


def read_chunks(path: Path, names: list[str], form: TextFormat, label: str = "") -> Iterator[Chunk]:
    """Stream a file: text columns come as strings exactly as written, Parquet columns with their types.

    `label` is the column that tells of a rejected row which class loses it.
    """
    kind = kind_of(path)
    if kind == "parquet":
        return _read_parquet(path)
    if kind == "json":
        return _read_json(path, names)
    if kind == "text" and form.tagged:
        return _read_rows(read_conll(path, form), names)
    if kind == "text" and form.adjacency:
        return _read_rows(read_adjacency(path, form), names)
    return _read_rows(_excel_rows(path, form.header), names) if kind == "excel" else read_text(path, names, form, label)


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
        source = _parquet(path)
        for batch in source.iter_batches(batch_size=_rows_at_once(source.metadata)):
            table = pa.Table.from_batches([batch])
            table = table.rename_columns([_free(name.strip()) for name in table.column_names])
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


def _rows_at_once(metadata: Any) -> int:
    """How many rows fit a chunk, by the heaviest row group."""
    groups = (metadata.row_group(at) for at in range(metadata.num_row_groups))
    heaviest = max((group.total_byte_size // max(group.num_rows, 1) for group in groups), default=0)
    return max(1, min(_ROWS, _BYTES // max(heaviest, 1)))


def _read_json(path: Path, names: list[str]) -> Iterator[Chunk]:
    rows: list[tuple[int, list[str]]] = []
    rejected: list[Rejected] = []
    number = 0
    for number, row, wrong in formats.read_json_lines(path):
        if wrong:
            rejected.append(Rejected(number, "", "", wrong))
        else:
            given = {_free(key.strip()): value for key, value in row.items()}
            rows.append((number, [given.get(name, "") for name in names]))
        if len(rows) + len(rejected) >= _ROWS:
            yield _chunk(names, rows, number, rejected)
            rows, rejected = [], []
    if rows or rejected:
        yield _chunk(names, rows, number, rejected)


def _excel_rows(path: Path, header: bool) -> Iterator[tuple[int, list[str]]]:
    for number, row in enumerate(formats.read_excel(path), 0 if header else 1):
        if number and any(row):
            yield number, row


def _read_rows(numbered: Iterator[tuple[int, list[str]]], names: list[str]) -> Iterator[Chunk]:
    rows: list[tuple[int, list[str]]] = []
    for number, row in numbered:
        rows.append((number, row))
        if len(rows) >= _ROWS:
            yield _chunk(names, rows, number, [])
            rows = []
    if rows:
        yield _chunk(names, rows, rows[-1][0], [])


def _chunk(names: list[str], rows: list[tuple[int, list[str]]], through: int, rejected: list[Rejected]) -> Chunk:
    import pyarrow as pa

    columns = [pa.array([row[at] for _, row in rows], pa.string()) for at in range(len(names))]
    numbers = pa.array([number for number, _ in rows], pa.int64())
    return Chunk(pa.table([*columns, numbers], names=[*names, ROW]), through, rejected)


def _listing(names: list[str], most: int = 30) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

"""Parquet sources of feature views for DuckDB: a file, a folder of parts, or either in S3."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from contracts.model_memory import memory_limit as memory_here
from feature_repo.stores.keys import EXPECTED, NUMERAL, SPACE, canonical_column

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

# What a plan's dtypes are in DuckDB.
SQL_TYPES = {
    "string": "VARCHAR",
    "bytes": "BLOB",
    "int64": "BIGINT",
    "int32": "INTEGER",
    "float64": "DOUBLE",
    "float32": "FLOAT",
    "bool": "BOOLEAN",
    "timestamp": "TIMESTAMPTZ",
}
NEVER = "-9223372036854775808"
_INTEGERS = {f"{sign}{size}INT" for sign in ("", "U") for size in ("TINY", "SMALL", "BIG", "HUGE")} | {
    "INTEGER",
    "UINTEGER",
}
_ESCAPED = "".join(f"\\x{{{ord(sign):x}}}" for sign in SPACE)  # as a regular expression of RE2 has them
_LEAST = 1_200_000_000  # bytes for DuckDB, where that is no more than half of the memory
_SHARE = 4  # a quarter of more memory: frames of Python and Arrow, and other joins, are beside it
PART = 1 << 40  # rows of one file: positions count through all files of a source


@contextlib.contextmanager
def connect(memory_limit: str = "", threads: int = 0) -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty database in memory that spills beyond the limit, to a folder of its own; moments are UTC.

    memory_limit: as DuckDB has it, such as 1200MB; "" is a `share` of the memory that this process may have.
    threads: 0 is one for each core.
    """
    import duckdb

    with tempfile.TemporaryDirectory(prefix="fairlead-spilled-") as spilled, duckdb.connect() as connection:
        connection.execute(
            f"SET TimeZone='UTC'; SET memory_limit={text(memory_limit or share(memory_here()))}; "
            f"SET preserve_insertion_order=false; SET temp_directory={text(spilled)}"
            + (f"; SET threads={threads}" if threads else "")
        )
        yield connection


def share(memory: int) -> str:
    """What DuckDB may have, as it writes it, in a process that may have so many bytes.

    A quarter, or 1200 MB where that is more, but never more than half.
    """
    return f"{max(memory // _SHARE, min(_LEAST, memory // 2)) >> 20}MiB"


def source_files(source: str, folder: str | Path, view: str) -> list[str]:
    """The files of a source, sorted: parts that are written later have later names.

    Raises:
        PlatformError: there is none.
    """
    if source.startswith("s3://"):
        files = _remote_files(source)
    else:
        path = Path(folder) / source
        files = sorted(str(part) for part in path.glob("**/*.parquet")) if path.is_dir() else [str(path)]
        files = [file for file in files if Path(file).exists()]
    if not files:
        where = source if source.startswith("s3://") else Path(folder) / source
        raise PlatformError(
            f"feature history is missing: {where}",
            detail=f"feature view {view} reads it",
            fix="run the materialise step for this dataset version",
            code="missing_history",
            file=str(where),
        )
    return files


def scan(connection: duckdb.DuckDBPyConnection, files: Sequence[str], first: int = 0) -> str:
    """A relation of all rows with their position `pos`; rows that were written later have a higher one.

    first: how many files of the source come before these.
    """
    listed = ", ".join(text(file) for file in files)
    if files[0].startswith("s3://"):
        _register_s3(connection)
        listed = ", ".join(text(f"objects://{file.removeprefix('s3://')}") for file in files)
    if len(files) == 1:
        place = f"file_row_number + {first * PART}" if first else "file_row_number"
        return f"(SELECT *, {place} AS pos FROM read_parquet({listed}, file_row_number=true))"
    # Later parts may have columns that earlier ones lack.
    place = f"(list_position([{listed}], filename) + {first - 1}) * {PART} + file_row_number"
    options = "file_row_number=true, filename=true, union_by_name=true"
    return f"(SELECT *, {place} AS pos FROM read_parquet([{listed}], {options}))"


def schema_of(file: str) -> pa.Schema:
    """The columns of one of `source_files`."""
    from pyarrow.parquet import read_schema

    if not file.startswith("s3://"):
        return read_schema(file)
    with s3().open_input_file(file.removeprefix("s3://")) as opened:
        return read_schema(opened)


def moment(view: Mapping[str, Any]) -> str:
    """SQL of a row's event, in microseconds since 1970; null where there is no moment."""
    return f"epoch_us(TRY_CAST({quote(view['timestamp_field'])} AS TIMESTAMPTZ))"


def created(view: Mapping[str, Any]) -> str:
    """SQL of when a row was made, in microseconds since 1970; the past where that is not known."""
    if not view["created_field"]:
        return NEVER
    return f"coalesce(epoch_us(CAST({quote(view['created_field'])} AS TIMESTAMPTZ)), {NEVER})"


def column(view: Mapping[str, Any], name: str) -> str:
    """SQL of a field: sources may call it otherwise."""
    return quote(view.get("columns", {}).get(name, name))


class SourceKeys:
    """Keys of sources as SQL of their canonical form (`keys.py`): null where there is no key.

    Attributes:
        refused: values that are no key, as the functions of SQL met them.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self.refused: list[Any] = []
        self._made: set[str] = set()

    def column(self, relation: str, name: str, dtype: str) -> str:
        """SQL of the key that `name`, SQL itself, is in a relation."""
        described = self._connection.execute(f"DESCRIBE SELECT {name} FROM {relation}").fetchone()
        assert described is not None
        kind = str(described[1])
        if dtype in ("bytes", "timestamp") or (kind in _INTEGERS and dtype != "string"):
            return f"CAST({name} AS {SQL_TYPES[dtype]})"
        if kind in _INTEGERS:
            made = f"CAST({name} AS VARCHAR)"
        elif kind == "VARCHAR":  # the function is for the few that need it
            odd = text(f"^[{_ESCAPED}]|[{_ESCAPED}]$|^(?:{NUMERAL})$")
            made = f"CASE WHEN regexp_matches({name}, {odd}) THEN {self._function(kind)}({name}) ELSE {name} END"
        else:
            made = f"{self._function(kind)}({name})"
        return made if dtype == "string" else f"TRY_CAST({made} AS {SQL_TYPES[dtype]})"

    def _function(self, kind: str) -> str:
        function = quote(f"canonical key of {kind}")
        if kind not in self._made:
            self._made.add(kind)
            kinds: list[Any] = [kind]  # names of types, which are more than DuckDB's stubs know
            how: dict[str, Any] = {"type": "arrow", "null_handling": "special"}
            self._connection.create_function(f"canonical key of {kind}", self._canonical, kinds, "VARCHAR", **how)
        return function

    def _canonical(self, values: Any) -> Any:
        texts, refused = canonical_column(values)
        self.refused += values.filter(refused).slice(0, 3).to_pylist()
        return texts

    def check(self, view: str) -> None:
        """Refuse what was met.

        Raises:
            PlatformError: a source of `view` has a value that is no key.
        """
        if self.refused:
            raise PlatformError(
                f"the source of feature view {view} has a value that is no key: {self.refused[0]!r}",
                detail=f"{type(self.refused[0]).__name__}; accepted: {EXPECTED}",
                fix="correct the source",
                code="bad_key",
                view=view,
            )


def _remote_files(source: str) -> list[str]:
    from pyarrow.fs import FileSelector, FileType

    files, path = s3(), source.removeprefix("s3://").rstrip("/")
    found = files.get_file_info(path)
    if found.type == FileType.File:
        return [source]
    parts = files.get_file_info(FileSelector(path, recursive=True, allow_not_found=True))
    found = [part for part in parts if part.type == FileType.File and part.path.endswith(".parquet")]
    return sorted(f"s3://{part.path}" for part in found)


def s3() -> Any:
    """The files of S3, by the standard AWS variables; an endpoint of one's own is addressed by path."""
    from pyarrow.fs import S3FileSystem

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return S3FileSystem(endpoint_override=endpoint, region=os.environ.get("AWS_REGION"), connect_timeout=10)


def _register_s3(connection: duckdb.DuckDBPyConnection) -> None:
    """Let DuckDB read through Arrow: its own extension for S3 would have to be downloaded."""
    from fsspec.implementations.arrow import ArrowFSWrapper

    class Objects(ArrowFSWrapper):  # type: ignore[misc]
        protocol = "objects"

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return str(path).removeprefix("objects://")

        def glob(self, path: str, **_: Any) -> list[str]:
            return [path]

    if "objects" not in connection.list_filesystems():
        connection.register_filesystem(Objects(s3(), skip_instance_cache=True))


def quote(name: str) -> str:
    """A name as a SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """A value as a SQL literal."""
    return "'" + value.replace("'", "''") + "'"

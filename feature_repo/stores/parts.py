"""Rows cut into parts by the hash of a key, so that each part can be computed alone, in another process or machine.

All rows of a key are in one part, in their order. What works on a part is the code that works on all rows where one
machine does. Parts are files in a folder, or below an address of S3, that all workers see; each is written whole or not
at all, so that any piece of work can be done again. The hash is DuckDB's, which is the same in every process.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from contracts import storage
from contracts.errors import PlatformError
from feature_repo.stores.parquet_sources import connect, quote, s3, scan, text

if TYPE_CHECKING:
    import duckdb

SHARES = 4  # of the source for each worker: who is done early takes another one
_SKEWED = 0.2  # share of all rows that one key has, from which on it is named
_UNEVEN = 0.1  # of all rows, that a part has more than its share


class Engine(Protocol):
    """Where parts are computed.

    Attributes:
        workers: how many pieces of work are done at once.
        memory_limit: of DuckDB for one piece of work, such as 1200MB; "" is a share of the process's memory.
    """

    workers: int
    memory_limit: str

    def parts(self, rows: int) -> int:
        """Into how many parts so many rows are cut; 1: they are not cut, and are computed in this process."""
        ...

    def map(self, work: str, items: Sequence[Mapping[str, Any]]) -> list[Any]:
        """What ``module:function`` gives for each item, in their order; items and results are JSON."""
        ...

    def place(self) -> AbstractContextManager[str]:
        """A folder, or an address of S3, that all workers see; it is gone afterwards."""
        ...

    def shared(self, files: Sequence[str], place: str) -> list[str]:
        """Addresses by which all workers see `files` of this machine; they may be copied below `place`."""
        ...

    def say(self, message: str) -> None:
        """Tell who runs it."""
        ...


def function(name: str) -> Callable[..., Any]:
    """What ``module:function`` names."""
    module, _, attribute = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return found


def map_parts(engine: Engine, files: Sequence[str], key: str, columns: Sequence[str], work: str, target: Path) -> int:
    """Compute rows by a key: one file at `target` of an engine that does not cut, else a folder of parts there.

    Args:
        files: Parquet of this machine.  key: name of the column that a part has all rows of.
        columns: those that the work reads, `key` among them.
        work: ``module:function``, called with a list of files (the rows, in order) and the file to write.

    Returns:
        How many parts were computed.

    Raises:
        PlatformError: a file cannot be read, or the work failed.
    """
    rows = count_rows(files)
    if (parts := engine.parts(rows)) <= 1:
        function(work)(list(files), str(target))
        return 1
    target.mkdir(parents=True, exist_ok=True)
    with engine.place() as place:
        given = [{"columns": list(columns), "keys": [key], **share} for share in shares(engine, files, place)]
        found = cut(engine, f"{__name__}:cut_rows", given, parts, storage.join(place, "cut"))
        name_skew(engine, found, [key])
        items = [
            {"work": work, "files": part.files, "out": storage.join(place, "out", f"part-{number:05d}.parquet")}
            for number, part in enumerate(found)
            if part.rows
        ]
        engine.map(f"{__name__}:work_on_part", items)
        for item in items:
            fetch(str(item["out"]), target)
    return len(items)


class Part:
    """Files of a part, in the order of its rows, and how many it has."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.rows = 0


def shares(engine: Engine, files: Sequence[str], place: str) -> list[dict[str, Any]]:
    """The files of a source as pieces of work: `files`, and `first`, how many come before them."""
    seen = engine.shared(files, place)
    count = min(len(seen), engine.workers * SHARES)
    bounds = [round(len(seen) * at / count) for at in range(count + 1)]
    return [{"files": seen[a:b], "first": a} for a, b in itertools.pairwise(bounds)]


def cut(engine: Engine, work: str, given: Sequence[Mapping[str, Any]], parts: int, place: str) -> list[Part]:
    """Cut shares of a relation into parts by `work`, which writes them by `write_parts`; parts without rows too."""
    items = [{**item, "parts": parts, "out": place, "share": at, "limit": engine.memory_limit}
             for at, item in enumerate(given)]  # fmt: skip
    found = [Part() for _ in range(parts)]
    for written in engine.map(work, items):  # in the order of the shares
        for number, rows, files in written:
            found[number].files += files
            found[number].rows += rows
    return found


def cut_rows(item: Mapping[str, Any]) -> list[Any]:
    """Work: some columns of a share of Parquet files, cut by one of them."""
    with connect(item["limit"], threads=1) as connection:
        rows = scan(connection, _readable(item["files"]), item["first"])
        listed = ", ".join(map(quote, item["columns"]))
        return write_parts(connection, f"SELECT {listed} FROM {rows}", item)


def write_parts(connection: duckdb.DuckDBPyConnection, select: str, item: Mapping[str, Any]) -> list[Any]:
    """Write the rows of a query to a file for each part. Rows without a key are left out.

    Args:
        connection: of one thread, which keeps the order of rows.
        item: keys (columns of the query), parts, out (address), share (number of this piece of work).

    Returns:
        number, rows and files of each part that got rows.
    """
    from pyarrow import parquet

    keys = ", ".join(map(quote, item["keys"]))
    there = " AND ".join(f"{quote(key)} IS NOT NULL" for key in item["keys"])
    with scratch(item["out"]) as folder:
        connection.execute(
            f"COPY (SELECT *, CAST(hash({keys}) % {item['parts']} AS INTEGER) AS part FROM ({select}) WHERE {there}) "
            f"TO {text(str(folder / 'cut'))} (FORMAT parquet, PARTITION_BY (part), COMPRESSION lz4_raw)"
        )
        written = []
        for part in sorted((folder / "cut").glob("part=*"), key=lambda path: int(path.name.partition("=")[2])):
            number, files, rows = int(part.name.partition("=")[2]), [], 0
            pieces = sorted(part.glob("*.parquet"), key=lambda path: int(path.stem.rpartition("_")[2]))
            for at, piece in enumerate(pieces):
                rows += parquet.read_metadata(piece).num_rows
                files.append(storage.join(item["out"], f"part-{number:05d}", f"{item['share']:05d}-{at:03d}.parquet"))
                publish(piece, files[-1])
            written.append([number, rows, files])
        return written


def work_on_part(item: Mapping[str, Any]) -> None:
    """Work: call ``item["work"]`` with the files of a part, here, and the file to write, which is then published."""
    with scratch(item["out"]) as folder, files_here(item["files"], folder) as files:
        made = folder / "made.parquet"
        function(item["work"])(files, str(made))
        publish(made, item["out"])


def name_skew(engine: Engine, parts: Sequence[Part], keys: Sequence[str]) -> None:
    """Say which key has so many rows that its part is computed long after the others."""
    rows = sum(part.rows for part in parts)
    largest = max(parts, key=lambda part: part.rows)
    if largest.rows < rows / len(parts) + _UNEVEN * rows:
        return
    given = {"files": largest.files, "keys": list(keys), "limit": engine.memory_limit}
    ((key, count),) = engine.map(f"{__name__}:largest_key", [given])
    if count >= _SKEWED * rows:
        engine.say(
            f"{', '.join(keys)} {key} has {count:,} of {rows:,} rows ({count / rows:.0%}): they are computed in one "
            f"part of {len(parts)}, by one worker"
        )


def largest_key(item: Mapping[str, Any]) -> list[Any]:
    """Work: the key that most rows of a part have, in words, and their number."""
    keys = ", ".join(map(quote, item["keys"]))
    with connect(item["limit"], threads=1) as connection:
        rows = scan(connection, _readable(item["files"]))
        query = f"SELECT {keys}, count(*) AS number FROM {rows} GROUP BY ALL ORDER BY number DESC, 1 LIMIT 1"
        *key, count = connection.execute(query).fetchall()[0]
    return [", ".join(map(repr, key)), count]


def count_rows(files: Sequence[str]) -> int:
    """Rows of Parquet files, by what their ends say.

    Raises:
        PlatformError: ``code="bad_source"``, with the file that is none.
    """
    import pyarrow as pa
    from pyarrow import parquet

    rows = 0
    for file in files:
        remote = file.startswith("s3://")
        try:
            found = parquet.read_metadata(file.removeprefix("s3://"), filesystem=s3() if remote else None)
        except (pa.ArrowInvalid, EOFError) as err:
            raise PlatformError(
                f"{file} is broken: it cannot be read as Parquet",
                detail=f"file {list(files).index(file) + 1} of {len(files)}: {str(err)[:200]}",
                fix="make it again, or take it out of the folder",
                code="bad_source",
                file=file,
            ) from err
        rows += found.num_rows
    return rows


@contextlib.contextmanager
def scratch(address: str) -> Iterator[Path]:
    """A folder of this machine that is gone afterwards; on the disk of `address`, where that is one of a disk."""
    where = None
    if not storage.is_remote(address):
        where = Path(address).parent
        where.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".work-", dir=where) as name:
        yield Path(name)


def publish(file: Path, address: str) -> None:
    """Make a file of `scratch` be at `address`, whole or not at all."""
    if storage.is_remote(address):
        storage.upload_file(file, address)
        return
    Path(address).parent.mkdir(parents=True, exist_ok=True)
    os.replace(file, address)


def fetch(address: str, folder: Path) -> None:
    """Move what was published into a folder of this machine, under its own name."""
    if storage.is_remote(address):
        storage.copy_here(address, folder)
        return
    shutil.move(address, folder / Path(address).name)


@contextlib.contextmanager
def files_here(addresses: Sequence[str], folder: Path) -> Iterator[list[str]]:
    """The files at `addresses` on this machine, in order: themselves, or copies in `folder`."""
    found = []
    for number, address in enumerate(addresses):
        if storage.is_remote(address):
            found.append(str(storage.copy_here(address, folder / f"{number:05d}")))
        else:
            found.append(address)
    yield found


def _readable(files: Sequence[str]) -> list[str]:
    """The files, none of them broken."""
    count_rows(files)
    return list(files)

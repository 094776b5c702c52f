"""Appending rows to Parquet sources, here or in S3, whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contracts.errors import PlatformError
from feature_repo.stores.parquet_sources import s3


def append_remote(source: str, table: pa.Table) -> None:
    """Add rows to a source ``s3://bucket/folder`` as a new part; an object appears whole or not at all.

    Raises:
        PlatformError: the source is one object, to which nothing can be added.
    """
    files, path = check_remote(source)
    pq.write_table(table, f"{path}/{_part()}", filesystem=files)


def check_remote(source: str) -> tuple[Any, str]:
    """The files of S3 and the path of a folder there.

    Raises:
        PlatformError: the source is one object, to which nothing can be added.
    """
    from pyarrow.fs import FileType

    files, path = s3(), source.removeprefix("s3://").rstrip("/")
    if path.endswith(".parquet") or files.get_file_info(path).type == FileType.File:
        raise PlatformError(
            f"rows cannot be appended to {source}",
            detail="it is one object, and objects cannot grow",
            fix="make the source a folder of parts: s3://bucket/folder",
            code="bad_source",
        )
    return files, path


def append_rows(path: Path, table: pa.Table) -> None:
    """Add rows to a source: a new part when it is a folder, else to the file."""
    if path.is_dir():
        write_file(path / _part(), table)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        if not path.exists():
            write_file(path, table)
            return
        before = pq.ParquetFile(path)
        rows = table.select(before.schema_arrow.names).cast(before.schema_arrow)
        with _renamed(path) as made, pq.ParquetWriter(made, before.schema_arrow) as writer:
            for group in range(before.num_row_groups):
                writer.write_table(before.read_row_group(group))
            writer.write_table(rows)


def _part() -> str:
    """A name that sorts behind those of earlier parts."""
    return f"pushed-{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.parquet"


def write_file(path: Path, table: pa.Table) -> None:
    """One Parquet file, there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _renamed(path) as made:
        pq.write_table(table, made)


@contextlib.contextmanager
def _renamed(path: Path) -> Iterator[Path]:
    """A file beside `path` that takes its place at the end."""
    made = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        yield made
        os.replace(made, path)
    finally:
        made.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer at a time; the lock ends with the process."""
    with path.with_name(f".{path.name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield

"""Where image files come from: a folder for each class, a manifest of paths and labels, or an archive.

A class is the name of the folder that a file lies in.
"""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from posixpath import normpath
from typing import IO, TYPE_CHECKING, Any, TypeVar

from contracts import storage
from contracts.errors import PlatformError
from pipelines.data.chunks import text_format
from pipelines.data.origins import address_of
from pipelines.data.sources import column_names, kind_of, read_chunks

if TYPE_CHECKING:
    from pipelines.task import DataConfig

T = TypeVar("T")
R = TypeVar("R")
MAX_BYTES = 64 << 20  # of one file
SUFFIXES = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG"),
    **dict.fromkeys((".bmp", ".dib"), "BMP"),
    ".png": "PNG",
    ".webp": "WEBP",
    ".gif": "GIF",
}
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_S3 = "s3://"
_AHEAD = 8  # files in S3 that are fetched before they are asked for
_PATHS = ("image", "path", "file", "filename")  # columns of a manifest that are looked for


class RefusedError(Exception):
    """A file that is no image to learn from; its text says why."""


@dataclass(frozen=True)
class Entry:
    """One file of a source: its name there, what it is said to show, such as its class ("" for none), and how its bytes
    are read.

    settle: the label of an image of this width and height, where it depends on them; raises `RefusedError` if it
    cannot be right.
    """

    name: str
    label: str
    read: Callable[[], bytes]
    settle: Callable[[tuple[int, int]], str] | None = None


def entries(source: str, column: str, label: str, data: DataConfig) -> Iterator[Entry]:
    """The files of `source` in their order; each must be read before the next is asked for.

    `column` and `label` are what a manifest calls its columns, unless `data.columns` says otherwise; no label: ""

    Raises:
        PlatformError: ``code="bad_source"``: not there, or not of a kind that is read.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _of_folder(path)
    if path.is_file() and path.name.lower().endswith(ARCHIVES):
        return _of_zip(path) if path.name.lower().endswith(".zip") else _of_tar(path)
    if path.is_file() and kind_of(path):
        return _of_manifest(path, column, label, data)
    raise PlatformError(
        f"{'no images can be read from' if path.exists() else 'source not found:'} {source}",
        detail=f"accepted: a folder for each class; a manifest (CSV, JSON lines, Parquet); {', '.join(ARCHIVES)}",
        fix="give the folder above the folders of the classes, or a manifest with a path and a label in each row",
        code="bad_source",
    )


def bounded(stream: IO[bytes] | None) -> bytes:
    """The bytes of a file, at most one more than is accepted, whatever a header says: an archive may hold a bomb."""
    if stream is None:
        raise RefusedError("is no file")
    with stream:
        return stream.read(MAX_BYTES + 1)


def _class_of(name: str) -> str:
    """The folder that a file lies in."""
    return PurePosixPath(name).parent.name


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


def _of_folder(root: Path) -> Iterator[Entry]:
    found = sorted(path for path in root.rglob("*") if path.is_file())
    for path in found:
        name = path.relative_to(root).as_posix()
        if not _hidden(name) and (path.parent != root or path.suffix.lower() in SUFFIXES):
            yield Entry(name, _class_of(name), lambda path=path: bounded(path.open("rb")))  # type: ignore[misc]


def _of_zip(path: Path) -> Iterator[Entry]:
    try:
        with zipfile.ZipFile(path) as archive:
            for item in archive.infolist():
                if not item.is_dir() and not _hidden(item.filename):
                    yield Entry(
                        item.filename,
                        _class_of(item.filename),
                        lambda item=item: bounded(archive.open(item)),  # type: ignore[misc]
                    )
    except zipfile.BadZipFile as err:
        raise _damaged(path, err) from err


def _of_tar(path: Path) -> Iterator[Entry]:
    try:
        with tarfile.open(path, "r|*") as archive:
            for item in archive:
                if item.isfile() and not _hidden(item.name):
                    yield Entry(
                        item.name,
                        _class_of(item.name),
                        lambda item=item: bounded(archive.extractfile(item)),  # type: ignore[misc]
                    )
    except (tarfile.TarError, EOFError, zlib.error) as err:
        raise _damaged(path, err) from err


def _damaged(path: Path, err: Exception) -> PlatformError:
    return PlatformError(
        f"{path.name} is a damaged archive", detail=str(err)[:200], fix="pack it again", code="bad_source"
    )


def _of_manifest(path: Path, column: str, label: str, data: DataConfig) -> Iterator[Entry]:
    """The rows of a manifest, here or in S3: paths beside it or below, addresses in S3, or, in Parquet, the files."""
    form = text_format(data)
    names = column_names(path, form)
    said = data.columns.get(column)
    place = said or next((name for name in _PATHS if name in names), "")
    said_label = data.columns.get(label, label)
    for wanted, key in ((place, column), (said_label, label))[: 2 if label else 1]:
        if wanted not in names:
            raise PlatformError(
                f"{path.name} has no column {wanted or 'with the paths of images'!r}",
                detail=f"columns there: {', '.join(names[:40])}",
                fix=f"say which one it is: --set data.columns.{key}=NAME",
                code="bad_schema",
                column=key,
            )
    root = path.parent.resolve()
    beside = address_of(path).rpartition("/")[0]

    def rows() -> Iterator[tuple[Entry, str]]:
        number = 0
        for chunk in read_chunks(path, names, form):
            labels = chunk.table.column(said_label).to_pylist() if label else [None] * chunk.table.num_rows
            for given, name in zip(chunk.table.column(place).to_pylist(), labels, strict=True):
                number += 1
                yield _row(root, beside, given, "" if name is None else str(name).strip(), number)

    return fetched_ahead(rows())


def fetched_ahead(found: Iterator[tuple[Entry, str]]) -> Iterator[Entry]:
    """The same in the same order; of those with an address in S3 the next few are on their way, since each waits for
    the network."""
    waiting: deque[Entry] = deque()
    with ThreadPoolExecutor(_AHEAD) as pool:
        for entry, address in found:
            if address:
                storage.ready(address)
                entry = replace(entry, read=pool.submit(entry.read).result)
            waiting.append(entry)
            if len(waiting) > _AHEAD:
                yield waiting.popleft()
        yield from waiting


def in_order(call: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """What `call` says of each item, in their order, a few at a time; the first that fails ends it."""
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(_AHEAD) as pool:
        for item in items:
            waiting.append(pool.submit(call, item))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _row(root: Path, beside: str, given: Any, label: str, number: int) -> tuple[Entry, str]:
    """A row's file and its address in S3, "" if it is on this disk; paths are below the folder `root`, or below the
    address `beside`."""
    if isinstance(given, dict):  # as the library datasets writes images
        given = given.get("bytes") or given.get("path")
    if isinstance(given, bytes):
        return Entry(f"row {number}", label, lambda: given), ""
    name = str(given or "").strip()
    address = name if name.startswith(_S3) else ""
    if beside and name and "://" not in name and not f"{(below := normpath(name))}/".startswith(("/", "../")):
        address = storage.join(beside, below)

    def read() -> bytes:
        if not name:
            raise RefusedError("its row names no file")
        if address:
            return of_s3(address)
        if "://" in name:
            raise RefusedError(
                "is an address that is not read; accepted: s3://bucket/key, and paths below the manifest"
            )
        path = (root / name).resolve()
        if beside or not path.is_relative_to(root):
            raise RefusedError("lies outside of the folder of its manifest")
        return bounded(path.open("rb"))

    return Entry(name or f"row {number}", label, read), address


def of_s3(address: str) -> bytes:
    """The bytes of an object, as `bounded`; a storage that refuses or does not answer ends the run."""
    try:
        return bounded(storage.open_parts(address))
    except PlatformError as err:
        if err.code != "not_found":
            raise
        raise RefusedError("is not there") from None

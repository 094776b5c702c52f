"""Image files as rows of a data set: what is no image is refused with its reason, and what is kept of the others.

Of a file its bytes are kept, without what is no picture: places, people, comments, scripts and thumbnails in its
metadata, and bytes behind its end.
"""

from __future__ import annotations

import difflib
import hashlib
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from contracts.engine import MAX_PIXELS
from contracts.errors import PlatformError
from contracts.images import BROKEN, FORMATS, TooLargeError, open_image, upright
from contracts.problems.detection import read_truth
from pipelines.data.chunks import ROW, Chunk, Rejected, empty
from pipelines.data.image_metadata import stripped
from pipelines.data.image_sources import MAX_BYTES, SUFFIXES, Entry, RefusedError, entries
from pipelines.data.image_traits import COLUMNS, traits

if TYPE_CHECKING:
    from pipelines.task import DataConfig, Task

_CHUNK_ROWS, _CHUNK_BYTES = 2_048, 8 << 20
_UNREADABLE = (
    OSError, zlib.error, zipfile.BadZipFile, tarfile.TarError, EOFError, RuntimeError, NotImplementedError,
)  # fmt: skip


def takes_images(task: Task) -> str:
    """The column of a task that holds files; "" where it has none."""
    return next((column.name for column in task.columns if column.dtype == "bytes"), "")


def fingerprint(source: str, task: Task, data: DataConfig, report: Callable[..., None]) -> dict[str, Any]:
    """The source as one file of a dataset version: names, labels and bytes of all files decide its hash."""
    digest, size, number = hashlib.sha256(), 0, 0
    for number, entry in enumerate(_entries(source, task, data), 1):
        size += _note(digest, entry, _content(entry))
        if number % 1000 == 0:
            report(number, None, files=number)
    return {"name": Path(source).expanduser().name, "bytes": size, "sha256": digest.hexdigest(), "rows": number}


def read_images(source: str, task: Task, data: DataConfig, known: dict[str, Any]) -> Iterator[Chunk]:
    """All files as rows with the task's columns, in chunks of bounded memory; what is no image is rejected.

    Raises:
        PlatformError: the files are not those of the fingerprint `known` any more, or there are none.
    """
    digest, held, number = hashlib.sha256(), 0, 0
    rows: list[dict[str, Any]] = []
    rejected: list[Rejected] = []
    classes = data.classes or task.classes or ()
    for number, entry in enumerate(_entries(source, task, data), 1):
        content = _content(entry)
        _note(digest, entry, content)
        try:
            row = inspected(entry.name, content)
            shows = _labelled(entry, row)
            _check_classes(entry, shows, classes)
            rows.append({**row, ROW: number, task.id: entry.name, task.label: shows})
            held += len(row["content"])
        except RefusedError as err:
            label = entry.label if entry.label and entry.settle is None else None
            rejected.append(Rejected(number, takes_images(task), "", str(err), label, file=entry.name))
        if len(rows) + len(rejected) >= _CHUNK_ROWS or held >= _CHUNK_BYTES:
            yield Chunk(table_of(rows, task), number, rejected)
            rows, rejected, held = [], [], 0
    if rows or rejected:
        yield Chunk(table_of(rows, task), number, rejected)
    if not number:
        raise empty(source)
    if digest.hexdigest() != known["sha256"]:
        raise PlatformError(
            f"{known['name']} changed while it was read", fix="run again when it is complete", code="bad_source"
        )


def batches(source: str, column: str, data: DataConfig) -> Iterator[Any]:
    """Files to be scored, as tables of ``file`` (its name), `column` (its bytes) and `ROW`, of bounded memory.

    Raises:
        PlatformError: ``code="bad_input"``, naming a file that is no image: every one must get an answer.
    """
    import pyarrow as pa

    def table(rows: list[tuple[str, bytes, int]]) -> Any:
        kinds = (pa.string(), pa.binary(), pa.int64())
        columns = [pa.array(values, kind) for values, kind in zip(zip(*rows, strict=True), kinds, strict=True)]
        return pa.table(columns, names=["file", column, ROW])

    rows: list[tuple[str, bytes, int]] = []
    held = number = 0
    for number, entry in enumerate(entries(source, column, "", data), 1):
        try:
            content: bytes = inspected(entry.name, _content(entry))["content"]
        except RefusedError as err:
            raise PlatformError(
                f"{entry.name} {err}", fix="correct the file, or leave it out", code="bad_input", row=number
            ) from None
        rows.append((entry.name, content, number))
        held += len(content)
        if len(rows) >= _CHUNK_ROWS or held >= _CHUNK_BYTES:
            yield table(rows)
            rows, held = [], 0
    if rows:
        yield table(rows)
    if not number:
        raise empty(source)


def sample_table(files: Iterable[tuple[str, bytes, str]], task: Any) -> Any:
    """Files that a task makes (name, content, class) as a table of its columns."""
    made = [{**inspected(name, file), task.id: name, task.label: label} for name, file, label in files]
    return table_of([{**row, ROW: at} for at, row in enumerate(made, 1)], task).drop_columns([ROW])


def inspected(name: str, content: bytes | str) -> dict[str, Any]:
    """``content`` to keep of a file, and its traits (`pipelines.data.image_traits`).

    `content` is its bytes, or why there are none.

    Raises:
        RefusedError: it is no image, is cut off, too large, or not of the kind that its name says.
    """
    if isinstance(content, str):
        raise RefusedError(content)
    if not content:
        raise RefusedError("is empty")
    try:
        image = open_image(content, MAX_PIXELS)
        kind = "JPEG" if image.format == "MPO" else str(image.format)
        turned = upright(image)
        turned.load()
        shown = turned.convert("RGB")
    except TooLargeError as err:
        raise RefusedError(f"has {err} pixels; at most {MAX_PIXELS} are read") from None
    except BROKEN as err:
        raise RefusedError(_unreadable(content, err)) from None
    suffix = PurePosixPath(name).suffix.lower()
    if suffix and SUFFIXES.get(suffix) != kind:
        raise RefusedError(f"is {kind}, its name says {suffix}")
    kept = stripped(content, kind, turned)
    return {"content": kept, **traits(shown, kept)}


def _unreadable(content: bytes, err: Exception) -> str:
    start = content[:256].lstrip()
    if start.startswith((b"<svg", b"<?xml", b"<!DOCTYPE svg")):
        return f"is SVG, which has no pixels; accepted: {', '.join(FORMATS)}"
    if type(err).__name__ == "UnidentifiedImageError":
        return f"is no image; accepted: {', '.join(FORMATS)}"
    return f"is cut off or damaged: {str(err)[:80]}"


def _entries(source: str, task: Task, data: DataConfig) -> Iterator[Entry]:
    """The files of a source; a task whose labels are no classes says itself how they are read, by its ``entries``."""
    read = getattr(task, "entries", entries)
    found: Iterator[Entry] = read(source, takes_images(task), task.label, data)
    return found


def _labelled(entry: Entry, row: dict[str, Any]) -> str:
    if entry.settle is not None:
        return entry.settle((row["width"], row["height"]))
    if not entry.label:
        raise RefusedError("has no class: it lies in no folder of one, or its row has no label")
    return entry.label


def _check_classes(entry: Entry, label: str, classes: Sequence[str]) -> None:
    """Refuse a class that is none of those that are accepted, if there are some: most are typing errors."""
    found = [label] if entry.settle is None else [one.label for one in read_truth(label)]
    for at, name in enumerate(found, 1):
        if classes and name not in classes:
            folded = {one.casefold(): one for one in classes}
            near = [folded[one] for one in difflib.get_close_matches(name.casefold(), folded, 1)]
            what = f"object {at} is of class" if entry.settle else "has class"
            more = f"the nearest is {near[0]!r}" if near else f"accepted: {', '.join(sorted(classes)[:20])}"
            raise RefusedError(f"{what} {name!r}, which is not among data.classes; {more}")


def table_of(rows: list[dict[str, Any]], task: Task) -> Any:
    """Rows of `inspected` as a table of the task's columns and `ROW`."""
    import pyarrow as pa

    kinds = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bytes": pa.binary()}
    named = {takes_images(task): "content"}
    names = [column.name for column in task.columns if column.name in (task.id, task.label, *COLUMNS, *named)]
    dtypes = {column.name: column.dtype for column in task.columns}
    columns = [pa.array([row[named.get(name, name)] for row in rows], kinds[dtypes[name]]) for name in names]
    return pa.table([*columns, pa.array([row[ROW] for row in rows], pa.int64())], names=[*names, ROW])


def _content(entry: Entry) -> bytes | str:
    """The bytes of a file, or why it has none that are taken."""
    try:
        content = entry.read()
    except RefusedError as err:
        return str(err)
    except _UNREADABLE as err:
        return f"cannot be read: {str(err)[:80]}"
    return content if len(content) <= MAX_BYTES else f"is larger than {MAX_BYTES >> 20} MB"


def _note(digest: Any, entry: Entry, content: bytes | str) -> int:
    body = content.encode() if isinstance(content, str) else content
    digest.update(f"{entry.name}\0{entry.label}\0{len(body)}\0".encode("utf-8", "surrogatepass"))
    digest.update(body)
    return len(body)

"""The rows of files of tables, chunk by chunk: read here, or file by file by the workers of a run's engine.

A worker reads a file and treats its personal data as one process does. What it found is counted by who asked, in the
order of the rows, so that the version is the same to the last bit, and so is what a run is refused for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts import storage
from contracts.errors import PlatformError
from feature_repo.stores import parts
from pipelines.data.chunks import ROW, Chunk, Rejected, TextFormat, read_table, text_format, write_table
from pipelines.data.columns import NUMBERED, select
from pipelines.data.delimited import undecodable
from pipelines.data.personal import PersonalData
from pipelines.data.sources import column_names, read_chunks
from pipelines.io import events
from pipelines.task import Task, TaskConfig, dump_config
from pipelines.tasks import get_task, load_config

if TYPE_CHECKING:
    from feature_repo.stores.parts import Engine
    from pipelines.task import DataConfig

_STRAY = 2  # rows in another encoding are bad rows, more are a file in another encoding


def from_files(task: Task, config: TaskConfig, paths: list[Path], files: list[dict[str, Any]]) -> Iterator[Chunk]:
    """All files in order, rows numbered through; notes each file's number of rows in `files`."""
    data, form, before = config.data, text_format(config.data), 0
    report = events.progress("ingest")
    names: list[str] = []
    for path, known in zip(paths, files, strict=True):
        names = _names(path, form, paths[0], names)
        here = column_names(path, form)
        selection = select(here, task, data, path)
        last = lost = 0
        for chunk in read_chunks(path, here, form, _label(task, data)):
            last = chunk.through
            lost += _lost(chunk)
            chunk = _moved(chunk, before)
            report(before + last, None, reading=path.name)
            yield replace(chunk, table=selection.apply(chunk.table).combine_chunks())
        _end(path, known, form, data, lost, last)
        before += last


def shareable(config: TaskConfig) -> bool:
    """Whether a file can be read alone: none of its columns is the number of a row among all files."""
    return NUMBERED not in config.data.columns.values()


def from_workers(
    engine: Engine,
    task: Task,
    config: TaskConfig,
    paths: list[Path],
    files: list[dict[str, Any]],
    personal: PersonalData,
) -> Iterator[Chunk]:
    """The chunks of `from_files` as `personal` treats them, each file read and treated by a worker of `engine`."""
    form, before, names = text_format(config.data), 0, list[str]()
    for path in paths:
        names = _names(path, form, paths[0], names)
    with engine.place() as place:
        about = {"task": task.name, "config": dump_config(config)}
        shared = engine.shared([str(path) for path in paths], place)
        items = [{**about, "file": file, "out": storage.join(place, f"{at:05d}")} for at, file in enumerate(shared)]
        for path, known, done in zip(paths, files, engine.map(f"{__name__}:read_file", items), strict=True):
            for one in done["chunks"]:
                chunk = Chunk(read_table(one["table"]), one["through"], [Rejected(**row) for row in one["rejected"]])
                personal.add(one["found"], before)
                yield _moved(chunk, before)
            _end(path, known, form, config.data, done["lost"], done["rows"])
            before += done["rows"]


def read_file(item: Mapping[str, Any]) -> dict[str, Any]:
    """Work: the chunks of one file, selected and treated, below ``item["out"]``; rows are numbered within the file."""
    task = get_task(item["task"])
    config = load_config(task, item["config"])
    form, personal, chunks = text_format(config.data), PersonalData(config.data), list[dict[str, Any]]()
    rows = lost = 0
    with parts.scratch(storage.join(item["out"], "x")) as folder, parts.files_here([item["file"]], folder) as (here,):
        path = Path(here)
        names = column_names(path, form)
        selection = select(names, task, config.data, path)
        for chunk in read_chunks(path, names, form, _label(task, config.data)):
            rows = chunk.through
            lost += _lost(chunk)
            chosen = replace(chunk, table=selection.apply(chunk.table).combine_chunks())
            treated = personal.apply(chosen, judged=False)
            written = folder / f"chunk-{len(chunks):05d}.arrow"
            write_table(treated.table, written)
            address = storage.join(item["out"], written.name)
            parts.publish(written, address)
            about = {"table": address, "through": rows, "found": personal.taken()}
            chunks.append({**about, "rejected": [asdict(row) for row in treated.rejected]})
    return {"chunks": chunks, "rows": rows, "lost": lost}


def _names(path: Path, form: TextFormat, first: Path, names: list[str]) -> list[str]:
    """The columns of a file, if they are those of the `first`."""
    here = column_names(path, form)
    if names and sorted(here) != sorted(names):
        raise _other_columns(path, here, first, names)
    return names or here


def _label(task: Task, data: DataConfig) -> str:
    return data.columns.get(task.label, task.label)


def _lost(chunk: Chunk) -> int:
    return sum(row.undecodable for row in chunk.rejected)


def _moved(chunk: Chunk, before: int) -> Chunk:
    """The chunk of a file that comes after so many rows."""
    import pyarrow.compute as pc

    at = chunk.table.column_names.index(ROW)
    table = chunk.table.set_column(at, ROW, pc.add(chunk.table.column(ROW), before))
    return Chunk(table, before + chunk.through, [replace(row, row=row.row + before) for row in chunk.rejected])


def _end(path: Path, known: dict[str, Any], form: TextFormat, data: DataConfig, lost: int, last: int) -> None:
    """Note the rows of a file, unless it is another one than it looked like."""
    if lost > max(_STRAY, data.max_bad_share * last):
        _refuse_encoding(path, form, lost, last)
    known["rows"] = last
    if path.stat().st_size != known["bytes"]:
        raise PlatformError(
            f"{path.name} changed while it was read", fix="run again when it is complete", code="bad_source"
        )


def _refuse_encoding(path: Path, form: TextFormat, lost: int, rows: int) -> None:
    """Refuse a file that looks like another encoding: the rows that would be lost are not bad, and seldom any rows."""
    detail = f"{lost:,} of {rows:,} rows have bytes that are none of its characters"
    if (error := undecodable(path, form, detail)) is not None:
        raise error


def _other_columns(path: Path, here: list[str], first: Path, names: list[str]) -> PlatformError:
    differing = sorted(set(here) ^ set(names))
    return PlatformError(
        f"{path.name} has other columns than {first.name}",
        detail=f"only in one of them: {', '.join(differing[:20])}",
        fix="give all files of a folder the same columns",
        code="bad_schema",
        column=differing[0],
        file=str(path),
    )

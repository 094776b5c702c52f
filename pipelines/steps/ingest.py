"""Raw data to an immutable dataset version: streamed, content-addressed, idempotent, resumable."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts import storage
from contracts.errors import PlatformError
from contracts.file_lock import file_lock
from pipelines.code_version import code_version
from pipelines.data import corpus, document_folder, image_files, register
from pipelines.data.chunks import ROW, Chunk, Rejected, TextFormat, empty, size, text_format
from pipelines.data.delimited import delimiter_fix
from pipelines.data.document_store import DocumentStore
from pipelines.data.forgotten import Forgotten
from pipelines.data.origins import source_here
from pipelines.data.personal import UNDECLARED, PersonalData, treats
from pipelines.data.personal import reading as personal_reading
from pipelines.data.sources import list_files
from pipelines.data.versions import MANIFEST, Part, Staging, intact
from pipelines.data_engines import current
from pipelines.io import events
from pipelines.io.files import read_json, write_json
from pipelines.plugins import task_folder
from pipelines.steps.ingest_files import from_files, from_workers, shareable
from pipelines.task import Task, TaskConfig, dump_config
from pipelines.tasks import get_task, load_config

if TYPE_CHECKING:
    import pyarrow as pa

BUILT_IN = "built-in"
_FORMAT = 3  # raise when the same source would give other parts
PART_ROWS, PART_BYTES = 250_000, 48 << 20


def ingest(task: str, config: str, source: str, data_root: str, out: str, documents: str = "") -> str:
    """Read `source` (file or folder; "" is the task's built-in data) into ``data_root/<task>/<version>/``.

    Parts are Parquet; text columns are strings exactly as written, with the column ``_row`` (row number in the file).
    Rows that cannot be read are left out and listed in ``rejected.jsonl``. `out` gets a copy of ``manifest.json`` with
    the version's ``path``, and of a collection with ``moment``: whether it was read as of one. The same source gives
    the same version and is not read again. `source` and `data_root` may be in S3; a version is then made on this disk
    and uploaded, its manifest at the end. `source` may be a collection of MongoDB, of which one that grows is kept
    beside the versions, if nothing of it is redacted and nobody is forgotten. `documents` is a database of MongoDB that
    gets the rows as they came and as they are in the version, see `pipelines.data.document_store`.

    Raises:
        PlatformError: the source cannot be read, the task's register refuses it, or it holds undeclared personal data.

    Returns:
        The version, 16 hex digits of the content's sha256.
    """
    found = get_task(task)
    settings = load_config(found, config)
    register.require(task_folder(task), source)
    if settings.data.classes and not image_files.takes_images(found):
        raise PlatformError(
            f"data.classes is of tasks of images, and {found.name} is none",
            fix="leave it out: --set data.classes=[]",
            code="bad_config",
        )
    store = DocumentStore(documents, found.name) if documents else None
    forgotten = Forgotten.read(data_root, task)
    whole = treats(settings.data) or forgotten.entries  # what is kept of a collection is as it came
    kept = "" if whole else storage.join(data_root, task, ".collections")
    try:
        about: dict[str, Any] = {}
        with source_here(source, "ingest", kept, about=about) as here:
            reading = _Reading(found, settings, source, here, *_fingerprint(found, settings, here), forgotten)
            make = _version_in_s3 if storage.is_remote(data_root) else _version_here
            manifest = make(reading, storage.join(data_root, task))
            if store is not None:
                raw, treated = partial(_as_they_came, reading), treats(settings.data)
                about["documents"] = store.keep(manifest, raw, found.id, treated=treated)
        write_json(Path(out), {**manifest, **about})
    except PlatformError as err:
        if err.code == UNDECLARED and kept:
            for one in storage.listing(kept):
                storage.remove(one.uri)
        raise
    except OSError as err:
        if err.errno in events.DISK_FULL and not err.filename:
            err.filename = str(data_root)
        raise events.from_os_error(err, "ingest") from err
    return str(manifest["version"])


@dataclass(frozen=True)
class _Reading:
    """What is read: `source` as it was named, `here` where it is on this disk; `forgotten`: who is left out."""

    task: Task
    config: TaskConfig
    source: str
    here: str
    fingerprint: str
    files: list[dict[str, Any]]
    forgotten: Forgotten

    @property
    def known_as(self) -> str:
        """What its version is found by."""
        return self.forgotten.fingerprint(self.fingerprint)


def _version_here(reading: _Reading, root: str) -> dict[str, Any]:
    """The manifest of the version below the folder `root`, which is made when it is not there."""
    base = Path(root)
    base.mkdir(parents=True, exist_ok=True)
    known = base / ".sources" / f"{reading.known_as}.json"
    with file_lock(base / ".locks" / reading.known_as):  # a second run of the same source waits, then finds it done
        folder = _known(known, base)
        if folder is None:
            staging = Staging(base / ".staging" / reading.known_as)
            personal = PersonalData(reading.config.data, strict=bool(reading.here))
            _fill(staging, reading, personal)
            described: dict[str, Any] = {
                "fingerprint": reading.fingerprint,
                "files": reading.files,
                "personal": personal.report(),
            }
            gone = sum(reading.forgotten.rows)
            described |= {"forgotten": gone} if gone else {}
            folder = staging.publish(base, reading.task.name, {"source": reading.source or BUILT_IN, **described})
            write_json(known, {"version": folder.name})
    return {**read_json(folder / MANIFEST), "path": str(folder)}


def _version_in_s3(reading: _Reading, root: str) -> dict[str, Any]:
    """The manifest of the version below the address `root`; two runs at once upload the same bytes."""
    known = storage.join(root, ".sources", f"{reading.known_as}.json")
    if storage.exists(known):
        address = storage.join(root, json.loads(storage.read_bytes(known))["version"])
        if storage.exists(storage.join(address, MANIFEST)):
            return {**json.loads(storage.read_bytes(storage.join(address, MANIFEST))), "path": address}
    with tempfile.TemporaryDirectory(prefix="fairlead-ingest-") as scratch:
        made = _version_here(reading, scratch)
        address = storage.join(root, made["version"])
        if not storage.exists(storage.join(address, MANIFEST)):
            storage.upload(Path(made["path"]), address, last=MANIFEST)
    storage.write_bytes(known, json.dumps({"version": made["version"]}).encode())
    return {**made, "path": address}


def _as_they_came(reading: _Reading) -> Iterator[pa.Table]:
    """The rows of a source as they are read, without those of who is forgotten."""
    for chunk in _chunks(reading.task, reading.config, reading.here, reading.files):
        yield reading.forgotten.without(chunk).table


def _known(known: Path, root: Path) -> Path | None:
    if not known.exists():
        return None
    folder = root / read_json(known)["version"]
    return folder if intact(folder) else None


def _fingerprint(task: Task, config: TaskConfig, source: str) -> tuple[str, list[dict[str, Any]]]:
    """What decides the version's content: the bytes of every file and how they are read, or the simulator's code."""
    files: list[dict[str, Any]] = []
    if source and image_files.takes_images(task):
        files = [image_files.fingerprint(source, task, config.data, events.progress("ingest"))]
        classes = sorted(config.data.classes or task.classes or ())
        reading: Any = {"classes": classes} if classes else {}
    elif source and document_folder.takes_documents(task, source):
        files = [document_folder.fingerprint(source, config, events.progress("ingest"))]
        reading = {}
    elif source and corpus.takes_corpus(task, source):
        files = [corpus.fingerprint(source, config.data.encoding, events.progress("ingest"))]
        reading = {}
    elif source:
        paths = list_files(source)
        total, done = sum(p.stat().st_size for p in paths), 0
        report = events.progress("ingest")
        for path in paths:
            digest = hashlib.sha256()
            with path.open("rb") as stream:
                while block := stream.read(1 << 22):
                    digest.update(block)
                    done += len(block)
                    report(done, max(total, 1), reading=path.name)
            files.append({"name": path.name, "bytes": path.stat().st_size, "sha256": digest.hexdigest()})
        reading = json.loads(dump_config(config))["data"]
        reading = {key: reading[key] for key in ("columns", "header", "delimiter", "quoted", "drop")}
    else:
        reading = {"config": json.loads(dump_config(config)), "code": code_version(task.name)}
    text = json.dumps([_FORMAT, task.name, files, reading, personal_reading(config.data)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32], files


def _fill(staging: Staging, reading: _Reading, personal: PersonalData) -> None:
    """Write the parts that the journal does not have yet. What is there is read again, but not written again."""
    task, config, source = reading.task, reading.config, reading.here
    through = staging.parts[-1].through if staging.parts else 0
    if staging.parts:
        events.emit("log", step="ingest", message=f"going on after row {through}: {len(staging.parts)} parts are there")
    writer = _PartWriter(staging, through)
    try:
        for chunk in _treated(reading, personal):
            writer.add(chunk)
    except PlatformError as err:
        if err.code == UNDECLARED:  # by chance the rows before were thought to be none
            shutil.rmtree(staging.folder)
        raise
    writer.flush()
    if not sum(part.rows for part in staging.parts):
        raise _nothing(source, staging.parts, text_format(config.data), _files(task, source))


def _treated(reading: _Reading, personal: PersonalData) -> Iterator[Chunk]:
    """The chunks as they may be kept; files of tables are shared by the workers of the run's engine."""
    task, config, source, engine = reading.task, reading.config, reading.here, current()
    tables = bool(source) and not _files(task, source) and not reading.forgotten.entries
    if tables and engine.workers > 1 and len(paths := list_files(source)) > 1 and shareable(config):
        yield from from_workers(engine, task, config, paths, reading.files, personal)
        return
    for chunk in _chunks(task, config, source, reading.files):
        yield personal.apply(reading.forgotten.without(chunk))


def _chunks(task: Task, config: TaskConfig, source: str, files: list[dict[str, Any]]) -> Iterator[Chunk]:
    if not source:
        return _built_in(task, config)
    if image_files.takes_images(task):
        return _from_images(task, config, source, files[0])
    if document_folder.takes_documents(task, source):
        return _from_documents(config, source, files[0])
    if corpus.takes_corpus(task, source):
        return corpus.read_corpus(source, config.data.encoding, files[0])
    return from_files(task, config, list_files(source), files)


def _files(task: Task, source: str) -> str:
    """What the files of a source are that are rows, or have some; "" where it is tables."""
    if image_files.takes_images(task):
        return "image"
    if corpus.takes_corpus(task, source):
        return "text"
    return "document" if document_folder.takes_documents(task, source) else ""


def _from_images(task: Task, config: TaskConfig, source: str, known: dict[str, Any]) -> Iterator[Chunk]:
    report = events.progress("ingest")
    for chunk in image_files.read_images(source, task, config.data, known):
        report(chunk.through, known["rows"], rows=chunk.through)
        yield chunk


def _from_documents(config: TaskConfig, source: str, known: dict[str, Any]) -> Iterator[Chunk]:
    report = events.progress("ingest")
    for chunk in document_folder.read_documents(source, config, known):
        report(chunk.through, None, rows=chunk.through)
        yield chunk


def _built_in(task: Task, config: TaskConfig) -> Iterator[Chunk]:
    import numpy as np
    import pyarrow as pa

    done = 0
    report = events.progress("ingest")
    for table in task.default_source(config):
        rows = np.arange(done + 1, done + table.num_rows + 1, dtype=np.int64)
        done += table.num_rows
        report(done, None, rows=done)
        kept = [name for name in table.column_names if name not in config.data.drop]
        yield Chunk(table.select(kept).append_column(ROW, pa.array(rows)), done)


class _PartWriter:
    """Collects chunks into parts of bounded size; leaves out rows up to number `through`."""

    def __init__(self, staging: Staging, through: int) -> None:
        self._staging, self._through = staging, through
        self._schema: pa.Schema | None = None
        self._tables: list[pa.Table] = []
        self._rejected: list[Rejected] = []
        self._rows = self._bytes = 0
        self._last = through

    def add(self, chunk: Chunk) -> None:
        import pyarrow.compute as pc

        table = self._conform(chunk.table)
        if chunk.through <= self._through:
            return
        table = table.filter(pc.greater(table.column(ROW), self._through))
        self._rejected += [row for row in chunk.rejected if row.row > self._through]
        while table.num_rows:  # parts end at the same rows whether or not a run was killed in between
            piece = table.slice(0, PART_ROWS - self._rows)
            table = table.slice(piece.num_rows)
            self._tables.append(piece)
            self._rows += piece.num_rows
            self._bytes += size(piece)
            self._last = int(piece.column(ROW)[-1].as_py())
            if self._rows >= PART_ROWS or self._bytes >= PART_BYTES:
                self._write()

    def flush(self) -> None:
        """Write the last part; also when only rejected rows are left."""
        if self._tables or self._rejected:
            self._last = max([self._last, *(row.row for row in self._rejected)])
            self._write()

    def _conform(self, table: pa.Table) -> pa.Table:
        """The columns in the first chunk's order and types: the files of a folder may differ in both."""
        import pyarrow as pa

        table = table.replace_schema_metadata(None)
        self._schema = self._schema or table.schema
        try:
            return table.select(self._schema.names).cast(self._schema)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as err:
            raise PlatformError(
                "the source's files have columns of different types",
                detail=str(err)[:300],
                fix="write all files with the same types",
                code="bad_schema",
            ) from err

    def _write(self) -> None:
        assert self._schema is not None
        rejected = [row for row in self._rejected if row.row <= self._last]
        self._staging.add(self._tables or [self._schema.empty_table()], self._last, rejected)
        self._rejected = self._rejected[len(rejected) :]
        self._tables, self._rows, self._bytes = [], 0, 0


def _nothing(source: str, parts: list[Part], form: TextFormat, files: str) -> PlatformError:
    rejected = [row for part in parts for row in part.rejected]
    if not rejected:
        return empty(source or BUILT_IN)
    first = rejected[0]
    if files:
        detail = f"{first['file']} {first['reason']} ({len(rejected)} files are refused)"
        return PlatformError(
            f"no {files} of {source} can be read", detail=detail, fix="correct the files", code="bad_source"
        )
    return PlatformError(
        f"no row of {source} can be read",
        detail=f"row {first['row']}: {first['reason']} ({len(rejected)} rows like it)",
        fix=delimiter_fix(list_files(source)[0], form) or "correct the file, or set data.header or data.quoted",
        code="bad_source",
        row=first["row"],
    )

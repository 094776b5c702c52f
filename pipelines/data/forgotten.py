"""People who are forgotten: their rows are left out of every reading of a source, and of what was read before.

A step that reads tables beside the version of the data (a test source, impressions) does so within `leaving_out`, and
whoever reads for it asks `without`.

``{data}/.forgotten/`` has a key, and for each of them and task a document with the keyed hash of who it is: a source
that still has the rows does not bring them back, and the list names nobody. Who can read the data can read the key, and
try ids against the hashes.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts import storage
from contracts.errors import PlatformError
from contracts.pii.rules import cleaners
from pipelines.data.chunks import Chunk, Rejected
from pipelines.data.versions import MANIFEST, REJECTED, Staging

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = ".forgotten"
_KEY = "key"
_WORD = re.compile(r"[^\s,;|\t\"']+")
_MADE = ("schema_version", "task", "version", "rows", "rejected", "schema", "parts")  # by `Staging.publish`


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Somebody who is forgotten. `hash`: of column and key.  versions: of the data, that had rows of them."""

    column: str
    hash: str
    time: str
    versions: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """The list of one task."""

    key: bytes = b""
    entries: tuple[Entry, ...] = ()
    rows: list[int] = field(default_factory=list)  # that were left out, for each chunk

    @classmethod
    def read(cls, data_root: str, task: str) -> Forgotten:
        """The list of a task below the address of all data."""
        place = storage.join(data_root, FOLDER, task)
        names = [name for name in storage.list_names(place) if name.endswith(".json")]
        if not names:
            return cls()
        found = [json.loads(storage.read_bytes(storage.join(place, name))) for name in names]
        entries = tuple(Entry(**{**one, "versions": tuple(one["versions"])}) for one in found)
        return cls(key=_key(data_root), entries=entries)

    def fingerprint(self, of_source: str) -> str:
        """What a source is known by while these are forgotten; its own where nobody is."""
        if not self.entries:
            return of_source
        listed = sorted(f"{one.column} {one.hash}" for one in self.entries)
        return hashlib.sha256("\n".join([of_source, *listed]).encode()).hexdigest()[:32]

    def without(self, chunk: Chunk) -> Chunk:
        """A chunk, before anything else is done to it, without the rows of who is forgotten."""
        if not self.entries:
            return chunk
        table = chunk.table
        for column in {one.column for one in self.entries} & set(table.column_names):
            hashes = {one.hash for one in self.entries if one.column == column}
            table = self._filtered(table, column, hashes)
        self.rows.append(chunk.table.num_rows - table.num_rows)
        return replace(chunk, table=table, rejected=[row for row in chunk.rejected if not self._names(row)])

    def _filtered(self, table: pa.Table, column: str, hashes: set[str]) -> pa.Table:
        import pyarrow as pa
        import pyarrow.compute as pc

        from feature_repo.stores.keys import canonical_column

        texts = canonical_column(table.column(column))[0]
        known = pc.unique(texts).to_pylist()
        gone = [text for text in known if text is not None and hashed(self.key, column, text) in hashes]
        return table.filter(pc.invert(pc.is_in(texts, value_set=pa.array(gone, pa.string()))))

    def _names(self, row: Rejected) -> bool:
        """Whether a row that cannot be read names one of them anywhere."""
        words = {word for text in (row.value, row.file) for word in _WORD.findall(text)}
        return any(hashed(self.key, one.column, word) == one.hash for one in self.entries for word in words)


_NOBODY = Forgotten()
_listed = [_NOBODY]  # a process does one step at a time; threads that it starts are to see the same


@contextmanager
def leaving_out(data_root: str, task: str) -> Iterator[None]:
    """Within the block `without` leaves out who is on the list of `task` as it is now; "" is nobody's address."""
    _listed.append(Forgotten.read(data_root, task) if data_root else _NOBODY)
    try:
        yield
    finally:
        _listed.pop()


def without(chunk: Chunk) -> Chunk:
    """A chunk of a table that the step reads beside the version of the data, by the task's names of columns, as it was
    before anything else is done to it: without the rows of who is forgotten."""
    return _listed[-1].without(chunk)


def hashed(key: bytes, column: str, text: str) -> str:
    """Stands for a canonical key of a column, and is of no use to who has not `key`."""
    return hmac.new(key, f"{column}\0{text}".encode(), hashlib.sha256).hexdigest()[:32]


def _key(data_root: str) -> bytes:
    place = storage.join(data_root, FOLDER, _KEY)
    return storage.read_bytes(place).strip()


def remember(data_root: str, task: str, column: str, text: str, versions: Iterable[str]) -> Entry:
    """Put somebody on the list, or add `versions` of the data to what the list says of them."""
    place = storage.join(data_root, FOLDER, _KEY)
    if storage.write_new(place, secrets.token_hex(32).encode()) and not storage.is_remote(place):
        Path(place).chmod(0o600)
    name = hashed(_key(data_root), column, text)
    document = storage.join(data_root, FOLDER, task, f"{name}.json")
    entry = Entry(column=column, hash=name, time=datetime.now(UTC).isoformat(timespec="seconds"))
    if storage.exists(document):
        before = json.loads(storage.read_bytes(document))
        entry = Entry(**{**before, "versions": tuple(before["versions"])})
    entry = replace(entry, versions=tuple(sorted({*entry.versions, *versions})))
    storage.write_bytes(document, (json.dumps(asdict(entry)) + "\n").encode())
    return entry


@dataclass(frozen=True, kw_only=True)
class Version:
    """A version of a task's data: its address and its manifest."""

    address: str
    manifest: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.manifest["version"])

    def texts(self, column: str, text: str) -> set[str]:
        """How a key is written in it: as it is, or as what was made of it when it was read.

        Raises:
            PlatformError: ``code="no_pii_key"``; ``code="not_findable"``: the column was masked.
        """
        said = str(self.manifest.get("personal", {}).get(column, {}).get("operator", ""))
        made = {text, *(clean(text) for clean in cleaners({column: said} if said else {}).values())}
        if len(made) > 1 and said.partition(":")[0] in ("label", "mask", "drop"):
            raise PlatformError(
                f"rows cannot be found by {column}: it was made unreadable",
                detail=f"version {self.name} was read with data.pii.{column}={said}",
                fix="name them by another column, as --entity COLUMN=KEY",
                code="not_findable",
            )
        return made


def versions(data_root: str, task: str) -> list[Version]:
    """All versions of a task's data, by name."""
    root = storage.join(data_root, task)
    found = []
    for name in storage.list_names(root):
        address = storage.join(root, name)
        if not name.startswith(".") and storage.exists(storage.join(address, MANIFEST)):
            manifest = json.loads(storage.read_bytes(storage.join(address, MANIFEST)))
            found.append(Version(address=address, manifest=manifest))
    return found


def rows_of(version: Version, column: str, text: str) -> int:
    """How many rows of a version are somebody's, those that could not be read included."""
    texts = version.texts(column, text)
    count = sum(bool(_names_any(line, texts)) for line in _rejected(version))
    for part in version.manifest["parts"]:
        with file_here(storage.join(version.address, part["name"])) as file:
            count += matching(file, column, texts)
    return count


def rewrite(data_root: str, task: str, version: Version, column: str, text: str) -> str:
    """Replace a version by one without somebody's rows; returns its name, "" where no row is left.

    The new one is there whole before the old one goes, so that a call that was killed is made again.
    """
    root, texts = storage.join(data_root, task), version.texts(column, text)
    remote = storage.is_remote(root)
    with tempfile.TemporaryDirectory(prefix=".forgetting-", dir=None if remote else root) as scratch:
        staging = Staging(Path(scratch) / "new")
        rejected = [Rejected(**json.loads(line)) for line in _rejected(version) if not _names_any(line, texts)]
        removed = kept = 0
        for part in version.manifest["parts"]:
            with file_here(storage.join(version.address, part["name"])) as file:
                table, gone = _read_without(file, column, texts)
            staging.add([table], kept + table.num_rows, rejected)
            removed, kept, rejected = removed + gone, kept + table.num_rows, []
        name = ""
        (Path(scratch) / "out").mkdir()
        if kept:
            said = {key: value for key, value in version.manifest.items() if key not in _MADE}
            said |= {"forgotten": said.get("forgotten", 0) + removed}
            said |= {"replaces": sorted({*said.get("replaces", []), version.name})}
            made = staging.publish(Path(scratch) / "out" if remote else Path(root), task, said)
            name = made.name
            if remote and not storage.exists(storage.join(root, name, MANIFEST)):
                storage.upload(made, storage.join(root, name), last=MANIFEST)
    return name


def remove(version: Version) -> None:
    """Take a version away, its manifest first: a part of it is no version."""
    storage.remove(storage.join(version.address, MANIFEST))
    remove_all(version.address)


def remove_all(address: str) -> None:
    """Take away all that is below an address."""
    if storage.is_remote(address):
        for one in storage.listing(address):
            storage.remove(one.uri)
    else:
        shutil.rmtree(address, ignore_errors=True)


def name_sources(data_root: str, task: str) -> None:
    """Make all versions known by their sources' fingerprints under the list as it is now; other notes go."""
    forgotten, place = Forgotten.read(data_root, task), storage.join(data_root, task, ".sources")
    there = {version.name: version for version in versions(data_root, task)}
    for version in there.values():
        if known := version.manifest.get("fingerprint"):
            document = json.dumps({"version": version.name}).encode()
            storage.write_bytes(storage.join(place, f"{forgotten.fingerprint(known)}.json"), document)
    for name in storage.list_names(place):
        if json.loads(storage.read_bytes(storage.join(place, name)))["version"] not in there:
            storage.remove(storage.join(place, name))


def _rejected(version: Version) -> Iterator[str]:
    try:
        text = storage.read_bytes(storage.join(version.address, REJECTED)).decode()
    except PlatformError as err:
        if err.code != "not_found":
            raise
        return
    yield from (line for line in text.splitlines() if line.strip())


def _names_any(line: str, texts: set[str]) -> bool:
    row = json.loads(line)
    return any(word in texts for text in (row["value"], row.get("file", "")) for word in _WORD.findall(text))


def _mask(table: pa.Table, column: str, texts: set[str]) -> Any:
    """Where a row is of one of `texts`; a chunked array of truth values."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from feature_repo.stores.keys import canonical_column

    return pc.is_in(canonical_column(table.column(column))[0], value_set=pa.array(sorted(texts), pa.string()))


def _read_without(file: Path, column: str, texts: set[str]) -> tuple[pa.Table, int]:
    import pyarrow.compute as pc
    from pyarrow import parquet

    table = parquet.read_table(file)
    if column not in table.column_names:
        return table, 0
    kept = table.filter(pc.invert(_mask(table, column, texts)))
    return kept, table.num_rows - kept.num_rows


def matching(file: Path, column: str, texts: set[str]) -> int:
    """Rows of a Parquet file whose `column` is one of `texts`; 0 where there is no such column."""
    from pyarrow import parquet

    if column not in parquet.read_schema(file).names:
        return 0
    return sum(_mask(table, column, texts).to_pylist().count(True) for table in _batches(file, [column]))


def _batches(file: Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    import pyarrow as pa
    from pyarrow import parquet

    with parquet.ParquetFile(file) as opened:
        for batch in opened.iter_batches(columns=list(columns) if columns else None):
            yield pa.Table.from_batches([batch])


def take_out(uri: str, column: str, texts: set[str]) -> int:
    """Write a Parquet file or object anew without the rows of `texts`; returns how many there were."""
    import pyarrow.compute as pc
    from pyarrow import parquet

    with file_here(uri) as file:
        count = matching(file, column, texts)
        if not count:
            return 0
        beside = None if storage.is_remote(uri) else file.parent
        with tempfile.TemporaryDirectory(prefix=".forgetting-", dir=beside) as to:
            made = Path(to) / file.name
            with parquet.ParquetWriter(made, parquet.read_schema(file), compression="zstd") as writer:
                for table in _batches(file):
                    writer.write_table(table.filter(pc.invert(_mask(table, column, texts))))
            storage.upload_file(made, uri)
    return count


@contextmanager
def file_here(uri: str) -> Iterator[Path]:
    """A file, or a copy of an object for as long as the block takes."""
    if not storage.is_remote(uri):
        yield Path(uri)
        return
    with tempfile.TemporaryDirectory(prefix="fairlead-forget-") as folder:
        yield storage.copy_here(uri, Path(folder))

"""Rows of dataset versions as documents of a MongoDB: as they came, and as they were cleaned, by version and row.

Each task has three collections in the database of the address: ``TASK.raw`` and ``TASK.clean``, whose documents are
``{_id: "VERSION:ROW", version, row, values}``, and ``TASK.versions``, which says how far a version is written and is
``complete`` when the server has counted all of its documents. Writing it again changes nothing, and a run that was
ended goes on. What personal data is taken out of is kept as it came only where the address says ``raw=all``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from contracts import mongodb, storage
from contracts.errors import PlatformError
from pipelines.data.chunks import ROW
from pipelines.data.forgotten import file_here
from pipelines.io import events

if TYPE_CHECKING:
    import pyarrow as pa

RAW, CLEAN = "raw", "clean"
_KINDS = (RAW, CLEAN)
_VERSIONS = "versions"
_AT_ONCE = 1_000  # documents of one request
_MOST = 100  # rows that are shown of a key


@dataclass(frozen=True, kw_only=True)
class Found:
    """A row of a version; `raw` and `clean` are its values, None where there is no such document."""

    version: str
    row: int
    raw: dict[str, Any] | None
    clean: dict[str, Any] | None


class DocumentStore:
    """The documents of one task.

    Args:
        address: ``mongodb://host/database``, with ``raw=all`` to keep rows as they came whatever is taken out of them.

    Raises:
        PlatformError: ``code="bad_address"``.
    """

    def __init__(self, address: str, task: str) -> None:
        self._address, self._task = mongodb.parse_database(address), task
        self.place = self._address.place.removesuffix(f"/{self._address.collection}")

    def keep(
        self, manifest: Mapping[str, Any], raw: Callable[[], Iterator[pa.Table]], key: str, *, treated: bool
    ) -> dict[str, Any]:
        """Write a version's documents that are not there yet.

        Args:
            manifest: of the version, with its ``path``.
            raw: reads its rows as they came, with the column ROW.
            key: the column that documents are looked up by.
            treated: whether personal data is taken out of rows.

        Returns:
            ``place``, and for ``raw`` and ``clean`` how many documents there are.

        Raises:
            PlatformError: the server refuses, or has other documents afterwards than rows were written.
        """
        version, rows = str(manifest["version"]), int(manifest["rows"])
        kinds = _KINDS if self._address.raw or not treated else (CLEAN,)
        read: dict[str, Callable[[], Iterator[pa.Table]]] = {RAW: raw, CLEAN: partial(_parts, manifest)}
        with mongodb.opened(self._address) as collection:
            database = collection.database
            state = self._of(database, _VERSIONS).find_one({"_id": version}) or {}
            for kind in kinds:
                self._of(database, kind).create_index(f"values.{mongodb.field_name(key)}")
                self._whole(database, kind, version, rows, read[kind], int(state.get(kind, 0)))
            self._note(database, version, {"complete": True, "rows": rows, "source": manifest.get("source", "")})
        said: dict[str, Any] = {"place": self.place, **dict.fromkeys(kinds, rows)}
        if RAW not in kinds:
            text = "rows are not kept as they came, because data.pii takes something out of them; raw=all keeps them"
            events.emit("note", step="ingest", message=text)
        return said

    def _whole(
        self, database: Any, kind: str, version: str, rows: int, read: Callable[[], Iterator[pa.Table]], through: int
    ) -> None:
        """All documents of one kind: those behind row `through`, and all where the server then counts others."""
        documents = self._of(database, kind)
        there = documents.count_documents(_of_version(version))
        for start in (through, 0):
            if there == rows:
                return
            self._write(database, kind, version, rows, read(), start)
            there = documents.count_documents(_of_version(version))
        if there != rows:
            raise PlatformError(
                f"{self._task}.{kind} has {there:,} documents of version {version}, and {rows:,} were written",
                detail=f"somebody else writes or removes documents there: {self.place}",
                fix="let nobody else write to this collection, remove what they wrote, and run again",
                code="store_refused",
            )

    def _write(
        self, database: Any, kind: str, version: str, rows: int, tables: Iterable[pa.Table], through: int
    ) -> None:
        operation, seen = mongodb.driver("pymongo").ReplaceOne, 0
        report = events.progress("ingest")
        for table in tables:
            for batch in _plain_types(table).to_batches(max_chunksize=_AT_ONCE):
                seen += batch.num_rows
                made = [_document(version, values) for values in batch.to_pylist()]
                if not made or made[-1]["row"] <= through:
                    continue
                requests = [operation({"_id": each["_id"]}, each, upsert=True) for each in made]
                mongodb.write(self._of(database, kind), self._address, requests, events.notes("ingest"))
                self._note(database, version, {kind: made[-1]["row"]})
                report(seen, rows, written=seen)
        if seen != rows:
            raise PlatformError(
                f"the source has {seen:,} rows now, and its version {rows:,}",
                detail=f"documents of it are written to {self.place}",
                fix="run again when it is complete",
                code="bad_source",
            )

    def _note(self, database: Any, version: str, said: Mapping[str, Any]) -> None:
        one = mongodb.driver("pymongo").UpdateOne({"_id": version}, {"$set": dict(said)}, upsert=True)
        mongodb.write(self._of(database, _VERSIONS), self._address, [one], events.notes("ingest"))

    def _of(self, database: Any, kind: str) -> Any:
        return database[f"{self._task}.{kind}"]

    def find(self, column: str, key: str, version: str = "") -> list[Found]:
        """The rows with a value of a column, as they came or as they were cleaned, by version; at most 100."""
        wanted: dict[str, Any] = {f"values.{mongodb.field_name(column)}": {"$in": _typed(key)}}
        wanted |= {"version": version} if version else {}
        rows: dict[str, tuple[str, int]] = {}
        values: dict[str, dict[str, Any]] = {RAW: {}, CLEAN: {}}
        with mongodb.opened(self._address) as collection:
            for kind in _KINDS:
                for each in self._of(collection.database, kind).find(wanted).sort("_id", 1).limit(_MOST):
                    rows[each["_id"]] = each["version"], each["row"]
            for kind in _KINDS:
                for each in self._of(collection.database, kind).find({"_id": {"$in": list(rows)}}):
                    values[kind][each["_id"]] = each["values"]
        return [
            Found(version=name, row=row, raw=values[RAW].get(at), clean=values[CLEAN].get(at))
            for at, (name, row) in sorted(rows.items())
        ]

    def forget(self, column: str, texts: Collection[str], replaced: Mapping[str, str], *, dry_run: bool) -> int:
        """Remove the documents of somebody in all versions; returns how many there were.

        Args:
            texts: the canonical keys that they are known by.
            replaced: version -> the one that takes its place, whose documents they become; "" is none.
        """
        removed = 0
        with mongodb.opened(self._address) as collection:
            database = collection.database
            for kind in _KINDS:
                documents = self._of(database, kind)
                gone = list(_theirs(documents, mongodb.field_name(column), texts))
                removed += len(gone)
                for at in range(0, 0 if dry_run else len(gone), _AT_ONCE):
                    documents.delete_many({"_id": {"$in": gone[at : at + _AT_ONCE]}})
            for old, new in {} if dry_run else replaced.items():
                self._rename(database, old, new)
        return removed

    def _rename(self, database: Any, old: str, new: str) -> None:
        driver = mongodb.driver("pymongo")
        for kind in _KINDS:
            documents = self._of(database, kind)
            while batch := list(documents.find(_of_version(old)).sort("_id", 1).limit(_AT_ONCE)):
                requests: list[Any] = []
                for each in batch if new else []:
                    made = {**each, "_id": _id(new, each["row"]), "version": new}
                    requests.append(driver.ReplaceOne({"_id": made["_id"]}, made, upsert=True))
                if requests:
                    mongodb.write(documents, self._address, requests, events.notes("forget"))
                documents.delete_many({"_id": {"$in": [each["_id"] for each in batch]}})
        versions = self._of(database, _VERSIONS)
        if new and versions.find_one({"_id": old}):
            self._note(database, new, {"replaces": old})
        versions.delete_one({"_id": old})


def _id(version: str, row: int) -> str:
    return f"{version}:{row:012d}"


def _of_version(version: str) -> dict[str, Any]:
    return {"_id": {"$gte": f"{version}:", "$lt": f"{version};"}}


def _document(version: str, values: Mapping[str, Any]) -> dict[str, Any]:
    row = int(values[ROW])
    named = {mongodb.field_name(name): value for name, value in values.items() if name != ROW}
    return {"_id": _id(version, row), "version": version, "row": row, "values": named}


def _parts(manifest: Mapping[str, Any]) -> Iterator[pa.Table]:
    import pyarrow as pa
    from pyarrow import parquet

    for part in manifest["parts"]:
        with file_here(storage.join(str(manifest["path"]), part["name"])) as file, parquet.ParquetFile(file) as opened:
            for batch in opened.iter_batches(_AT_ONCE):
                yield pa.Table.from_batches([batch])


def _plain_types(table: pa.Table) -> pa.Table:
    """The table with types that documents have: moments by the millisecond, decimals and days as text, no bytes."""
    import pyarrow as pa
    from pyarrow import types

    made = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        kind = column.type
        if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
            continue  # images and clips: the row's file is named in another column
        if types.is_timestamp(kind):
            column = column.cast(pa.timestamp("ms", kind.tz), safe=False)
        elif types.is_decimal(kind) or types.is_date(kind) or types.is_time(kind) or types.is_uint64(kind):
            column = column.cast(pa.string())
        made[name] = column
    return pa.table(made)


def _typed(key: str) -> list[Any]:
    """A key as text, and as the numbers that it may be."""
    found: list[Any] = [key]
    for kind in (int, float):
        try:
            found.append(kind(key))
        except ValueError:
            continue
    return [each for each in found if not isinstance(each, int) or abs(each) < 2**63]


def _theirs(documents: Any, field: str, texts: Collection[str]) -> Iterator[str]:
    """The ids of documents whose field is one of `texts`, however it is written."""
    from feature_repo.stores.keys import RefusedKeyError, canonical_text

    for each in documents.find({f"values.{field}": {"$exists": True}}, {f"values.{field}": 1}).batch_size(_AT_ONCE):
        try:
            text = canonical_text(each["values"][field])
        except (RefusedKeyError, TypeError):
            continue
        if text in texts:
            yield each["_id"]

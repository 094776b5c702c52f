"""A collection of MongoDB as one Parquet file: read in batches of bounded memory, through lost connections.

Documents come sorted by ``_id``, or by the field that grows and then ``_id``; after a lost connection from behind the
last one that arrived, so that none is lost and none comes twice. With a field that grows, what was read is kept at an
address, and the next time only documents that are new or changed are read: they take the place of those with their
``_id``. Where the server then counts other documents than are here (some were deleted, or came late), all are read
again; so the result is that of reading all.

Where the server offers it (a replica set or a sharded cluster of MongoDB 5.0 or later), all is read as of one moment,
by a session of snapshot reads that later cursors share; elsewhere each document is as it was at its own moment, and
the report says why.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts import mongodb, storage
from contracts.bundle import sha256_file
from contracts.errors import PlatformError
from contracts.mongodb import Address
from pipelines.data.chunks import empty
from pipelines.data.document_file import DocumentFile, merged, null_counts, schema_of
from pipelines.data.documents import Kinds, disagree
from pipelines.io import events
from pipelines.io.files import read_json

_BATCH = 4_096  # documents that are asked for at once; the server sends at most 16 MB
_PATIENCE = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # seconds between tries, while a server is away
_SAID = 40  # columns that are said out loud
_STATE = "state.json"
_FORMAT = 1  # raise when the same documents would become other rows
# Types of an _id in the order of BSON; a comparison is among values of one type.
_IDS = (
    ("null", ("NoneType",)),
    ("number", ("int", "Int64", "float", "Decimal128")),
    ("string", ("str",)),
    ("object", ("dict",)),
    ("binData", ("bytes", "Binary", "UUID")),
    ("objectId", ("ObjectId",)),
    ("bool", ("bool",)),
    ("date", ("datetime", "DatetimeMS")),
    ("timestamp", ("Timestamp",)),
    ("regex", ("Regex",)),
)


@dataclass(frozen=True)
class _Read:
    """What is here: a file, the kinds of its columns, the last value of the field that grows, and its rows."""

    file: Path
    kinds: Kinds
    last: Any
    rows: int

    @property
    def simple(self) -> bool:
        """Whether its columns follow from each document alone, so that rows can be added and replaced."""
        return not any(disagree(found) for found in self.kinds.values())


def fetch(
    address: Address, folder: Path, step: str = "", keep: str = "", most: int = 0, about: dict[str, Any] | None = None
) -> Path:
    """Read a collection into ``folder/<collection>.parquet``.

    step: the one whose events say what is found; "" says nothing.
    keep: where what was read is kept for the next time, a folder or ``s3://...``, with a field that grows.
    most: read so many documents only; 0 is all.
    about: gets ``moment``: whether all documents are of one moment, and which one or why not.

    Raises:
        PlatformError: the server does not answer or refuses, or there are no documents.
    """
    with mongodb.opened(address) as collection:
        reader = _Reader(address, collection, folder, step, most)
        if not (address.grows and keep) or most:
            found = reader.whole()
        else:
            place = storage.join(keep, hashlib.sha256(f"{_FORMAT} {address.text}".encode()).hexdigest()[:32])
            known = _kept(place, folder)
            found = reader.grown(known) if known else reader.whole()
            _keep(found, place)
    if about is not None:
        about["moment"] = reader.moment.report()
    target = folder / f"{address.collection.replace('/', '_').lstrip('._') or 'documents'}.parquet"
    os.replace(found.file, target)
    return target


def _kept(place: str, folder: Path) -> _Read | None:
    if not storage.exists(storage.join(place, _STATE)):
        return None
    here = storage.download(place, folder / "kept", last=_STATE)
    state = read_json(here / _STATE)
    file = here / state["file"]
    if not file.exists() or sha256_file(file) != state["sha256"]:
        return None
    last = mongodb.driver("bson.json_util").loads(state["last"])
    return _Read(file, {name: set(kinds) for name, kinds in state["kinds"].items()}, last["last"], state["rows"])


def _keep(read: _Read, place: str) -> None:
    """Keep what was read; its file has a name of its own, so that two runs at once do not mix."""
    if not read.simple:
        return
    digest = sha256_file(read.file)
    name = f"{digest[:16]}.parquet"
    state = {
        "file": name,
        "sha256": digest,
        "rows": read.rows,
        "kinds": {column: sorted(kinds) for column, kinds in read.kinds.items()},
        "last": mongodb.driver("bson.json_util").dumps({"last": read.last}),
    }
    before = [each for each in storage.list_names(place) if each not in (name, _STATE)]
    storage.upload_file(read.file, storage.join(place, name))
    storage.write_bytes(storage.join(place, _STATE), json.dumps(state).encode())
    for each in before:
        storage.remove(storage.join(place, each))


class _Reader:
    """Reads one collection."""

    def __init__(self, address: Address, collection: Any, folder: Path, step: str, most: int) -> None:
        self._address, self._collection, self._folder, self._most = address, collection, folder, most
        self._step = step
        self._errors = mongodb.driver("pymongo.errors")
        self._options = mongodb.read_options()
        self._report = events.progress(step) if step else lambda *_, **__: None
        self._answered = False  # a server that was never there is not waited for
        self.moment = mongodb.Moment(collection.database.client, wanted=not most)

    def whole(self) -> _Read:
        """All documents."""
        before = self._about()
        self.moment.begin()
        found = self._write({}, {}, "whole", before)
        if not found.rows:
            raise self._nothing()
        self._say_schema(found)
        if self._most:
            return found
        self._say_moment()
        if self._address.grows:
            found = self._growing(found)
            if self.moment.held or not found.simple:
                return found
            return self._added(found)  # what has changed meanwhile
        if self.moment.held:
            return found
        if found.rows not in (before, after := self._about()) or before != after:
            self._changed(found.rows, self._count())
        return found

    def grown(self, known: _Read) -> _Read:
        """What is known with the documents that are new or changed; all anew where that is not all there is."""
        self.moment.begin()
        found = self._added(known)
        there = self._count()
        if found.simple and there == found.rows and found.rows not in null_counts(found.file).values():
            self._say_moment()
            self._say(f"{self._address.collection}: {found.rows - known.rows:+,} documents, {found.rows:,} in all")
            return found
        self._say(
            f"{self._address.collection}: more has changed than was added ({there:,} documents): all are read again"
        )
        return self.whole()

    def _added(self, known: _Read) -> _Read:
        kinds = {name: set(found) for name, found in known.kinds.items()}
        newer = self._write(kinds, {self._address.grows: {"$gte": known.last}}, "newer", None)
        if not newer.rows:  # even the last one is gone: `grown` counts
            return known
        newer = self._growing(newer)
        out = self._folder / ".merged.parquet"
        rows = merged(out, known.file, newer.file, kinds)
        return _Read(out, kinds, newer.last, rows)

    def _growing(self, read: _Read) -> _Read:
        """The same, when the field that grows is in every document, and of one type."""
        name, found = self._address.grows, read.kinds.get(self._address.grows, set())
        if len(found - {"big"}) == 1 and not null_counts(read.file)[name]:
            return read
        several = f"it is of several types: {', '.join(sorted(found - {'big'}))}"
        raise PlatformError(
            f"field {name!r} of {self._address.place} does not grow",
            detail=several if len(found - {"big"}) > 1 else "it is missing in some documents, or in all",
            fix="name another field as grows=FIELD, leave such documents out by the filter, or leave grows out",
            code="bad_source",
            column=name,
        )

    def _write(self, kinds: Kinds, asked: Mapping[str, Any], name: str, total: int | None) -> _Read:
        """Documents to a file; `kinds` is brought up to date."""
        writer = DocumentFile(self._folder / f".{name}.parquet", kinds)
        last = None
        for documents, size in self._batches(asked):
            if self._most:
                documents = documents[: self._most - writer.rows]
            writer.add(documents, size)
            last = _at(documents[-1], self._address.grows)
            self._report(writer.rows, total and max(total, writer.rows), rows=writer.rows)
            if self._most and writer.rows >= self._most:
                break
        return _Read(writer.close(), kinds, last, writer.rows)

    def _batches(self, asked: Mapping[str, Any]) -> Iterator[tuple[list[dict[str, Any]], int]]:
        """Documents as they come, with their bytes; after a lost connection from behind the last one."""
        after: dict[str, Any] | None = None
        tries = 0
        cursor = self._find(asked, after)
        while True:
            try:
                raw = next(cursor, None)
            except (self._errors.AutoReconnect, self._errors.CursorNotFound) as err:
                self._wait(tries, err)
                tries += 1
                cursor = self._find(asked, after)
                continue
            except (self._errors.OperationFailure, self._errors.ConfigurationError) as err:
                if not self.moment.lost(err, begun=after is not None):
                    raise
                cursor = self._find(asked, after)
                continue
            self._answered, tries = True, 0
            self.moment.answered()
            if raw is None:
                return
            if documents := self._decoded(raw):
                after = documents[-1]
                yield documents, len(raw)

    def _find(self, asked: Mapping[str, Any], after: Mapping[str, Any] | None) -> Any:
        grows, wanted = self._address.grows, [self._address.filter, asked]
        if after is not None:
            behind = _behind(after["_id"])
            if grows:
                value = _at(after, grows)
                behind = {"$or": [{grows: {"$gt": value}}, {"$and": [{grows: value}, behind]}]}
            wanted.append(behind)
        wanted = [part for part in wanted if part]
        query = {"$and": wanted} if len(wanted) > 1 else wanted[0] if wanted else {}
        names = dict.fromkeys((*self._address.fields, *([grows] if grows else [])), 1) if self._address.fields else None
        session = self.moment.session
        found = self._collection.find_raw_batches(query, names, batch_size=_BATCH, session=session)
        return found.sort([(grows, 1), ("_id", 1)]).allow_disk_use(True) if grows else found.sort([("_id", 1)])

    def _decoded(self, raw: bytes) -> list[dict[str, Any]]:
        bson = mongodb.driver("bson")
        try:
            found: list[dict[str, Any]] = bson.decode_all(raw, self._options)
        except bson.errors.InvalidBSON as err:
            last = None
            with suppress(bson.errors.InvalidBSON):
                for document in bson.decode_iter(raw, self._options):
                    last = document["_id"]
            raise PlatformError(
                f"a document of {self._address.place} cannot be read",
                detail=f"{'the first of a batch' if last is None else f'the one after _id {last}'}: {str(err)[:200]}",
                fix="correct it, or leave it out by the filter of the address",
                code="bad_source",
            ) from err
        return found

    def _wait(self, tries: int, err: Exception) -> None:
        """Wait before the next try after `tries`; raises what is wrong where there is none, or no server ever was."""
        if tries >= len(_PATIENCE) or not self._answered:
            raise err
        self._say(f"{self._address.place} does not answer, and is asked again: {type(err).__name__}")
        time.sleep(_PATIENCE[tries])

    def _about(self) -> int:
        """The number of documents; without a filter as the server remembers it."""
        return self._count() if self._address.filter else self._counted(self._collection.estimated_document_count)

    def _count(self) -> int:
        """The documents there are, at the moment of the reading where it has one."""
        count = self._collection.count_documents
        return self._counted(lambda: int(count(self._address.filter, session=self.moment.session)))

    def _counted(self, count: Callable[[], int]) -> int:
        for tries in itertools.count():
            try:
                found = int(count())
            except self._errors.AutoReconnect as err:
                self._wait(tries, err)
            except self._errors.OperationFailure as err:
                if not self.moment.lost(err, begun=True):
                    raise
            else:
                self._answered = True
                return found
        raise AssertionError("one of the tries ends it")

    def _say_moment(self) -> None:
        found = self.moment.report()
        what = f"as of {found['at']}" if found["snapshot"] else f"not as of one moment: {found['why']}"
        self._say(f"{self._address.collection} is read {what}")

    def _changed(self, rows: int, there: int) -> None:
        if rows != there:
            self._say(
                f"{self._address.collection} changed while it was read: {there:,} documents now, {rows:,} read, "
                "each once, as it was at its moment"
            )

    def _say(self, message: str) -> None:
        if self._step:
            events.emit("note", step=self._step, message=message)

    def _say_schema(self, read: _Read) -> None:
        columns = [f"{column.name} {column.type}" for column in schema_of(read.kinds)]
        more = f" and {len(columns) - _SAID} more" if len(columns) > _SAID else ""
        shown = ", ".join(columns[:_SAID]) + more
        self._say(f"{self._address.collection}: {read.rows:,} documents, {len(columns)} columns: {shown}")
        for name, found in sorted(read.kinds.items()):
            if not found:
                self._say(f"{name} is always null: it is left out")
            elif disagree(found):
                kind = schema_of({name: found}).field(0).type
                self._say(f"documents disagree on {name} ({', '.join(sorted(found - {'big'}))}): it is read as {kind}")

    def _nothing(self) -> PlatformError:
        error = empty(self._address.place)
        with suppress(self._errors.PyMongoError):
            names = sorted(self._collection.database.list_collection_names())
            if self._address.collection in names:
                error.fix = "correct the filter of the address" if self._address.filter else "fill the collection"
            else:
                error.detail = f"collections of {self._address.database}: {', '.join(names[:30]) or 'none'}"
                error.fix = "name one that has documents"
        return error


def _at(document: Mapping[str, Any], name: str) -> Any:
    """The value at a dotted name; None where it is missing."""
    found: Any = document
    for key in name.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _behind(last: Any) -> dict[str, Any]:
    """What comes after an _id: greater ones of its type, and those of later types."""
    place = next((at for at, (_, names) in enumerate(_IDS) if type(last).__name__ in names), len(_IDS))
    later = [name for name, _ in _IDS[place + 1 :]]
    return {"$or": [{"_id": {"$gt": last}}, {"_id": {"$type": later}}]} if later else {"_id": {"$gt": last}}

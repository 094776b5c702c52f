"""Scores as documents of a collection: one for each row by its key, so that writing them again changes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts import mongodb
from contracts.errors import PlatformError
from contracts.mongodb import Address
from pipelines.data.document_file import has_object_ids
from pipelines.io import events

if TYPE_CHECKING:
    import pyarrow as pa

_ID = "_id"
_AT_ONCE = 1_000  # documents of one request


def target_of(to: str, source: str) -> Address | None:
    """The collection that scores go to; None for "".

    Raises:
        PlatformError: ``code="bad_address"``: no collection, or that of the rows, whose documents would be replaced.
    """
    if not to:
        return None
    if not mongodb.is_collection(to):
        raise PlatformError(
            f"scores cannot go to {to}", fix="name a collection: mongodb://host/database/collection", code="bad_address"
        )
    address = mongodb.parse(to)
    if mongodb.is_collection(source) and mongodb.parse(source).is_same_place(address):
        raise PlatformError(
            f"scores would replace the rows that they are of: {address.place}",
            fix="name another collection",
            code="bad_address",
        )
    return address


def reach(address: Address) -> None:
    """Log in, before anything is scored.

    Raises:
        PlatformError: the server does not answer, or refuses the user.
    """
    with mongodb.opened(address) as collection:
        collection.database.client.admin.command("ping")


def keys_in(address: Address, names: Sequence[str]) -> tuple[str, ...]:
    """The columns of the source that a row is known by.

    Raises:
        PlatformError: ``code="bad_address"``: the source does not have one of them.
    """
    keys = address.key or (_ID,)
    if missing := [key for key in keys if key not in names]:
        raise PlatformError(
            f"the rows have no column {missing[0]!r} that their scores could be known by",
            detail=f"columns there: {', '.join(names[:40])}",
            fix=f"name one or several in the address: --to '{address.place}?key=COLUMN'",
            code="bad_address",
            column=missing[0],
        )
    return keys


def write_documents(
    address: Address, folder: Path, keys: Mapping[str, str], made: Sequence[str], about: Mapping[str, Any], source: str
) -> dict[str, Any]:
    """Replace or add the document of each row of ``folder/part-*.parquet``.

    A document has the key as ``_id`` (several as an object), the columns `made` and `about`.

    Args:
        keys: the source's name of each key -> its column in `folder`.
        source: the file that was scored; one of a collection may say that its ids are ObjectIds.

    Returns:
        Where they are, and how many.

    Raises:
        PlatformError: a key is missing or not unique, or the server refuses; what is written then is whole documents.
    """
    parts = sorted(folder.glob("part-*.parquet"))
    _unique(parts, keys)
    bson = mongodb.driver("bson")
    as_id = bson.ObjectId if tuple(keys) == (_ID,) and has_object_ids(Path(source)) else lambda value: value
    report, written = events.progress("batch_score"), 0
    operation = mongodb.driver("pymongo").ReplaceOne
    with mongodb.opened(address) as collection:
        for batch in _batches(parts, [*keys.values(), *made]):
            requests = []
            for row in batch.to_pylist():
                values = [row[column] for column in keys.values()]
                key = as_id(values[0]) if len(keys) == 1 else dict(zip(keys, values, strict=True))
                document = {_ID: key, **{_plain(name): row[name] for name in made}, **about}
                requests.append(operation({_ID: key}, document, upsert=True))
            mongodb.write(collection, address, requests, events.notes("batch_score"))
            written += len(requests)
            report(written, None, written=written)
    return {"place": address.place, "documents": written}


def _plain(name: str) -> str:
    """A name that is a field of its own: classes may be called like paths."""
    return re.sub(r"^\$", "_", name.replace(".", "_"))


def _batches(parts: Sequence[Path], columns: list[str]) -> Iterator[pa.RecordBatch]:
    from pyarrow import parquet

    for part in parts:
        with parquet.ParquetFile(part) as file:
            yield from file.iter_batches(_AT_ONCE, columns=columns)


def _unique(parts: Sequence[Path], keys: Mapping[str, str]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    columns = list(keys.values())
    table = pa.concat_tables([parquet.read_table(part, columns=columns) for part in parts])
    empty = [name for name, column in keys.items() if table.column(column).null_count]
    counts = table.group_by(columns).aggregate([([], "count_all")])
    if not empty and counts.num_rows == table.num_rows:
        return
    several = counts.sort_by([("count_all", "descending")]).slice(0, 1).to_pylist()[0]
    shown = ", ".join(f"{name} {several[column]!r}" for name, column in keys.items())
    raise PlatformError(
        f"some rows have no {empty[0]!r} to be known by" if empty else f"{several['count_all']} rows have {shown}",
        detail="nothing was written to the collection; the scores are in the folder",
        fix="name columns that tell the rows apart: key=COLUMN,COLUMN in the address",
        code="bad_input",
        column=(empty or list(keys))[0],
    )

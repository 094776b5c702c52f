"""Records as Parquet: columns of their own type, and for each record the line that it was read from.

A file holds records that have the same members. Values of a column that are not all numbers, texts or truth values are
kept as JSON, so that a record is the same in both forms; an integer among floats becomes the float that equals it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from contracts import storage
from services.feedback.parquet_groups import LABEL_DAYS, groups
from services.feedback.records import Annotation, Label, Placed, Prediction, R, id_time, is_id

GROUP_ROWS = 8_192
_AT_ONCE = 512  # rows that are Python objects at a time
_TYPES = {float: pa.float64(), int: pa.int64(), bool: pa.bool_(), str: pa.string()}
_MOMENT = pa.timestamp("us", tz="UTC")
_JSON = {b"form": b"json"}
_ANSWER, _INPUT = "answer.", "input."


class Kinds:
    """The types of the values of each column of records with the same members, seen before anything is written."""

    def __init__(self) -> None:
        self._seen: dict[str, set[type]] = {}
        self._shapes: dict[tuple[type, ...], list[str]] = {}  # types that were seen, and columns to look at again

    def see(self, record: Prediction | Label | Annotation) -> None:
        """Note the values of one record."""
        columns = columns_of(record)
        shape = tuple(map(type, columns.values()))
        again = self._shapes.get(shape)
        if again is None:
            self._shapes[shape] = [name for name, kind in zip(columns, shape, strict=True) if kind in (int, list)]
        for name in columns if again is None else again:
            self._seen.setdefault(name, set()).add(_kind(columns[name]))

    def schema(self) -> pa.Schema:
        """The columns that hold all records that were seen."""
        fields = [_field(name, kinds - {type(None)}) for name, kinds in self._seen.items()]
        return pa.schema([*fields, pa.field("source", pa.string()), pa.field("at", pa.int64())])


def members(record: Prediction | Label | Annotation) -> tuple[Any, ...]:
    """What records of one file have in common."""
    if not isinstance(record, Prediction):
        return ()
    same = (record.model, record.version, record.digest, record.schema, record.moment is None)
    return (*same, tuple(record.answer), tuple(record.inputs))


def columns_of(record: Prediction | Label | Annotation) -> dict[str, Any]:
    """The values of a record by column."""
    if isinstance(record, Label):
        return {"id": record.id, "label": [record.label], "time": record.time, "version": record.version}
    if isinstance(record, Annotation):
        said = {"id": record.id, "annotation": [record.annotation], "time": record.time}
        return {**said, "key": record.key, "version": record.version}
    return {
        "schema": record.schema,
        "id": record.id,
        "time": record.time,
        "model": record.model,
        "version": record.version,
        "digest": record.digest,
        "latency_ms": record.latency_ms,
        "flags": list(record.flags),
        "entities": dict(record.entities),
        **({} if record.moment is None else {"moment": record.moment}),
        **{_ANSWER + name: value for name, value in record.answer.items()},
        **{_INPUT + name: value for name, value in record.inputs.items()},
    }


class Writer:
    """Writes one file of records; a context manager."""

    def __init__(self, file: Path, kinds: Kinds) -> None:
        self._schema = kinds.schema()
        self._json = {field.name for field in self._schema if field.metadata == _JSON}
        self._writer = pq.ParquetWriter(file, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []
        self._days = Counter[str]()  # of the predictions that labels are of

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, placed: Placed[Any]) -> None:
        """Add one record."""
        row = columns_of(placed.record)
        for name in self._json:
            row[name] = orjson.dumps(row[name]).decode()
        self._rows.append({**row, "source": placed.source, "at": placed.at})
        if isinstance(placed.record, Label) and is_id(placed.record.id):
            self._days[id_time(placed.record.id).date().isoformat()] += 1
        if len(self._rows) >= GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        """Write what is left, and the end of the file."""
        if self._rows:
            self._flush()
        if self._days:
            self._writer.add_key_value_metadata({LABEL_DAYS: orjson.dumps(self._days)})
        self._writer.close()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []


def rewrite(uri: str, gone: Callable[[str], bool], column: str = "id") -> int:
    """Leave out the rows whose value of `column` is `gone`; returns how many there are. Groups of rows stay groups."""
    count = 0
    with TemporaryDirectory(prefix="fairlead-log-") as folder:
        target, writer = Path(folder) / "log.parquet", None
        for _, whole in groups(uri):
            table = whole.replace_schema_metadata(None)  # its counts are of before
            kept = table.filter(pa.array([not gone(value) for value in table[column].to_pylist()], pa.bool_()))
            count += len(table) - len(kept)
            writer = writer or pq.ParquetWriter(target, table.schema, compression="zstd")
            writer.write_table(kept)
        if writer is not None:
            writer.close()
        if count:
            storage.upload_file(target, uri)
    return count


def records_of(table: pa.Table, of: type[R]) -> Iterator[Placed[R]]:
    """The records of a group of rows."""
    texts = [field.name for field in table.schema if field.metadata == _JSON]
    for batch in table.to_batches(max_chunksize=_AT_ONCE):
        for row in batch.to_pylist():
            source, at = row.pop("source"), row.pop("at")
            for name in texts:
                row[name] = orjson.loads(row[name])
            yield Placed(record=_record(row, of), source=source, at=at)


def _record(row: Mapping[str, Any], of: type[R]) -> R:
    found: Any
    if of is Label:
        found = Label(id=row["id"], label=row["label"][0], time=row["time"], version=row["version"])
        return found  # type: ignore[no-any-return]
    if of is Annotation:
        found = Annotation(**{**row, "annotation": row["annotation"][0]})
        return found  # type: ignore[no-any-return]
    answer = {name[len(_ANSWER) :]: value for name, value in row.items() if name.startswith(_ANSWER)}
    inputs = {name[len(_INPUT) :]: value for name, value in row.items() if name.startswith(_INPUT)}
    found = Prediction(
        schema=row["schema"],
        id=row["id"],
        time=row["time"],
        model=row["model"],
        version=row["version"],
        digest=row["digest"],
        latency_ms=row["latency_ms"],
        flags=tuple(row["flags"]),
        entities=row["entities"],
        moment=row.get("moment"),
        answer=answer,
        inputs=inputs,
    )
    return found  # type: ignore[no-any-return]


def _kind(value: Any) -> type:
    if type(value) is int and not -(2**53) <= value <= 2**53:
        return dict  # neither a float nor all of 64 bits: as JSON
    if type(value) is list and value and all(type(one) is float for one in value):
        return _Floats
    return type(value)


class _Floats:
    """Stands for lists of floats, such as probabilities."""


def _field(name: str, kinds: set[type]) -> pa.Field:
    if name in ("time", "moment"):
        return pa.field(name, _MOMENT)
    if name == "flags":
        return pa.field(name, pa.list_(pa.string()))
    if kinds == {_Floats}:
        return pa.field(name, pa.list_(pa.float64()))
    if kinds == {int, float}:
        kinds = {float}
    if name == "latency_ms" or (not kinds and name.startswith(_INPUT)):
        return pa.field(name, pa.float64())
    if len(kinds) == 1 and (kind := next(iter(kinds))) in _TYPES:
        return pa.field(name, _TYPES[kind])
    return pa.field(name, pa.string(), metadata=_JSON)

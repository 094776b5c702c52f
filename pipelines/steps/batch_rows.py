"""The rows of a batch as the model's inputs: read by the model's layout, completed and flagged as the service does."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contracts.bundle import Bundle, Input, Signature
from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from pipelines.data import image_files
from pipelines.data.chunks import ROW, TextFormat, text_format
from pipelines.data.columns import NUMBERED, column_fix
from pipelines.data.delimited import undecodable
from pipelines.data.personal import PersonalData
from pipelines.data.schema import KEY_EXPECTED, cast_column, cast_key, expected, sample_of
from pipelines.data.sources import column_names, list_files, read_chunks
from pipelines.data.value_format import PLAIN, ValueFormat, value_format
from pipelines.data.values_guess import guess_setting
from pipelines.task import Column, DataConfig, data_config

if TYPE_CHECKING:
    import pyarrow as pa

_COLUMNS = "data.columns."


@dataclass
class Flags:
    """What is odd about rows: a word and the rows that it goes for, in the order of a service's answer."""

    rows: int
    words: list[tuple[str, NDArray[np.bool_]]] = field(default_factory=list)

    def add(self, word: str, rows: NDArray[np.bool_]) -> None:
        """Note `word` for the rows of the mask; a word of no row is left out."""
        if rows.any():
            self.words.append((word, rows))

    def counts(self) -> dict[str, int]:
        """Rows of each word."""
        return {word: int(rows.sum()) for word, rows in self.words}

    def column(self) -> pa.Array:
        """The words of each row, a list of strings."""
        import pyarrow as pa

        kind = pa.list_(pa.string())
        if not self.words:
            return pa.array([[]], kind).take(pa.array(np.zeros(self.rows, np.int64)))
        packed = np.packbits(np.stack([rows for _, rows in self.words], axis=1), axis=1)
        patterns, at = np.unique(packed, axis=0, return_inverse=True)
        bits = np.unpackbits(patterns, axis=1, count=len(self.words)).astype(bool)
        lists = [[word for (word, _), here in zip(self.words, row, strict=True) if here] for row in bits]
        return pa.array(lists, kind).take(pa.array(at.reshape(-1)))


@dataclass(frozen=True)
class _Layout:
    """How a file is read, and the name in the file of each column that its maker called otherwise."""

    form: TextFormat
    columns: Mapping[str, str]
    values: ValueFormat = PLAIN
    strict: frozenset[str] = frozenset()  # columns whose name in the file was just said

    def find(self, name: str, names: Sequence[str]) -> str | None:
        """The name in the file of the model's column `name`."""
        said = self.columns.get(name, name)
        if said in names or said == NUMBERED:
            return said
        return name if name in names and name not in self.strict else None


@dataclass(frozen=True)
class Plan:
    """Which columns a file gives: all inputs of the model, or what a request for online features has."""

    layout: _Layout
    names: list[str]
    direct: bool


def scorable(
    source: str, bundle: Bundle, settings: str, where: Endpoints
) -> Iterator[tuple[pa.Table, dict[str, NDArray[Any]], Flags]]:
    """The rows of `source` in chunks: as they are there, as the model's inputs, and what is odd about them."""
    said, signature = parsed(settings), bundle.document.signature
    column = next((item.name for item in signature.inputs if item.dtype == "bytes"), "")
    if not column:
        for plan, table in tables(source, bundle, said):
            yield table, *inputs_of(table, plan, bundle, where)
        return
    for table in image_files.batches(source, column, data_config(bundle.document.layout, said)):
        yield table, {column: table.column(column).to_numpy(zero_copy_only=False)}, Flags(table.num_rows)


def tables(source: str, bundle: Bundle, settings: Mapping[str, Any]) -> Iterator[tuple[Plan, pa.Table]]:
    """The chunks of every file of `source`, each with how its columns are used.

    `settings` has keys as ``--set`` takes them (``data.delimiter``); they win over the layout of the bundle. A file
    that has the model's own column names, in the form that is read without settings, needs none.

    Raises:
        PlatformError: a file lacks a column, or has a row that cannot be read.
    """
    data = data_config(bundle.document.layout, settings)
    for path in list_files(source):
        plan = _plan(path, bundle.document.signature, data, settings)
        here = {name: plan.layout.find(name, plan.names) or name for name in data.pii}
        known = {name: called for name, called in here.items() if called in plan.names}
        personal = PersonalData.of_columns(data, known, strict=False)
        for chunk in read_chunks(path, plan.names, plan.layout.form):
            chunk = personal.apply(chunk)
            if chunk.rejected:
                bad = chunk.rejected[0]
                if bad.undecodable and (error := undecodable(path, plan.layout.form, f"row {bad.row}: {bad.reason}")):
                    error.context["row"] = bad.row
                    raise error
                raise PlatformError(
                    f"{path.name}, row {bad.row}: {bad.reason}",
                    detail=f"column {bad.column!r}: {bad.value[:60]}" if bad.column else bad.value[:60],
                    fix="correct the row; every row of a batch must get an answer",
                    code="bad_input",
                    row=bad.row,
                )
            if chunk.table.num_rows:
                yield plan, chunk.table


def _plan(path: Path, signature: Signature, data: DataConfig, settings: Mapping[str, Any]) -> Plan:
    form = text_format(data)
    said = frozenset(key.removeprefix(_COLUMNS) for key in settings if key.startswith(_COLUMNS))
    layouts = [_Layout(form, data.columns, value_format(data), said)]
    if not settings:  # positions always fit, so that a header with the model's names is looked for first
        layouts.insert(1 if data.header else 0, _Layout(TextFormat(), {}))
    for layout in layouts:
        try:
            names = column_names(path, layout.form)
        except PlatformError:
            if layout.columns or layout.form == form:
                raise
            continue
        for direct in (True, False):
            if not _lacking(signature, layout, names, direct):
                return Plan(layout, names, direct)
    layout = _Layout(form, data.columns, value_format(data), said)
    raise _missing(path, signature, layout, column_names(path, layout.form), data)


def _lacking(signature: Signature, layout: _Layout, names: Sequence[str], direct: bool) -> list[str]:
    if not direct and not (signature.entities or signature.request):
        return [signature.inputs[0].name]
    fields = _fields(signature, direct)
    may_lack = {item.name for item in fields if item.optional and item.name not in layout.strict}
    asks = [item.name for item in fields if item.dtype == "string" and layout.find(item.name, names)]
    if may_lack == {item.name for item in fields} and not asks:
        return [fields[0].name]  # rows that ask for nothing would all get the same
    needed = [item.name for item in fields if item.name != signature.timestamp and item.name not in may_lack]
    needed = needed if direct else [*signature.entities, *needed]
    return [name for name in needed if layout.find(name, names) is None]


def _fields(signature: Signature, direct: bool) -> list[Input]:
    """The inputs and request fields that a row carries, as `services.model.request_schema` derives them."""
    if direct:
        return signature.inputs
    given = {item.name: item for item in signature.inputs if item.source == "request"}
    return list((given | {item.name: item for item in signature.request}).values())


def _missing(path: Path, signature: Signature, layout: _Layout, names: list[str], data: DataConfig) -> PlatformError:
    request = bool(signature.entities or signature.request)
    column = _lacking(signature, layout, names, direct=not request)[0]
    wanted = [*signature.entities, *(item.name for item in _fields(signature, not request))]
    said = layout.columns.get(column, column)
    shown = f"column {column!r}" if said == column else f"column {said!r} (for {column!r})"
    return PlatformError(
        f"{path.name} has no {shown}",
        detail=f"columns there: {', '.join(names[:40])}; a request has: {', '.join(wanted)}",
        fix=column_fix(column, said, names, path, data),
        code="bad_schema",
        column=column,
        file=str(path),
    )


def inputs_of(table: pa.Table, plan: Plan, bundle: Bundle, where: Endpoints) -> tuple[dict[str, NDArray[Any]], Flags]:
    """The model's inputs of some rows, one array each, and what is odd about the rows.

    Raises:
        PlatformError: ``code="bad_input"``, naming the row and column of a value that is none of its type.
    """
    signature, flags = bundle.document.signature, Flags(table.num_rows)
    columns = {} if plan.direct else _keys(table, plan, signature)
    stamp = signature.timestamp
    for item in _fields(signature, plan.direct):
        if plan.direct or item.name != stamp:
            columns[item.name] = _checked(table, plan, item, flags)
    if not plan.direct:
        if stamp:
            columns[stamp] = _moments(table, plan, stamp)
        columns |= _looked_up(columns, bundle, where, flags)
    return {item.name: _filled(columns[item.name], item) for item in signature.inputs}, flags


def _values(table: pa.Table, plan: Plan, column: Column, key: bool = False) -> pa.ChunkedArray:
    """One column, cast; a value that is none of its type is named."""
    import pyarrow as pa

    name = plan.layout.find(column.name, table.column_names)
    given = table.column(ROW if name == NUMBERED else str(name))
    form = plan.layout.values
    values, wrong = (cast_key if key else cast_column)(given, column, form)
    if wrong.any():
        at = int(wrong.argmax())
        what = KEY_EXPECTED if key else expected(column, form)
        error = _bad(table, at, column.name, what, f"got {str(given[at].as_py())[:60]!r}")
        error.fix = guess_setting(column, sample_of(given.filter(pa.array(wrong))), form) or error.fix
        raise error
    return values


def _bad(table: pa.Table, at: int, column: str, what: str, detail: str) -> PlatformError:
    row = int(table.column(ROW)[at].as_py())
    return PlatformError(
        f"row {row}, column {column!r}: {what}",
        detail=detail,
        fix="correct the value, or leave it empty when it is not known",
        code="bad_input",
        row=row,
        column=column,
    )


def _keys(table: pa.Table, plan: Plan, signature: Signature) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    for name in signature.entities:
        values = _values(table, plan, Column(name=name, dtype="string"), key=True)
        if values.null_count:
            at = int(np.asarray(values.is_null()).argmax())
            error = _bad(table, at, name, "no key", "a request must name its entity")
            error.fix = "give the key, or leave the row out; a key that the store does not know is flagged"
            raise error
        found[name] = values.to_numpy()
    return found


def _moments(table: pa.Table, plan: Plan, stamp: str) -> NDArray[Any]:
    """The moment of each row in UTC; now where it is not known."""
    now = np.datetime64(datetime.now(UTC).replace(tzinfo=None), "us")
    if plan.layout.find(stamp, table.column_names) is None:
        return np.full(table.num_rows, now)
    moments = np.asarray(_values(table, plan, Column(name=stamp, dtype="timestamp")).to_numpy(), dtype="M8[us]")
    return np.where(np.isnat(moments), now, moments)


def _checked(table: pa.Table, plan: Plan, item: Input, flags: Flags) -> NDArray[Any]:
    """A field's values with its default where one is missing, flagged as `services.model.columns` flags them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind: Any = {"bool": "int64", "bytes": "string"}.get(item.dtype, item.dtype)
    if item.optional and plan.layout.find(item.name, table.column_names) is None:
        empty: Any = np.full(table.num_rows, None) if kind == "string" else np.full(table.num_rows, np.nan)
        return _filled(empty, item)
    values = _values(table, plan, Column(name=item.name, dtype=kind, nullable=True))
    missing = np.asarray(values.is_null())
    flags.add(f"missing:{item.name}", missing)
    made = values.to_numpy()
    if kind == "string":
        if item.categories is not None:
            known = np.asarray(pc.is_in(values, value_set=pa.array(item.categories, pa.string())))
            flags.add(f"unknown_category:{item.name}", ~known & ~missing)
    elif item.dtype != "bool":
        low = -np.inf if item.minimum is None else item.minimum
        high = np.inf if item.maximum is None else item.maximum
        flags.add(f"out_of_range:{item.name}", ~missing & ~((made >= low) & (made <= high)))
    return _filled(made, item)


def _filled(values: NDArray[Any], item: Input) -> NDArray[Any]:
    """Missing values become the input's default; else NaN or ""."""
    if item.dtype in ("string", "bytes"):
        missing = values == None  # noqa: E711 - elementwise
        return np.where(missing, "" if item.default is None else str(item.default), values)
    numbers = values.astype(np.float64)
    return numbers if item.default is None else np.where(np.isnan(numbers), float(item.default), numbers)


def _looked_up(
    columns: Mapping[str, NDArray[Any]], bundle: Bundle, where: Endpoints, flags: Flags
) -> dict[str, NDArray[Any]]:
    """Online features, and those derived from them and the request, as served at each row's own moment."""
    from feature_repo.stores.reader import OnlineReader, apply_transforms

    plan: dict[str, Any] = bundle.read_json("features.json")
    signature, found = bundle.document.signature, dict(columns)
    if signature.entities:
        keys = {name: columns[name].tolist() for name in signature.entities}
        stamp = signature.timestamp
        moments = columns[stamp] if stamp else np.full(flags.rows, np.datetime64("now", "us"))
        found |= read_at(OnlineReader(plan, where.uri("online")), plan, keys, moments, flags)
    return found | apply_transforms(plan, found)


def read_at(
    reader: Any, plan: Mapping[str, Any], keys: Mapping[str, list[Any]], moments: NDArray[Any], flags: Flags
) -> dict[str, NDArray[Any]]:
    """Online features of many rows, each as served at its own moment.

    One read for all rows, as of a moment before all data, so that nothing is too old yet; the time to live is then
    applied to each row by itself, in whole microseconds as the store does.
    """
    read = reader.read(keys, datetime(1970, 1, 1, tzinfo=UTC))
    columns, now = dict(read.columns), moments.astype("M8[us]").astype(np.int64)
    for view in plan["views"]:
        age, status = np.asarray(read.age_seconds[view["name"]], np.float64), np.asarray(read.status[view["name"]])
        event = np.round(np.nan_to_num(-age * 1e6)).astype(np.int64)
        old = np.zeros(len(now), dtype=bool)
        if view["ttl_seconds"] > 0:
            old = (status == "PRESENT") & (event < now - round(view["ttl_seconds"] * 1e6))
        status = np.where(old, "OUTSIDE_MAX_AGE", status)
        for word in np.unique(status[status != "PRESENT"]).tolist():
            flags.add(f"{word.lower()}:{view['name']}", status == word)
        for feature in view["features"]:
            values = columns[feature["name"]]
            columns[feature["name"]] = np.where(old, None if values.dtype.kind == "O" else np.nan, values)
    return columns


def parsed(settings: str) -> dict[str, Any]:
    """The JSON text of settings by dotted key; empty text has none."""
    found: dict[str, Any] = json.loads(settings) if settings else {}
    return found

"""What an unknown file holds, found by reading its beginning the way a run would, and the settings to read it by."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from pipelines.data.chunks import ROW, text_format
from pipelines.data.columns import NUMBERED, closest
from pipelines.data.delimited import delimiter_fix, undecodable
from pipelines.data.formats import packing
from pipelines.data.origins import source_here
from pipelines.data.personal import in_words, look
from pipelines.data.schema import FALSE, MISSING, TRUE, cast_column, sample_of
from pipelines.data.sources import column_names, kind_of, list_files, read_chunks
from pipelines.data.value_format import value_format
from pipelines.data.values_guess import guess_setting
from pipelines.settings import parse_setting, setting
from pipelines.task import Column, DataConfig, Task, data_config

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 20_000  # rows that are looked at
_MOSTLY = 0.9  # share of values that make a column one of their kind
_FLOATED = re.compile(r"-?\d+\.0+")
_ATTEMPTS = 8


@dataclass(kw_only=True)
class Found:
    """One column: what its values are, and what somebody should look at before training on it."""

    name: str
    kind: str
    missing: float
    distinct: int
    low: str = ""
    high: str = ""
    examples: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Inspection:
    """A file: how it was read, its columns, and what a task would still lack.

    settings: what must be set to read it so, in the form of ``--set``. lacking: columns of the task without a match.
    """

    file: str
    packed: str
    kind: str
    rows: int
    whole: bool
    unreadable: int
    settings: dict[str, Any]
    columns: list[Found]
    lacking: list[str]
    reading: DataConfig


def inspect(source: str, task: Task | None, overrides: Mapping[str, Any]) -> Inspection:
    """Look at the first `ROWS` rows of the first file of `source`.

    Args:
        task: what the file is meant for: its columns are looked for, and their types are tried.
        overrides: settings that are known, with keys as ``--set`` takes them.

    Raises:
        PlatformError: the file cannot be read at all.
    """
    with source_here(source, most=ROWS + 1) as here:
        return _inspected(list_files(here)[0], task, overrides)


def _inspected(path: Path, task: Task | None, overrides: Mapping[str, Any]) -> Inspection:
    given: dict[str, Any] = dict(overrides)
    names, table, unreadable, whole = _read(path, given)
    lacking = _match(names, task, given) if task else []
    data = data_config({}, given)
    wanted = {data.columns.get(column.name, column.name): column for column in task.columns} if task else {}
    columns = []
    for name in names:
        columns.append(_describe(name, table.column(name), wanted.get(name), given))
    return Inspection(
        file=path.name,
        packed=packing(path) if kind_of(path) in ("text", "json") else "",
        kind=kind_of(path),
        rows=table.num_rows,
        whole=whole,
        unreadable=unreadable,
        settings={key: value for key, value in given.items() if key not in overrides},
        columns=columns,
        lacking=lacking,
        reading=data_config({}, given),
    )


def _read(path: Path, given: dict[str, Any]) -> tuple[list[str], pa.Table, int, bool]:
    """Names, rows, number of rows that cannot be read, and whether that is all.

    Encoding and delimiter go to `given` when they are guessed.
    """
    import pyarrow as pa

    for _ in range(_ATTEMPTS):
        form = text_format(data_config({}, given))
        try:
            names = column_names(path, form)
        except PlatformError as err:
            if err.context.get("encoding") and "data.encoding" not in given:
                given["data.encoding"] = err.context["encoding"]
                continue
            raise
        if kind_of(path) == "text" and (fix := delimiter_fix(path, form)) and "data.delimiter" not in given:
            given.update([_read_fix(fix)])
            continue
        tables, lost, bad, whole = [], 0, 0, True
        for chunk in read_chunks(path, names, form):
            tables.append(chunk.table)
            lost += sum(row.undecodable for row in chunk.rejected)
            bad += len(chunk.rejected)
            if chunk.through >= ROWS:
                whole = False
                break
        if lost > 2 and "data.encoding" not in given and (error := undecodable(path, form, "")):
            given["data.encoding"] = error.context["encoding"]
            continue
        table = pa.concat_tables(tables) if tables else pa.table({name: [] for name in [*names, ROW]})
        return names, table.slice(0, ROWS), bad, whole and table.num_rows <= ROWS
    raise AssertionError("each attempt sets something")


def _read_fix(fix: str) -> tuple[str, Any]:
    import shlex

    return parse_setting(shlex.split(fix)[1])


def _match(names: Sequence[str], task: Task, given: dict[str, Any]) -> list[str]:
    lacking = []
    for column in task.columns:
        source = data_config({}, given).columns.get(column.name, column.name)
        if source in names or source == NUMBERED:
            continue
        if like := closest(source, list(names)):
            given[f"data.columns.{column.name}"] = like
        elif not column.nullable:
            lacking.append(column.name)
    return lacking


def _describe(name: str, values: pa.ChunkedArray, wanted: Column | None, given: dict[str, Any]) -> Found:
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = pc.utf8_trim_whitespace(values.cast(pa.string())) if _is_text(values) else values.cast(pa.string())
    known = [text for text in texts.to_pylist() if text and text.lower() not in MISSING]
    found = Found(
        name=name,
        kind="text",
        missing=1 - len(known) / max(len(values), 1),
        distinct=len(set(known)),
        examples=[text[:40] for text, _ in Counter(known).most_common(3)],
    )
    if not known:
        found.kind, found.remarks = "empty", ["no value"]
        return found
    kinds, shown = look(name, dict(Counter(known).most_common()))
    if kinds:
        found.remarks.append(f"holds personal data: {in_words(kinds)}")
        found.examples = [text[:40] for text in shown[: len(found.examples)]]
    typed, found.kind = _typed(name, values, known, wanted, given, found.remarks)
    if typed is not None:
        bounds = pc.min_max(typed)
        found.low, found.high = (str(bounds[end])[:19] for end in ("min", "max"))
    _remark(found, known, wanted)
    return found


def _typed(
    name: str,
    values: pa.ChunkedArray,
    known: list[str],
    wanted: Column | None,
    given: dict[str, Any],
    remarks: list[str],
) -> tuple[pa.ChunkedArray | None, str]:
    """The values by the first type that nearly all of them have, and its name; the settings for it go to `given`."""
    if wanted is None and _is_text(values) and {text.lower() for text in known} <= {*TRUE, *FALSE}:
        return None, "true or false"
    moments = str(values.type).startswith("timestamp")  # which is a number to a cast
    usual = ("timestamp",) if moments else ("int64", "float64", "timestamp")
    dtypes: Sequence[Any] = (wanted.dtype,) if wanted else usual
    for dtype in dtypes if dtypes != ("string",) else ():
        column = wanted or Column(name=name, dtype=dtype, nullable=True)
        for _ in range(2):
            form = value_format(data_config({}, given))
            try:
                typed, wrong = cast_column(values, column, form)
            except PlatformError as err:
                fix = err.fix if err.fix.startswith("--set data.times") else ""
            else:
                if 1 - wrong.sum() / len(known) >= _MOSTLY:
                    if wrong.any():
                        remarks.append(f"{int(wrong.sum())} values are no {dtype}")
                    return typed, dtype
                guessed = guess_setting(column, sample_of(values.filter(_mask(wrong))), form)
                fix = guessed if _is_text(values) else ""
            if not fix or (dtype == "timestamp" and wanted is None and _looks_like_number(known)):
                break
            if wanted is None and dtype == "timestamp":
                return None, f"moment ({_read_fix(fix)[1]})"
            given.update(map(parse_setting, _settings(fix)))
    if wanted and wanted.dtype != "string":
        remarks.append(f"cannot be read as {wanted.dtype}")
    return None, "text"


def _settings(fix: str) -> list[str]:
    import shlex

    words = shlex.split(fix)
    return [words[at + 1] for at, word in enumerate(words) if word == "--set"]


def _mask(wrong: Any) -> Any:
    import pyarrow as pa

    return pa.array(wrong)


def _is_text(values: pa.ChunkedArray) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(values.type) or pa.types.is_large_string(values.type))


def _looks_like_number(known: list[str]) -> bool:
    return sum(text.replace(".", "", 1).lstrip("-").isdigit() for text in known) > _MOSTLY * len(known)


def _remark(found: Found, known: list[str], wanted: Column | None) -> None:
    number = [text for text in known if _looks_like_number([text])]
    if found.distinct == 1:
        found.remarks.append("always the same")
    if found.missing > 0.5:
        found.remarks.append("mostly missing")
    if found.kind == "text" and 0.05 < len(number) / len(known) < 0.95:
        found.remarks.append(f"numbers and text mixed ({len(number) / len(known):.0%} numbers)")
    if sum(_FLOATED.fullmatch(text) is not None for text in known) > _MOSTLY * len(known) and found.distinct > 2:
        found.remarks.append("whole numbers with .0: keys and ids are read without it")
    if found.kind == "int64" and wanted is None and all(len(text) in (10, 13, 16, 19) for text in known[:200]):
        found.remarks.append(
            "may be a moment: " + guess_setting(_moment(found.name), known[:200], value_format(DataConfig()))
        )
    if wanted is not None and wanted.unique and found.distinct < len(known):
        found.remarks.append(f"{len(known) - found.distinct} values repeat, and must not")
    if wanted is not None and not wanted.nullable and found.missing > 0:
        found.remarks.append("values are missing, and must not")


def _moment(name: str) -> Column:
    return Column(name=name, dtype="timestamp", nullable=True)


def run_command(inspection: Inspection, source: str, task: str, overrides: Mapping[str, Any]) -> str:
    """The command that trains `task` on the file as it was read here."""
    import shlex

    said = [setting(key, value) for key, value in {**overrides, **inspection.settings}.items()]
    missing = [f"--set data.columns.{name}=NAME" for name in inspection.lacking]
    return " ".join(["fairlead run", task, "--source", shlex.quote(source), *said, *missing])

"""What is checked of each part of a version alone: here, or by the workers of a run's engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts import storage
from contracts.errors import PlatformError
from feature_repo.stores import parts
from pipelines.data.chunks import ROW, read_table, write_table
from pipelines.data.rules import build_schema, find_violations
from pipelines.data.schema import KEY_EXPECTED, cast_column, cast_key, expected, missing_column, sample_of
from pipelines.data.value_format import value_format
from pipelines.data_engines import current
from pipelines.io.files import missing
from pipelines.task import DataConfig, Task
from pipelines.tasks import get_task, load_config

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass
class Checked:
    """A part whose values have been cast and compared with the rules: `problems` are (place, column, reason) of values,
    `wrong` some of those that could not be read, by column."""

    table: pa.Table
    problems: list[tuple[int, str, str]]
    wrong: dict[str, list[str]]


class Checks:
    """Types and rules of the columns of a task."""

    def __init__(self, task: Task, data: DataConfig) -> None:
        self.task = task
        self.form = value_format(data)
        self.schema = build_schema(task.columns)
        self.drop = set(data.drop) - {column.name for column in task.columns}

    def check(self, raw: pa.Table) -> Checked:
        """Cast the values of a part and compare them with the rules; it needs nothing of other parts."""
        checked = self._typed(raw)
        frame = checked.table.select([c.name for c in self.task.columns]).to_pandas(types_mapper=_text_type)
        known = {(at, name) for at, name, _ in checked.problems}
        checked.problems += [p for p in find_violations(self.schema, frame) if (p[0], p[1]) not in known]
        return checked

    def _typed(self, raw: pa.Table) -> Checked:
        import pyarrow as pa

        columns, names, problems, samples = [], [], list[tuple[int, str, str]](), dict[str, list[str]]()
        for column in self.task.columns:
            if column.name in raw.column_names:
                key = column.name in self.task.entities
                given = raw.column(column.name)
                values, wrong = (cast_key if key else cast_column)(given, column, self.form)
                if wrong.any() and not key:
                    samples[column.name] = list(sample_of(given.filter(pa.array(wrong))))
                reason = KEY_EXPECTED if key else expected(column, self.form)
                problems += [(int(at), column.name, reason) for at in wrong.nonzero()[0]]
            elif column.nullable:
                values = missing_column(raw.num_rows, column)
            else:
                raise _no_column(column.name, raw.column_names)
            columns.append(values)
            names.append(column.name)
        others = [n for n in raw.column_names if n not in names and n != ROW and n not in self.drop]
        table = pa.table([*columns, *(raw.column(n) for n in others)], names=[*names, *others])
        return Checked(table, problems, samples)


def checked_parts(
    checks: Checks, asked: dict[str, str], dataset: str, folder: Path, names: list[str]
) -> Iterator[tuple[pa.Table, Checked]]:
    """Each part as it is and checked; several are checked by the workers of the run's engine."""
    engine = current()
    if engine.workers == 1 or len(names) < 2:
        for name in names:
            raw = _read_part(folder / name)
            yield raw, checks.check(raw)
        return
    with engine.place() as place:
        remote = storage.is_remote(dataset)
        root = dataset.rpartition("/")[0] if remote else str(folder)
        files = [storage.join(root, name) for name in names]
        seen = files if remote else engine.shared(files, place)
        items = [{**asked, "file": file, "out": storage.join(place, f"{at:05d}.arrow")} for at, file in enumerate(seen)]
        for name, item, done in zip(names, items, engine.map(f"{__name__}:check_part", items), strict=True):
            problems = [(at, column, reason) for at, column, reason in done["problems"]]
            yield _read_part(folder / name), Checked(read_table(item["out"]), problems, done["wrong"])


def check_part(item: Mapping[str, Any]) -> dict[str, Any]:
    """Work: check one part; its cast rows are written to ``item["out"]``."""
    task = get_task(item["task"])
    checks = Checks(task, load_config(task, item["config"]).data)
    with parts.scratch(item["out"]) as folder, parts.files_here([item["file"]], folder) as (here,):
        checked = checks.check(_read_part(Path(here)))
        write_table(checked.table, folder / "made.arrow")
        parts.publish(folder / "made.arrow", item["out"])
    return {"problems": checked.problems, "wrong": checked.wrong}


def _text_type(kind: pa.DataType) -> Any:
    import pandas as pd
    import pyarrow as pa

    # Arrow-backed text: checks run in Arrow, without a Python object per value.
    return {pa.string(): pd.StringDtype("pyarrow"), pa.int64(): pd.Int64Dtype()}.get(kind)


def _read_part(file: Path) -> pa.Table:
    from pyarrow import parquet

    if not file.exists():
        raise missing(file)
    return parquet.read_table(file)


def _no_column(name: str, available: list[str]) -> PlatformError:
    return PlatformError(
        f"the data has no column {name!r}",
        detail=f"columns there: {', '.join(n for n in available if n != ROW)}",
        fix=f"say which one it is: --set data.columns.{name}=NAME",
        code="bad_schema",
        column=name,
    )

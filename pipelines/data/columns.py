"""Which columns of a source a task sees, and under which names."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.errors import PlatformError
from pipelines.data.chunks import ROW, text_format
from pipelines.data.delimited import delimiter_fix
from pipelines.data.sources import kind_of
from pipelines.settings import setting
from pipelines.task import DataConfig, Task

if TYPE_CHECKING:
    import pyarrow as pa

NUMBERED = "#row"  # in DataConfig.columns: the number of the row stands for an id


@dataclass(frozen=True)
class Selection:
    """Columns to keep as (name in the source, name in the task), in order, and columns made of row numbers."""

    keep: list[tuple[str, str]]
    numbered: list[str]

    def apply(self, table: pa.Table) -> pa.Table:
        """Select and rename."""
        import pyarrow as pa

        columns = [table.column(source) for source, _ in self.keep]
        made = [table.column(ROW).cast(pa.string()) for _ in self.numbered]
        names = [name for _, name in self.keep]
        return pa.table([*columns, *made, table.column(ROW)], names=[*names, *self.numbered, ROW])


def select(names: list[str], task: Task, data: DataConfig, path: Path) -> Selection:
    """Map a source's columns to the task's; columns that the task does not know are kept unless dropped.

    Raises:
        PlatformError: ``code="bad_schema"``, naming the missing column and those that there are.
    """
    wanted = {column.name: data.columns.get(column.name, column.name).strip() for column in task.columns}
    if unknown := sorted(set(data.columns) - set(wanted)):
        raise PlatformError(
            f"data.columns names {unknown[0]!r}, which is not a column of task {task.name}",
            detail=f"columns of the task: {', '.join(wanted)}",
            fix="write task column: source column",
            code="bad_config",
        )
    lacking = [
        column
        for column in task.columns
        if wanted[column.name] not in {NUMBERED, *names} and not (column.nullable and column.name not in data.columns)
    ]
    if lacking:
        first, *others = lacking
        also = [wanted[one.name] for one in others]
        raise _missing(first.name, wanted[first.name], names, path, data, also, numbers=first.unique)
    keep: list[tuple[str, str]] = []
    for name in names:
        targets = [target for target, source in wanted.items() if source == name]
        if name in data.drop and not targets:
            continue
        free = name if name not in wanted and name != ROW else f"{name}_source"
        keep += [(name, target) for target in targets if target not in data.drop or target in wanted] or [(name, free)]
    return Selection(keep, [target for target, source in wanted.items() if source == NUMBERED])


def _missing(
    column: str, source: str, names: list[str], path: Path, data: DataConfig, also: list[str], numbers: bool = False
) -> PlatformError:
    known = ", ".join(names[:40]) + (" ..." if len(names) > 40 else "")
    wanted = f"column {column!r}" if column == source else f"column {source!r} (for {column!r})"
    return PlatformError(
        f"{path.name} has no {wanted}",
        detail=f"columns there: {known}" + (f"; missing as well: {', '.join(also)}" if also else ""),
        fix=column_fix(column, source, names, path, data, numbers),
        code="bad_schema",
        column=column,
        available=names[:100],
    )


def column_fix(column: str, source: str, names: list[str], path: Path, data: DataConfig, numbers: bool = False) -> str:
    """The setting for a column that a file lacks: another delimiter, a header, or a name that is like it.

    numbers: those of the rows would do.
    """
    if kind_of(path) == "text" and (fix := delimiter_fix(path, text_format(data))):
        return fix
    if like := closest(source, names):
        return f"if it is that one: {setting(f'data.columns.{column}', like)}"
    said = f"say which one it is: --set data.columns.{column}=NAME"
    return f"{said}; or number the rows: {setting(f'data.columns.{column}', NUMBERED)}" if numbers else said


def closest(name: str, names: list[str]) -> str:
    """The one of `names` that is `name` but for case, spaces and signs, or nearly so; "" when none is.

    Of a nested field its last part may be it.
    """
    deep = {each.rpartition(".")[2]: each for each in reversed(names) if "." in each}
    plain = {re.sub(r"[\W_]+", "", last).casefold(): each for last, each in deep.items()}
    plain |= {re.sub(r"[\W_]+", "", each).casefold(): each for each in reversed(names)}
    wanted = re.sub(r"[\W_]+", "", name).casefold()
    found = difflib.get_close_matches(wanted, plain, n=1, cutoff=0.85)
    return plain[found[0]] if found else ""

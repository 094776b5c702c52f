"""Which columns of a source a task sees, and under which names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from contracts.errors import PlatformError
from pipelines.steps.sources import ROW
from pipelines.tasks.base import DataConfig, Task
from pipelines.tasks.settings import setting

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


def select(names: list[str], task: Task, data: DataConfig, file: str) -> Selection:
    """Map a source's columns to the task's; columns that the task does not know are kept unless dropped.

    Raises:
        PlatformError: ``code="bad_schema"``, naming the missing column and those that there are.
    """
    wanted = {column.name: data.columns.get(column.name, column.name) for column in task.columns}
    if unknown := sorted(set(data.columns) - set(wanted)):
        raise PlatformError(
            f"data.columns names {unknown[0]!r}, which is not a column of task {task.name}",
            detail=f"columns of the task: {', '.join(wanted)}",
            fix="write task column: source column",
            code="bad_config",
        )
    for column in task.columns:
        source = wanted[column.name]
        optional = source == NUMBERED or (column.nullable and column.name not in data.columns)
        if source not in names and not optional:
            raise _missing(column.name, source, names, file)
    keep: list[tuple[str, str]] = []
    for name in names:
        targets = [target for target, source in wanted.items() if source == name]
        if name in data.drop and not targets:
            continue
        free = name if name not in wanted and name != ROW else f"{name}_source"
        keep += [(name, target) for target in targets if target not in data.drop or target in wanted] or [(name, free)]
    return Selection(keep, [target for target, source in wanted.items() if source == NUMBERED])


def _missing(column: str, source: str, names: list[str], file: str) -> PlatformError:
    known = ", ".join(names[:40]) + (" ..." if len(names) > 40 else "")
    wanted = f"column {column!r}" if column == source else f"column {source!r} (for {column!r})"
    like = next((n for n in names if n.lower() == source.lower()), names[0] if names else "NAME")
    return PlatformError(
        f"{file} has no {wanted}",
        detail=f"columns there: {known}",
        fix=f"say which one it is: {setting(f'data.columns.{column}', like)}",
        code="bad_schema",
        column=column,
        available=names[:100],
    )

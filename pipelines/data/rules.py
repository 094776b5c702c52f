"""What makes a value valid, as a pandera schema built from the task's columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipelines.task import Column

if TYPE_CHECKING:
    import pandas as pd

_MISSING = "not_nullable"


def build_schema(columns: Sequence[Column]) -> Any:
    """A pandera DataFrameSchema: one column per task column; types are already cast, so only values are checked."""
    import pandera.pandas as pa

    made = {}
    for column in columns:
        checks = []
        if column.minimum is not None:
            checks.append(pa.Check.ge(_bound(column, column.minimum), error=f"below the minimum of {column.minimum:g}"))
        if column.maximum is not None:
            checks.append(pa.Check.le(_bound(column, column.maximum), error=f"above the maximum of {column.maximum:g}"))
        if column.categories is not None:
            shown = ", ".join(column.categories[:8]) + (", ..." if len(column.categories) > 8 else "")
            checks.append(pa.Check.isin(list(column.categories), error=f"not one of: {shown}"))
        if column.max_length is not None:
            checks.append(pa.Check.str_length(max_value=column.max_length, error=f"longer than {column.max_length}"))
        made[column.name] = pa.Column(None, checks=checks, nullable=column.nullable, required=True)
    return pa.DataFrameSchema(made, strict=False)


def _bound(column: Column, value: float) -> Any:
    if column.dtype != "timestamp":
        return value
    import pandas as pd

    return pd.Timestamp(value, unit="s", tz="UTC")


def find_violations(schema: Any, frame: pd.DataFrame) -> list[tuple[int, str, str]]:
    """(position in `frame`, column, reason) of every value that breaks a rule."""
    from pandera.errors import SchemaErrors

    try:
        schema.validate(frame, lazy=True)
    except SchemaErrors as err:
        cases = err.failure_cases
        cases = cases[cases["index"].notna()]
        return [
            (int(index), str(column), "missing value" if check == _MISSING else str(check))
            for index, column, check in zip(cases["index"], cases["column"], cases["check"], strict=True)
        ]
    return []

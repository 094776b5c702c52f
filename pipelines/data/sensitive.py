"""Sensitive columns: whom answers are about, kept in files beside the data set that no model and no request reads.

A task declares them as ``sensitive``. Evaluation reads them, and so does a recipe that is told to treat groups alike
(`pipelines.training.mitigation`); they are never an input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from contracts.fairness import NOT_STATED
from pipelines.formatting import number

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Sensitive:
    """A column of the task that says to which group a row belongs; `edges` part numbers into groups."""

    name: str
    edges: tuple[float, ...] = ()


def sensitive_of(task: Any) -> Sequence[Sensitive]:
    """Those of a task; none where it declares none."""
    found: Sequence[Sensitive] = getattr(task, "sensitive", ())
    return found


def check_sensitive(task: Any, inputs: Sequence[str]) -> None:
    """Refuse a sensitive column that the task does not have, or that a model or a request would read.

    Raises:
        PlatformError: ``code="bad_task"``.
    """
    columns = [column.name for column in task.columns]
    for one in sensitive_of(task):
        if one.name not in columns:
            said, fix = "which is not among its columns", f"columns: {', '.join(columns)}"
        elif one.name in inputs or one.name in (task.id, task.label, *task.entities):
            said, fix = "which a model or a request would read", "take it out of inputs(), request() and entities"
        else:
            continue
        raise PlatformError(f"task {task.name} has the sensitive column {one.name!r}, {said}", fix=fix, code="bad_task")


def write_groups(task: Any, frames: Mapping[str, pd.DataFrame], rows: pd.DataFrame, target: Path) -> None:
    """Write ``groups_<part>.parquet``: the id and the groups of each row of a part, in its order.

    Raises:
        PlatformError: ``code="bad_data"``: rows share an id, so that nobody can say whose group is meant.
    """
    import pandas as pd

    sensitive = sensitive_of(task)
    if not sensitive:
        return
    ids = rows[task.id].astype(str)
    if ids.duplicated().any():
        raise PlatformError(
            f"rows share the {task.id} {ids[ids.duplicated()].iloc[0]!r}, so their groups cannot be told apart",
            fix=f"make the column unique, or number the rows: --set 'data.columns.{task.id}=#row'",
            code="bad_data",
        )
    known = pd.DataFrame({one.name: _names(rows.get(one.name), one, len(rows)) for one in sensitive})
    known.index = pd.Index(ids)
    for part, frame in frames.items():
        wanted = frame["id"].astype(str)
        found = known.reindex(wanted).fillna(NOT_STATED).reset_index(drop=True)
        found.insert(0, "id", wanted.to_numpy())
        found.to_parquet(target / f"groups_{part}.parquet", index=False)


def read_groups(dataset: Path, part: str, ids: Any) -> pd.DataFrame | None:
    """The groups of rows by their ids, a column for each sensitive column; None where the task declares none."""
    import pandas as pd

    file = dataset / f"groups_{part}.parquet"
    if not file.exists():
        return None
    known = pd.read_parquet(file).drop_duplicates("id").set_index("id")
    return known.reindex(pd.Index(ids).astype(str)).fillna(NOT_STATED).reset_index(drop=True)


def _names(values: pd.Series[Any] | None, one: Sensitive, rows: int) -> Any:
    """The name of the group of each row."""
    import numpy as np
    import pandas as pd

    if values is None:
        return [NOT_STATED] * rows
    if not one.edges:
        texts = values.astype("string").str.strip().fillna("")
        return texts.where(texts != "", NOT_STATED).astype(object).to_numpy()
    ends = [number(edge) for edge in one.edges]
    between = [f"{low} to below {high}" for low, high in pairwise(ends)]
    said = np.array([f"below {ends[0]}", *between, f"{ends[-1]} and more", NOT_STATED], dtype=object)
    numbers = pd.to_numeric(values).to_numpy(dtype=np.float64, na_value=np.nan)
    return said[np.where(np.isnan(numbers), len(said) - 1, np.searchsorted(one.edges, numbers, side="right"))]

"""Features of rows: joined point in time from their history, and derived by the functions that serving uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipelines.data_engines import current
from pipelines.io.remote import folder_here

if TYPE_CHECKING:
    import pandas as pd


def join(frame: pd.DataFrame, history: Mapping[str, Any]) -> pd.DataFrame:
    """Add the features that each row had at its moment; `history` is the document of the materialise step."""
    from feature_repo.stores.join import point_in_time_join

    with folder_here(history["path"], last="features.json") as folder:
        joined: pd.DataFrame = point_in_time_join(history["plan"], str(folder), frame, engine=current())
    return derive(joined, history["plan"])


def derive(frame: pd.DataFrame, plan: Mapping[str, Any]) -> pd.DataFrame:
    """Add the plan's on-demand features, by the same functions as at serving."""
    from feature_repo.stores.reader import apply_transforms

    columns = {str(name): _array(frame[name]) for name in frame.columns}
    made = apply_transforms(plan, columns)
    added: pd.DataFrame = frame.assign(**{name: values for name, values in made.items() if name not in frame.columns})
    return added


def _array(column: pd.Series[Any]) -> Any:
    import pandas as pd

    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return column.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy(dtype="datetime64[us]")
    return column.to_numpy()

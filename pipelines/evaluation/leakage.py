"""Does one column alone give the label away?"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from contracts.errors import PlatformError
from pipelines.data.value_format import as_numbers
from pipelines.evaluation.base import Evaluation
from pipelines.settings import setting
from pipelines.task import DataConfig

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

_BINS = 64


def check_leakage(
    frame: pd.DataFrame, label: str, data: DataConfig, evaluation: Evaluation, needed: Collection[str] = ()
) -> dict[str, float]:
    """How well every column of `frame` alone tells `label`, by `Evaluation.associate`.

    Half of the rows give each value, or each of 64 bins of a number, a prediction; the other half is ranked by it. So a
    column of unique values predicts nothing, and order, kind and scale do not matter.

    `needed` columns are the task's own, which cannot be left out.

    Raises:
        PlatformError: ``code="leakage"``, naming the columns that reach `data.leakage_auc` and are not allowed.
    """
    target = frame[label].to_numpy(dtype=object)
    fit = np.random.default_rng(0).random(len(frame)) < 0.5
    measured = {
        str(name): power
        for name in frame.columns
        if name != label and (power := evaluation.associate(_codes(frame[name], fit), target, fit)) is not None
    }
    limit = data.leakage_auc
    found = {name: power for name, power in measured.items() if power >= limit and name not in data.allow_leakage}
    if found:
        worst = max(found, key=lambda name: found[name])
        others = [name for name in found if name != worst]
        more = f"; so do {', '.join(others)}" if others else ""
        said = f"{evaluation.association} {found[worst]:.4f}"
        raise PlatformError(
            f"column {worst!r} predicts {label!r} nearly alone",
            detail=f"{said}, the limit is {limit:g}{more}: most likely made from the label",
            fix=_cure(list(found), data, needed),
            code="leakage",
            columns=sorted(found),
        )
    return measured


def _cure(found: list[str], data: DataConfig, needed: Collection[str]) -> str:
    """Settings beside those that there are: a list replaces the one before."""
    allow = setting("data.allow_leakage", [*data.allow_leakage, *found])
    own = [name for name in found if name in needed]
    if own == found:
        return f"if it is known before {'its' if len(own) == 1 else 'their'} label: {allow}; if not, correct the source"
    drop = setting("data.drop", [*data.drop, *(name for name in found if name not in needed)])
    also = " " + setting("data.allow_leakage", [*data.allow_leakage, *own]) if own else ""
    return f"leave it out: {drop}{also}; if known before: {allow}"


def _codes(column: pd.Series[Any], fit: NDArray[np.bool_]) -> NDArray[np.int64]:
    """A small number for each value; numbers with many values are binned by quantiles of the fitted half."""
    import pandas as pd

    if not pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_datetime64_any_dtype(column):
        as_number = as_numbers(column)
        if as_number.notna().sum() >= 0.99 * column.notna().sum() > 0:
            column = as_number
    if pd.api.types.is_datetime64_any_dtype(column):
        column = column.astype("int64")
    if pd.api.types.is_numeric_dtype(column) and column.nunique() > _BINS:
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        known = values[fit & np.isfinite(values)]
        if len(known):
            edges = np.unique(np.quantile(known, np.linspace(0, 1, _BINS + 1)[1:-1]))
            return np.where(np.isnan(values), 0, np.searchsorted(edges, values, side="right") + 1).astype(np.int64)
    codes, _ = pd.factorize(column, use_na_sentinel=False)
    return codes.astype(np.int64)

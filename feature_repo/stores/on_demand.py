"""On-demand feature views that call a numpy function by its name, so that Feast and services compute the same."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from feast import Field, OnDemandFeatureView
from feast.transformation.pandas_transformation import PandasTransformation


def on_demand_view(name: str, transform: str, sources: Sequence[Any], schema: list[Field]) -> OnDemandFeatureView:
    """A view whose features are the outputs of `transform`, ``feature_repo.transforms.<task>:<function>``.

    The name is kept as a tag, from which `plan.py` tells services what to call.
    """
    outputs = [field.name for field in schema]

    def call(frame):  # type: ignore[no-untyped-def]  # Feast stores it with dill, where annotations do not resolve
        from feature_repo.stores.on_demand import call_transform

        return call_transform(transform, frame, outputs)

    return OnDemandFeatureView(
        name=name,
        sources=list(sources),
        schema=schema,
        feature_transformation=PandasTransformation(udf=call, udf_string=transform),
        mode="pandas",
        tags={"transform": transform},
    )


def call_transform(transform: str, frame: pd.DataFrame, outputs: Sequence[str]) -> pd.DataFrame:
    """Call a transform on the columns of a frame; timestamps become datetime64[us] in UTC."""
    module, _, function = transform.partition(":")
    made = getattr(importlib.import_module(module), function)({str(n): _array(frame[n]) for n in frame.columns})
    return pd.DataFrame({name: made[name] for name in outputs}, index=frame.index)


def _array(column: pd.Series[Any]) -> Any:
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return column.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy(dtype="datetime64[us]")
    if pd.api.types.is_numeric_dtype(column.dtype) and pd.api.types.is_extension_array_dtype(column.dtype):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    return column.to_numpy()

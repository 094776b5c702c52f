"""LightGBM for a number, with an interval by conformalised quantile regression (Romano et al., NeurIPS 2019)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from contracts.bundle import Input
from contracts.errors import PlatformError
from contracts.tabular_engine import import_lightgbm, matrix
from pipelines.data.value_format import as_numbers
from pipelines.task import Progress
from pipelines.training.boosting import Columns, Floats, LightGBMConfig, Rows, fit_boosted


def train_number(
    dataset: Path,
    inputs: Sequence[Input],
    model: LightGBMConfig,
    coverage: float | None,
    seed: int,
    out: Path,
    checkpoints: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Train on ``dataset/{train,valid}.parquet`` and write ``model.txt`` to `out`; ``output`` is the caller's to add.

    With `coverage`, ``model.low.txt`` and ``model.high.txt`` are boosters of the two quantiles, moved apart by as much
    as the validation rows need for that share of them to lie between.
    """
    rows = {name: _rows(dataset / f"{name}.parquet", inputs) for name in ("train", "valid")}
    text = [item.name for item in inputs if item.dtype == "string"]
    out.mkdir(parents=True, exist_ok=True)

    def fit(name: str, quantile: float | None) -> Any:
        columns = Columns(names=[item.name for item in inputs], categorical=text, classes=0, quantile=quantile)
        return fit_boosted(rows["train"], rows["valid"], columns, model, seed, checkpoints / name, progress)

    fitted = fit("value", None)
    fitted.booster.save_model(str(out / "model.txt"), num_iteration=fitted.rounds)
    parameters = {one.name: getattr(model, one.name) for one in fields(model)} | {"best_round": fitted.rounds}
    if coverage is not None:
        ends = {"low": fit("low", (1 - coverage) / 2), "high": fit("high", (1 + coverage) / 2)}
        true = np.asarray(rows["valid"].y, dtype=np.float64)
        margin = conformal_margin(true, ends["low"].held_scores, ends["high"].held_scores, coverage)
        for (name, end), shift in zip(ends.items(), (-margin, margin), strict=True):
            _save_moved(end, shift, out / f"model.{name}.txt")
        parameters |= {"coverage": coverage, "margin": margin}
    return {
        "engine": "lightgbm",
        "decision": None,
        "history": fitted.history,
        "parameters": parameters,
        "device": "cpu",
    }


def conformal_margin(true: Floats, low: Floats, high: Floats, coverage: float) -> float:
    """How far both ends must move out (or in, if negative) for an interval to hold a new row with this probability."""
    beyond = np.sort(np.maximum(low - true, true - high))
    at = min(math.ceil((len(beyond) + 1) * coverage), len(beyond))
    return float(beyond[at - 1])


def _save_moved(fitted: Any, shift: float, file: Path) -> None:
    """Answers of the booster in `file` are greater by `shift`: so are those of all leaves of its first tree."""
    lgb = import_lightgbm()
    booster = lgb.Booster(model_str=fitted.booster.model_to_string(num_iteration=fitted.rounds))
    for leaf in range(booster.dump_model(num_iteration=1)["tree_info"][0]["num_leaves"]):
        booster.set_leaf_output(0, leaf, booster.get_leaf_output(0, leaf) + shift)
    booster.save_model(str(file))


def _rows(file: Path, inputs: Sequence[Input]) -> Rows:
    import pandas as pd

    from pipelines.evaluation.scoring import columns_of

    frame = pd.read_parquet(file)
    true = as_numbers(frame["label"]).to_numpy(dtype=np.float64)
    if not np.isfinite(true).all():
        wrong = frame["label"][~np.isfinite(true)].iloc[0]
        raise PlatformError(
            f"the label of a regression is a number, not {wrong!r}",
            detail=f"{int((~np.isfinite(true)).sum())} such rows in {file.name}",
            fix='give the column dtype="float64" in the task, and its split the values as they are',
            code="bad_data",
        )
    return Rows(x=matrix(inputs, columns_of(frame, inputs)), y=true)

"""LightGBM for several labels of a row: a booster for each, with the threshold that gives its best F1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.bundle import Input
from contracts.errors import PlatformError
from contracts.tabular_engine import matrix
from pipelines.evaluation.multilabel import label_matrix
from pipelines.task import Progress
from pipelines.training.boosting import Columns, Floats, LightGBMConfig, Rows, fit_boosted


def train_labels(
    dataset: Path,
    inputs: Sequence[Input],
    labels: Sequence[str],
    model: LightGBMConfig,
    seed: int,
    out: Path,
    checkpoints: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Train on ``dataset/{train,valid}.parquet`` and write ``model.0.txt`` and so on to `out`.

    The result is TaskConfig.train's; thresholds are chosen on the validation rows.
    """
    import pandas as pd

    from pipelines.evaluation.scoring import columns_of

    frames = [pd.read_parquet(dataset / f"{name}.parquet") for name in ("train", "valid")]
    (x_train, x_valid) = (matrix(inputs, columns_of(frame, inputs)) for frame in frames)
    (y_train, y_valid) = (label_matrix(frame["label"], labels).astype(np.float64) for frame in frames)
    text = [item.name for item in inputs if item.dtype == "string"]
    columns = Columns(names=[item.name for item in inputs], categorical=text, classes=2)
    out.mkdir(parents=True, exist_ok=True)
    thresholds, losses, rounds = [], [], {}
    for at, name in enumerate(labels):
        check_both(y_train[:, at], name)
        train, valid = Rows(x=x_train, y=y_train[:, at]), Rows(x=x_valid, y=y_valid[:, at])
        fitted = fit_boosted(train, valid, columns, model, seed, checkpoints / f"label-{at}", progress)
        fitted.booster.save_model(str(out / f"model.{at}.txt"), num_iteration=fitted.rounds)
        thresholds.append(best_threshold(1 / (1 + np.exp(-fitted.held_scores)), y_valid[:, at] > 0))
        losses.append([row["valid_binary_logloss"] for row in fitted.history])
        rounds[f"best_round:{name}"] = fitted.rounds
    longest = max(map(len, losses))
    means = [float(np.mean([loss[min(at, len(loss) - 1)] for loss in losses])) for at in range(longest)]
    return {
        "engine": "lightgbm",
        "output": {"problem": "multilabel", "labels": list(labels), "thresholds": thresholds},
        "decision": None,
        "history": [{"valid_loss": value} for value in means],
        "parameters": {**{one.name: getattr(model, one.name) for one in fields(model)}, **rounds},
        "device": "cpu",
    }


def check_both(y: NDArray[Any], label: str) -> None:
    """Refuse a label that all training rows have, or none.

    Raises:
        PlatformError: naming it.
    """
    if y.min() == y.max():
        raise PlatformError(
            f"{'every' if y[0] else 'no'} training row has label {label!r}",
            detail=f"{len(y)} rows",
            fix="give more data, or leave the label out of it",
            code="bad_data",
        )


def best_threshold(probability: Floats, true: NDArray[np.bool_]) -> float:
    """The threshold with the best F1, halfway between two probabilities; 0.5 where no row has the label."""
    if not true.any():
        return 0.5
    order = np.argsort(-probability, kind="stable")
    said, hits = probability[order], np.cumsum(true[order])
    f1 = 2 * hits / (np.arange(1, len(said) + 1) + true.sum())
    f1[:-1][said[:-1] == said[1:]] = -1.0  # a threshold stands where the probability changes
    at = int(f1.argmax())
    below = said[at + 1] if at + 1 < len(said) else 0.0
    return float((said[at] + below) / 2)

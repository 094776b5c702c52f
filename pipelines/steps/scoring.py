"""Score rows with what will be served: the bundle's own engine."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contracts.bundle import Bundle, BundleDocument, GateDecision, Input
from contracts.engine import Engine
from contracts.errors import PlatformError
from contracts.problems.classification import Decision
from pipelines.steps.measures import Measure, Rule, classification

if TYPE_CHECKING:
    import pandas as pd

ANSWERS = "answers.npy"  # of a candidate on the test rows; not part of its bundle
_BATCH = {"tabular": 65_536, "text": 64}
UNDECIDED = GateDecision(passed=False, checks=[], champion=None, reasons=["not decided yet"])


def provisional(folder: Path, fields: Mapping[str, Any]) -> Bundle:
    """A candidate folder as a bundle that can be loaded, before gate and hashes exist."""
    lineage = {**fields["lineage"], "created": "1970-01-01T00:00:00Z"}
    document = BundleDocument.model_validate({**fields, "lineage": lineage, "gate": UNDECIDED, "files": {}})
    return Bundle(folder, document, "")


def columns_of(frame: pd.DataFrame, inputs: Sequence[Input]) -> dict[str, NDArray[Any]]:
    """The engine's columns: missing values become the input's default, as at serving; else NaN or ""."""
    import pandas as pd

    made: dict[str, NDArray[Any]] = {}
    for item in inputs:
        column = frame[item.name]
        if item.dtype == "string":
            filled = column.astype("string").fillna("" if item.default is None else str(item.default))
            made[item.name] = filled.to_numpy(dtype=object)
        else:
            numbers = pd.to_numeric(column).to_numpy(dtype=np.float64, na_value=np.nan)
            default = np.nan if item.default is None else float(item.default)
            made[item.name] = np.where(np.isnan(numbers), default, numbers)
    return made


def predict(engine: Engine, columns: Mapping[str, NDArray[Any]], modality: str, report: Any = None) -> NDArray[Any]:
    """Probabilities, shape (rows, classes), in batches of bounded memory."""
    rows = len(next(iter(columns.values())))
    size = _BATCH.get(modality, 256)
    parts = []
    for start in range(0, rows, size):
        parts.append(engine.predict({name: values[start : start + size] for name, values in columns.items()}))
        if report:
            report(min(start + size, rows), rows)
    return np.concatenate(parts)


def measure_for(
    frame: pd.DataFrame,
    probability: NDArray[np.float64],
    classes: Sequence[str],
    decision: Decision | None,
    only: Collection[str] | None = None,
) -> Measure:
    """The metrics of a task as a function of row weights; `frame` has ``label``. See `measures.classification`."""
    rule, positive = None, 1
    if decision and len(classes) == 2:
        rule = Rule(decision.threshold, decision.false_positive_cost, _miss_cost(frame, decision))
        positive = list(classes).index(decision.positive)
    return classification(positions(frame, classes), probability, classes, rule, positive, only)


def positions(frame: pd.DataFrame, classes: Sequence[str]) -> NDArray[np.int64]:
    """Each row's label as its position in `classes`; -1 for a class that is not there."""
    index = {name: at for at, name in enumerate(classes)}
    return np.array([index.get(label, -1) for label in frame["label"]], dtype=np.int64)


def _miss_cost(frame: pd.DataFrame, decision: Decision) -> Any:
    cost = decision.false_negative_cost
    if not isinstance(cost, str):
        return float(cost)
    if cost not in frame.columns:
        raise PlatformError(
            f"the cost of a miss is column {cost!r}, which the data set does not have",
            detail=f"columns: {', '.join(map(str, frame.columns))}",
            fix="give a number instead, or keep the column in Task.split",
            code="bad_task",
        )
    return frame[cost].to_numpy(dtype=np.float64)


def latency(engine: Engine, columns: Mapping[str, NDArray[Any]], calls: int = 60) -> dict[str, float]:
    """Milliseconds of one-row predictions after a warm-up: p50 and p95. `columns` gives the rows in turn."""
    rows = len(next(iter(columns.values())))
    single = [{name: v[i : i + 1] for name, v in columns.items()} for i in range(min(rows, 20))]
    times = []
    for call in range(calls + 5):
        began = time.perf_counter()
        engine.predict(single[call % len(single)])
        times.append((time.perf_counter() - began) * 1000)
    return {"p50": float(np.percentile(times[5:], 50)), "p95": float(np.percentile(times[5:], 95))}


def folder_mb(folder: Path) -> float:
    """Size of all files below `folder`."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6

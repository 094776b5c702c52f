"""Score rows with what will be served: the bundle's own engine."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contracts.bundle import Bundle, BundleDocument, GateDecision, Input
from contracts.engine import Engine
from contracts.engines import find_engine
from contracts.errors import PlatformError
from contracts.out_of_distribution import abstaining
from contracts.pii.finders import pinned
from contracts.problems.base import Problem
from pipelines.task import reading_settings

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.task import Task, TaskConfig

ANSWERS = "answers.npy"  # of a candidate to the test rows; not part of its bundle
_WARM_UP, _LATENCY_SECONDS = 5, 2.0  # calls that are not counted; of all calls together
UNDECIDED = GateDecision(passed=False, checks=[], champion=None, reasons=["not decided yet"])


def provisional(folder: Path, fields: Mapping[str, Any]) -> Bundle:
    """A candidate folder as a bundle that can be loaded, before gate and hashes exist."""
    lineage = {**fields["lineage"], "created": "1970-01-01T00:00:00Z"}
    document = BundleDocument.model_validate({**fields, "lineage": lineage, "gate": UNDECIDED, "files": {}})
    return Bundle(folder, document, "")


def fields_of(
    task: Task,
    config: TaskConfig,
    trained: Mapping[str, Any],
    lineage: Mapping[str, Any] | None = None,
    has_features: bool = False,
) -> dict[str, Any]:
    """A BundleDocument's fields of what a recipe has trained, without metrics, gate and files.

    Args:
        trained: see `TaskConfig.train`.  lineage: of a model that is measured and not published, nothing is known.
    """
    given = lineage or {"code_version": "", "data_version": "", "source": ""}
    return {
        "name": task.name,
        "task": task.name,
        "recipe": config.recipe,
        "modality": task.modality,
        "engine": trained["engine"],
        "signature": {
            "inputs": [item.model_dump() for item in task.inputs(config)],
            "output": trained["output"],
            "entities": list(task.entities) if has_features else [],
            "request": [item.model_dump() for item in task.request(config)],
            "timestamp": task.timestamp if has_features and task.entities else None,
        },
        "decision": trained["decision"],
        "feature_service": task.feature_service if has_features else None,
        "parameters": trained["parameters"],
        "layout": {**reading_settings(config.data), "tagger": pinned(config.data.tagger)},
        "lineage": {**given, "seed": config.seed},
    }


def read_rows(file: Path) -> pd.DataFrame:
    """The rows of a part of a data set; ``attrs`` say which data set, as some measures need more of it.

    Of a part in shards the files, such as images, stay on disk: `StoredFile`, see `for_engine`.
    """
    import pandas as pd
    from pyarrow import parquet

    from pipelines.data.file_rows import StoredFiles, file_column, shards_of

    if file.is_dir() and (column := file_column(file)):
        names = parquet.read_schema(shards_of(file)[0]).names
        frame = pd.read_parquet(file, columns=[name for name in names if name != column]).reset_index(drop=True)
        frame.insert(names.index(column), column, pd.Series(StoredFiles(file, column).all(), dtype=object))
    else:
        frame = pd.read_parquet(file).reset_index(drop=True)
    frame.attrs["dataset"] = str(file.parent)
    return frame


def for_engine(frame: pd.DataFrame, engine: Engine, inputs: Sequence[Input]) -> pd.DataFrame:
    """Rows of `read_rows` that an engine can be asked: with their files, where it does not read those on disk."""
    files = [item.name for item in inputs if item.dtype == "bytes"]
    if not files or getattr(engine, "reads_stored", False):
        return frame
    import pandas as pd

    whole = {name: pd.Series([bytes(one) for one in frame[name]], index=frame.index, dtype=object) for name in files}
    return frame.assign(**whole)


def columns_of(frame: pd.DataFrame, inputs: Sequence[Input]) -> dict[str, NDArray[Any]]:
    """The engine's columns: missing values become the input's default, as at serving; else NaN or ""."""
    import pandas as pd

    made: dict[str, NDArray[Any]] = {}
    for item in inputs:
        column = frame[item.name]
        if item.dtype == "string":
            filled = column.astype("string").fillna("" if item.default is None else str(item.default))
            made[item.name] = filled.to_numpy(dtype=object)
        elif item.dtype == "bytes":
            made[item.name] = column.to_numpy(dtype=object)
        else:
            numbers = pd.to_numeric(column).to_numpy(dtype=np.float64, na_value=np.nan)
            default = np.nan if item.default is None else float(item.default)
            made[item.name] = np.where(np.isnan(numbers), default, numbers)
    return made


def predict(
    engine: Engine,
    columns: Mapping[str, NDArray[Any]],
    document: BundleDocument,
    report: Any = None,
    ood: list[Any] | None = None,
) -> Any:
    """The engine's answers in the form of the problem, in batches of bounded memory.

    Args:
        ood: gets the scores of the batches, of an engine that can abstain (`contracts.out_of_distribution`).

    Raises:
        PlatformError: ``code="bad_model"``: they have another form.
    """
    problem: Problem[Any] = document.signature.problem
    rows = len(next(iter(columns.values())))
    size = find_engine(document).batch_rows
    parts = []
    for start in range(0, rows, size):
        some = {name: values[start : start + size] for name, values in columns.items()}
        if ood is not None and (able := abstaining(engine)):
            found, scores = able.predict_ood(some)
            ood.append(scores)
            parts.append(found)
        else:
            parts.append(engine.predict(some))
        if report:
            report(min(start + size, rows), rows)
    answers = problem.join(parts)
    if wrong := problem.wrong(document.signature.output, answers, rows):
        raise PlatformError(
            f"the exported model does not answer as a {problem.name} does",
            detail=wrong,
            fix="correct the export of this recipe",
            code="bad_model",
        )
    return answers


def latency(engine: Engine, columns: Mapping[str, NDArray[Any]], calls: int = 60) -> dict[str, float]:
    """Milliseconds of one-row predictions after a warm-up: p50 and p95. `columns` gives the rows in turn.

    A model whose calls take long is called for `_LATENCY_SECONDS`, but `_WARM_UP` times at least, and once more.
    """
    rows = len(next(iter(columns.values())))
    single = [{name: v[i : i + 1] for name, v in columns.items()} for i in range(min(rows, 20))]
    times: list[float] = []
    while len(times) < calls + _WARM_UP and (len(times) <= _WARM_UP or sum(times) < _LATENCY_SECONDS * 1000):
        began = time.perf_counter()
        engine.predict(single[len(times) % len(single)])
        times.append((time.perf_counter() - began) * 1000)
    return {"p50": float(np.percentile(times[_WARM_UP:], 50)), "p95": float(np.percentile(times[_WARM_UP:], 95))}


def folder_mb(folder: Path) -> float:
    """Size of all files below `folder`."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6

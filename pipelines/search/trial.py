"""One trial: a configuration is trained on the training rows and measured on the validation rows.

A trial never sees the test part, and its training never sees the validation rows: some recipes fit on what they call
``valid`` too, so that part of the training rows takes its place.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.data.file_rows import FileRows, shards_of
from pipelines.data.image_files import takes_images
from pipelines.evaluation import get_evaluation, scoring
from pipelines.io.files import fresh_folder
from pipelines.settings import apply
from pipelines.task import Progress, Task, TaskConfig, dump_config, problem_of
from pipelines.tasks import load_config

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

_REPLACED = ("train", "valid", "test", "groups_valid", "groups_test")
_HELD = 0.15  # of the training rows take the place of the validation rows
SERVING = ("latency_ms", "bundle_mb")
"""What may be optimised beside the metrics of the problem."""


def changed(task: Task, config: TaskConfig, values: Mapping[str, Any]) -> Any:
    """The configuration with these values, and without its search."""
    document = json.loads(dump_config(config))
    for key, value in values.items():
        apply(document, key, value)
    document["search"] = {}
    return load_config(task, json.dumps(document))


def inner_dataset(task: Task, dataset: Path, out: Path, share: float = 1.0, draw: float = 997.0) -> None:
    """A dataset in itself, of the training and validation rows of `dataset`: its test part is the validation part.

    Tasks with moments hold back their newest training rows, others rows by the hash of their key.

    Args:
        out: is filled whole or not at all; what does not change is linked.
        share: of the training rows, drawn by their key.  draw: a prime, other rows by another one.
    """
    import pandas as pd

    files = FileRows(shards_of(dataset / "train.parquet"), takes_images(task))
    train = files.frame()
    train = train[_places(train["row_key"], draw) < share]
    held = _places(train["row_key"], 991.0) < _HELD
    if task.timestamp:
        held[:], held[round(len(train) * (1 - _HELD)) :] = False, True
    parts = {"train": train[~held], "valid": train[held]}
    with fresh_folder(out) as made:
        for file in sorted(dataset.iterdir()):
            if file.stem in _REPLACED or file.name.startswith("test_"):
                continue
            if file.name.startswith("train_hidden-"):
                rows = pd.read_parquet(file)
                rows[rows["id"].isin(parts["train"]["id"])].to_parquet(made / file.name, index=False)
            else:
                (made / file.name).symlink_to(file.resolve())
        for name, rows in parts.items():
            files.write(rows.reset_index(drop=True), made / f"{name}.parquet")
        (made / "test.parquet").symlink_to((dataset / "valid.parquet").resolve())
        for name, source in (("valid", "train"), ("test", "valid")):
            if (groups := dataset / f"groups_{source}.parquet").exists():
                (made / f"groups_{name}.parquet").symlink_to(groups.resolve())


def train_and_measure(
    task: Task, config: TaskConfig, dataset: Path, folder: Path, wanted: tuple[str, ...], progress: Progress
) -> dict[str, float]:
    """Train a configuration on an `inner_dataset` and measure `wanted` on its test part; `folder` is removed after.

    Raises:
        PlatformError: what the training raises; ``code="bad_config"`` for a metric that is not measured.
    """
    checkpoints = folder.parent / "checkpoints" / folder.name  # beside them, a recipe keeps what its trainings share
    for used in (folder, checkpoints):
        shutil.rmtree(used, ignore_errors=True)
        used.mkdir(parents=True)
    model = folder / "model"
    model.mkdir()
    try:
        trained = config.train(task, dataset, model, checkpoints, progress)
        return measured(task, config, trained, folder, dataset / "test.parquet", wanted)
    finally:
        for used in (folder, checkpoints):
            shutil.rmtree(used, ignore_errors=True)


def measured(
    task: Task, config: TaskConfig, trained: Mapping[str, Any], candidate: Path, rows: Path, wanted: tuple[str, ...]
) -> dict[str, float]:
    """The `wanted` metrics of the model in ``model/`` below `candidate` on the rows of a file, finite ones only."""
    from contracts.engines import load_engine
    from pipelines.evaluation.measures import finite

    frame = scoring.read_rows(rows)
    bundle = scoring.provisional(candidate, scoring.fields_of(task, config, trained))
    engine = load_engine(bundle, threads=1)
    columns = scoring.columns_of(frame, bundle.document.signature.inputs)
    measure = measure_of(task, bundle, engine, frame, columns, wanted)
    found = finite(measure(None)) if measure else {}
    if "latency_ms" in wanted:
        found["latency_ms"] = scoring.latency(engine, columns)["p50"]
    if "bundle_mb" in wanted:
        found["bundle_mb"] = round(scoring.folder_mb(candidate), 3)
    return {name: found[name] for name in wanted if name in found}


def measure_of(
    task: Task, bundle: Any, engine: Any, frame: pd.DataFrame, columns: Any, wanted: tuple[str, ...]
) -> Any | None:
    """The `wanted` metrics of the problem as a function of row weights; None where only serving is measured."""
    names = [name for name in wanted if name not in SERVING]
    if not names:
        return None
    document = bundle.document
    answers = scoring.predict(engine, columns, document)
    evaluation = get_evaluation(problem_of(task))
    return evaluation.measure_for(frame, answers, document.signature.output, document.decision, names)


def higher_is_better(task: Task, metric: str) -> bool:
    """Whether more of a metric is better, also of those of serving."""
    return metric not in SERVING and get_evaluation(problem_of(task)).higher_is_better(metric)


def _places(keys: pd.Series[Any], draw: float) -> NDArray[np.float64]:
    """A number from 0 to 1 for each row key; another one by another `draw`, a prime."""
    import numpy as np

    from pipelines.data.seen import row_hashes

    place: NDArray[np.float64] = (row_hashes(keys.astype(str)) >> np.uint64(11)).astype(np.float64) / 2.0**53
    return (place * draw) % 1.0

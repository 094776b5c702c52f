"""Clean rows and feature history to training, validation and test sets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from pipelines.data import left_out, seen
from pipelines.data.features import join
from pipelines.data.file_rows import FileRows, rows_in
from pipelines.data.hidden import write_hidden
from pipelines.data.image_files import takes_images
from pipelines.data.large_tables import TableWriter, is_large, parts_of
from pipelines.data.sensitive import write_groups
from pipelines.evaluation import get_evaluation
from pipelines.io import events
from pipelines.io.files import read_json, write_json
from pipelines.task import Task, problem_of
from pipelines.tasks import get_task, load_config

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("train", "valid", "test")


def build_dataset(task: str, config: str, clean: str, features: str, out: str) -> dict[str, Any]:
    """Join the features point in time, derive the on-demand ones, and let the task split by time.

    Args:
        clean: folder of validated parts.  features: document of the materialise step; "" for a task without
            features.
        out: gets ``{train,valid,test}.parquet`` (with ``row_key``), other tables that the split gives, ``seen.bin``
            (hashes of training and validation rows), ``groups_{train,valid,test}.parquet`` of a task with sensitive
            columns, ``dataset.json`` and, with features, ``features.json`` (the plan) and rows as they are served
            without features (`pipelines.data.hidden`). Rows of a task with files are in folders of these names,
            written without holding all files (`pipelines.data.file_rows`).

    Returns:
        rows and label counts per split, and what was left out up to here.
    """
    found = get_task(task)
    settings = load_config(found, config)
    target = Path(out)
    target.mkdir(parents=True, exist_ok=True)
    report = events.progress("build_dataset")
    report(0, 3, doing="read")
    if not features and (summary := _out_of_core(found, settings, Path(clean), target)):
        report(3, 3)
        return summary
    column = takes_images(found)
    files = FileRows.of_folder(Path(clean), column)
    rows = frame = files.frame()
    history = read_json(features) if features else None
    beside = getattr(found, "with_features", None)  # a task may have them for other tables than its rows
    if history and beside is None:
        if entity_rows := getattr(found, "entity_rows", None):  # a task may know which rows its split looks at
            frame = entity_rows(frame, settings)
        report(1, 3, doing="join", rows=len(frame))
        frame = join(frame, history)
    inputs = found.inputs(settings)
    report(2, 3, doing="split", rows=len(frame))
    frames = dict(found.split(frame, settings))
    if history and beside is not None:
        frames = dict(beside(frames, history))
    for name in frames.keys() - set(SPLITS):  # what a recipe learns from beside the rows
        files.write(frames.pop(name), target / f"{name}.parquet")
    _check(frames, [item.name for item in inputs], found)
    evaluation = get_evaluation(problem_of(found))
    lost = left_out.of_split(found, rows, frames, settings, evaluation.strata(rows[found.label]))
    gone = left_out.joined(_before(Path(clean), "left_out"), lost)
    numbered = seen.is_numbered(found, settings.data.columns)
    known = frame.assign(**{column: files.digests(frame[column])}) if column and numbered else frame
    keys = {name: seen.row_keys(frames[name], known, found, numbered) for name in SPLITS}
    seen.Seen.of(seen.row_hashes([*keys["train"], *keys["valid"]])).write(target)
    for name in SPLITS:
        files.write(frames[name].assign(row_key=keys[name]), target / f"{name}.parquet")
    write_groups(found, frames, rows, target)
    labels = {name: frames[name]["label"] for name in SPLITS}
    slices = [name for name in frames["test"].columns if name.startswith("slice_")]
    summary = _document(found, settings, labels, slices, gone, Path(clean), target)
    if history:
        if beside is None:
            write_hidden(frames, frame, found.id, history["plan"], target, files)
        write_json(target / "features.json", history["plan"])
    report(3, 3)
    return summary


def _out_of_core(task: Task, settings: Any, clean: Path, target: Path) -> dict[str, Any] | None:
    """The same data set of rows that are too many to be held at once; None where they are few, or have to be.

    What is held: labels, hashes of rows, and some rows at a time; DuckDB sorts within its share and spills.
    """
    split = getattr(task, "split_large", None)
    files = parts_of(clean)
    if split is None or takes_images(task) or seen.is_numbered(task, settings.data.columns) or not is_large(files):
        return None
    found = split(files, settings)
    if found is None:
        return None
    import numpy as np
    import pandas as pd

    writers = {name: TableWriter(target / f"{name}.parquet") for name in SPLITS}
    labels: dict[str, list[Any]] = {name: [] for name in SPLITS}
    hashes, names, slices = [], [item.name for item in task.inputs(settings)], []
    report, rows = events.progress("build_dataset"), rows_in(files)
    try:
        for frames in found:
            for name in SPLITS:
                _check_columns(name, frames[name], names, task)
                if len(frame := frames[name]):
                    keys = seen.row_keys(frame, frame, task, numbered=False)
                    hashes += [seen.row_hashes(keys)] * (name != "test")
                    label = frame["label"]
                    labels[name].append(pd.Series(pd.Categorical(label)) if label.dtype == object else label)
                    writers[name].add(frame.assign(row_key=keys))
                slices = [column for column in frames["test"].columns if column.startswith("slice_")]
            report(2 * sum(each.rows for each in writers.values()) / max(rows, 1), 3, doing="split", rows=rows)
    finally:
        for writer in writers.values():
            writer.close()
    whole = {name: _joined(each) for name, each in labels.items()}
    _check_labels(whole)
    seen.Seen.of(np.concatenate(hashes)).write(target)
    gone = left_out.joined(_before(clean, "left_out"), left_out.document(rows, [], []))
    return _document(task, settings, whole, slices, gone, clean, target)


def _joined(labels: list[Any]) -> pd.Series[Any]:
    """One column of many; names as categories, so that each is held once."""
    import pandas as pd
    from pandas.api.types import union_categoricals

    if not labels or not isinstance(labels[0].dtype, pd.CategoricalDtype):
        return pd.concat(labels, ignore_index=True) if labels else pd.Series([], dtype=object)
    return pd.Series(union_categoricals(labels, sort_categories=True))


def _document(
    task: Task,
    settings: Any,
    labels: Mapping[str, pd.Series[Any]],
    slices: list[str],
    gone: Mapping[str, Any],
    clean: Path,
    target: Path,
) -> dict[str, Any]:
    """Write ``dataset.json``; gives what of it is said of the step."""
    evaluation = get_evaluation(problem_of(task))
    summary = {
        "rows": {name: len(labels[name]) for name in SPLITS},
        "labels": {name: evaluation.counts(labels[name]) for name in SPLITS},
        "slices": slices,
        "left_out": dict(gone),
        **{name: _before(clean, name) or {} for name in ("personal", "origin")},
        "data_version": _before(clean, "version") or "",
    }
    inputs = [item.model_dump() for item in task.inputs(settings)]
    write_json(target / "dataset.json", {**summary, "inputs": inputs})
    return summary


def _before(clean: Path, what: str) -> Any:
    """What the step before says of `left_out`, `personal`, `origin` or the `version`; None where no report does."""
    report = clean / "report.json"
    return read_json(report).get(what) if report.exists() else None


def _check(frames: Mapping[str, pd.DataFrame], inputs: list[str], task: Task) -> None:
    for name in SPLITS:
        _check_columns(name, frames[name], inputs, task)
    _check_labels({name: frames[name]["label"] for name in SPLITS})


def _check_columns(name: str, frame: pd.DataFrame, inputs: list[str], task: Task) -> None:
    if absent := [column for column in ("id", "label", *inputs) if column not in frame.columns]:
        raise PlatformError(
            f"task {task.name}: split gives no column {absent[0]!r} for {name}",
            detail=f"it gives: {', '.join(map(str, frame.columns))}",
            fix=f"add it in pipelines/tasks/{task.name}/, or take it out of inputs()",
            code="bad_task",
            column=absent[0],
        )


def _check_labels(labels: Mapping[str, pd.Series[Any]]) -> None:
    for name in SPLITS:
        if not len(labels[name]):
            raise PlatformError(
                f"no rows are left for {name}",
                detail=json.dumps({key: len(value) for key, value in labels.items()}),
                fix="give data over a longer time, or shorten the periods of the split",
                code="empty_split",
            )
    if labels["train"].nunique() < 2:
        only = labels["train"].iloc[0]
        raise PlatformError(f"all rows for training have the label {only!r}", fix="give more data", code="one_class")

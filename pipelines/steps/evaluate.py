"""Measure what will be served, with confidence intervals and per slice, and build the candidate for a bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contracts.bundle import Bundle, Golden
from contracts.engine import Engine
from contracts.engines import load_engine
from contracts.errors import PlatformError
from contracts.problems.classification import Decision
from pipelines.steps import baseline, data_report, events, plots, scoring, seen
from pipelines.steps.curves import curves
from pipelines.steps.files import clean_numbers, missing, read_json, write_json, write_text
from pipelines.steps.hidden import CASE, SLICE, read_hidden
from pipelines.steps.measures import Measure, bootstrap, finite
from pipelines.tasks import get_task, load_config
from pipelines.tasks.base import reading_settings
from pipelines.tasks.gate_metrics import FEW

if TYPE_CHECKING:
    import pandas as pd

_GOLDEN = 20
_SLICE_VALUES = 40  # of one slice, the commonest


def evaluate(task: str, config: str, dataset: str, model: str, lineage: str, out: str) -> dict[str, Any]:
    """Score ``dataset/test.parquet`` with the exported model; `out` becomes the candidate of a bundle.

    Args:
        lineage: JSON with code_version, data_version and source.
        out: gets model/, features.json (with features), seen.bin, golden.jsonl, baseline.json, evaluation.json,
            plots/*.png, data.html (`pipelines.steps.data_report`), answers.npy (probabilities of the test rows) and
            candidate.json (a BundleDocument without gate and files).

    Returns:
        The metrics.
    """
    import pandas as pd

    found = get_task(task)
    settings = load_config(found, config)
    source, target = Path(dataset), Path(out)
    trained = read_json(Path(model) / "train.json")
    target.mkdir(parents=True, exist_ok=True)
    ignored = shutil.ignore_patterns(seen.FILE)
    shutil.copytree(Path(model) / "model", target / "model", dirs_exist_ok=True, ignore=ignored)
    seen.carry(source, Path(model) / "model", target)
    has_features = (source / "features.json").exists()
    if has_features:
        shutil.copy(source / "features.json", target / "features.json")
    if not (source / "test.parquet").exists():
        raise missing(source / "test.parquet")
    frame = pd.read_parquet(source / "test.parquet").reset_index(drop=True)
    fields: dict[str, Any] = {
        "name": found.name,
        "task": found.name,
        "recipe": settings.recipe,
        "modality": found.modality,
        "engine": trained["engine"],
        "signature": {
            "inputs": [item.model_dump() for item in found.inputs(settings)],
            "classes": trained["classes"],
            "entities": list(found.entities) if has_features else [],
            "request": [item.model_dump() for item in found.request(settings)],
            "timestamp": found.timestamp if has_features else None,
        },
        "decision": trained["decision"],
        "feature_service": found.feature_service,
        "parameters": trained["parameters"],
        "layout": reading_settings(settings.data),
        "lineage": {**json.loads(lineage), "seed": settings.seed},
    }
    bundle = scoring.provisional(target, fields)
    engine = load_engine(bundle, threads=1)
    columns = scoring.columns_of(frame, bundle.document.signature.inputs)
    probability = scoring.predict(engine, columns, found.modality, events.progress("evaluate"))
    _check_probabilities(probability, len(trained["classes"]))
    result = _measured(frame, probability, bundle, settings.gate.primary, settings.seed)
    result["rows_digest"] = seen.digest(frame["row_key"])
    for hidden in read_hidden(source, "test"):
        name = f"{SLICE}:{hidden[CASE].iloc[0]}"
        served = scoring.predict(engine, scoring.columns_of(hidden, bundle.document.signature.inputs), found.modality)
        _add_slice(result, name, hidden, served, bundle, settings.seed)
    result["latency_ms"] = scoring.latency(engine, columns)
    tolerance = trained.get("tolerance", Golden.model_fields["tolerance"].default)
    _write_golden(target / "golden.jsonl", engine, columns, probability, bundle, tolerance)
    signature = bundle.document.signature
    write_json(target / "baseline.json", baseline.describe(columns, signature.inputs, probability, signature.classes))
    _draw(target / "plots", frame, probability, bundle, result, trained["history"])
    classes, decision = bundle.document.signature.classes, bundle.document.decision
    result |= curves(scoring.positions(frame, classes), probability, classes, decision)
    result["history"], result["choices"] = trained["history"], trained.get("choices", [])
    result["left_out"] = read_json(source / "dataset.json").get("left_out")
    about = {"task": found.name, "source": fields["lineage"]["source"], "version": fields["lineage"]["data_version"]}
    write_text(target / data_report.FILE, data_report.render_data(source, about, found.title))
    result["bundle_mb"] = round(scoring.folder_mb(target), 3)
    write_json(target / "evaluation.json", result)
    np.save(target / scoring.ANSWERS, probability)
    candidate = {**fields, "metrics": result["metrics"], "slices": result["slices"]}
    write_json(target / "candidate.json", candidate)
    return {"rows": len(frame), **result["metrics"]}


def _check_probabilities(probability: NDArray[np.float64], classes: int) -> None:
    sums = probability.sum(axis=1)
    if probability.shape[1] != classes or not np.isfinite(probability).all() or np.abs(sums - 1).max() > 1e-3:
        raise PlatformError(
            "the exported model does not answer with probabilities",
            detail=f"shape {probability.shape} for {classes} classes, sums {sums.min():.4g} to {sums.max():.4g}",
            fix="correct the export of this recipe",
            code="bad_model",
        )


def _measured(
    frame: pd.DataFrame, probability: NDArray[np.float64], bundle: Bundle, primary: str, seed: int
) -> dict[str, Any]:
    """The document evaluation.json without latency and size."""
    signature, decision = bundle.document.signature, bundle.document.decision
    measure = scoring.measure_for(frame, probability, signature.classes, decision)
    metrics = finite(measure(None))
    # In every round the order of every class: where they are many, only if the gate is to decide by it.
    few = len(signature.classes) <= FEW
    spread = measure if few else scoring.measure_for(frame, probability, signature.classes, decision, [primary])
    counts = frame["label"].value_counts().sort_index()
    result: dict[str, Any] = {
        "rows": len(frame),
        "labels": {str(name): int(count) for name, count in counts.items()},
        "primary": primary,
        "metrics": metrics,
        "intervals": bootstrap(spread, len(frame), seed),
        "slices": {},
        "slice_intervals": {},
    }
    for column in [name for name in frame.columns if str(name).startswith("slice_")]:
        for value in frame[column].value_counts().sort_index().nlargest(_SLICE_VALUES).index:
            rows = (frame[column] == value).to_numpy().nonzero()[0]
            key = f"{str(column).removeprefix('slice_')}:{value}"
            _add_slice(result, key, frame.iloc[rows], probability[rows], bundle, seed)
    return result


def _add_slice(
    result: dict[str, Any], key: str, frame: pd.DataFrame, probability: NDArray[np.float64], bundle: Bundle, seed: int
) -> None:
    """Measure some rows, and the interval of the primary metric among them, into evaluation.json's `result`."""
    primary = result["primary"]
    given = (frame, probability, bundle.document.signature.classes, bundle.document.decision)
    result["slices"][key] = {"rows": float(len(frame)), **finite(scoring.measure_for(*given)(None))}
    interval = bootstrap(_only(scoring.measure_for(*given, only=[primary]), primary), len(frame), seed)
    if primary in result["slices"][key] and primary in interval:
        result["slice_intervals"][key] = interval[primary]


def _only(measure: Measure, metric: str) -> Measure:
    def one(weight: NDArray[np.float64] | None) -> dict[str, float]:
        return {name: value for name, value in measure(weight).items() if name == metric}

    return one


def _write_golden(
    file: Path,
    engine: Engine,
    columns: Mapping[str, NDArray[Any]],
    probability: NDArray[np.float64],
    bundle: Bundle,
    tolerance: float,
) -> None:
    """Examples over the whole range of scores of the last class, so that a wrong model cannot pass by chance."""
    order = np.argsort(probability[:, -1], kind="stable")
    chosen = np.unique(order[np.linspace(0, len(order) - 1, min(_GOLDEN, len(order))).astype(int)])
    rows = {name: values[chosen] for name, values in columns.items()}
    expected = engine.predict(rows)
    kinds = {item.name: item.dtype for item in bundle.document.signature.inputs}
    lines = []
    for at in range(len(chosen)):
        inputs = {name: _plain(values[at], kinds[name]) for name, values in rows.items()}
        golden = Golden(inputs=inputs, expected=[float(p) for p in expected[at]], tolerance=tolerance)
        lines.append(golden.model_dump_json())
    write_text(file, "\n".join(lines) + "\n")


def _plain(value: Any, dtype: str) -> float | int | str | bool | None:
    value = clean_numbers(value)
    if value is None or dtype == "string":
        return value  # type: ignore[no-any-return]
    return bool(value) if dtype == "bool" else int(value) if dtype == "int64" else float(value)


def _draw(
    folder: Path,
    frame: pd.DataFrame,
    probability: NDArray[np.float64],
    bundle: Bundle,
    result: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
) -> None:
    folder.mkdir(exist_ok=True)
    classes, decision = bundle.document.signature.classes, bundle.document.decision
    metrics = result["metrics"]
    true = scoring.positions(frame, classes)
    if len(classes) == 2:
        _draw_binary(folder, true, probability, classes, decision, metrics)
    else:
        predicted = probability.argmax(axis=1)
        counts = plots.confusion_counts(true, predicted, len(classes))
        plots.confusion(folder / "confusion_matrix.png", counts, classes)
        right = predicted == true
        plots.calibration(
            folder / "calibration.png", probability.max(axis=1), right, "share of right answers", metrics["ece"]
        )
        f1 = {name: metrics[f"f1:{name}"] for name in classes if f"f1:{name}" in metrics}
        if f1:
            plots.class_scores(folder / "class_f1.png", f1, result["intervals"])
    plots.learning_curve(folder / "learning_curve.png", history)


def _draw_binary(
    folder: Path,
    true: NDArray[np.int64],
    probability: NDArray[np.float64],
    classes: Sequence[str],
    decision: Decision | None,
    metrics: Mapping[str, float],
) -> None:
    at = list(classes).index(decision.positive) if decision else 1
    threshold = decision.threshold if decision else 0.5
    score, positive = probability[:, at], true == at
    alarm = np.where(score >= threshold, at, 1 - at)
    plots.precision_recall(
        folder / "precision_recall.png", positive, score, threshold, metrics.get("average_precision", float("nan"))
    )
    plots.calibration(folder / "calibration.png", score, positive, f"share of {classes[at]}", metrics["ece"])
    counts = plots.confusion_counts(true, alarm, 2)
    plots.confusion(folder / "confusion_matrix.png", counts, classes, f" at threshold {threshold:.3g}")
    plots.score_histogram(folder / "scores.png", score, positive, (classes[1 - at], classes[at]), threshold)

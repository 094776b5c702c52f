"""Measure what will be served, with confidence intervals and per slice, and build the candidate for a bundle."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contracts import fairness
from contracts.baseline import FILE, describe_answers, describe_inputs
from contracts.bundle import REASON_TEXTS, BundleDocument, Golden, Input
from contracts.content import describe_content, unknown_share
from contracts.engine import MAX_PIXELS, DecodingEngine, Engine, TokenEngine, vector_of
from contracts.engines import find_engine, load_engine
from pipelines.data import seen
from pipelines.data.hidden import CASE, SLICE, read_hidden
from pipelines.data.sensitive import read_groups
from pipelines.evaluation import (
    explaining,
    get_evaluation,
    group_plots,
    membership,
    out_of_distribution,
    plots,
    redaction,
    scoring,
)
from pipelines.evaluation.base import Measure
from pipelines.evaluation.made_up import made_up
from pipelines.evaluation.measures import bootstrap, evenly, finite
from pipelines.io import events
from pipelines.io.files import clean_numbers, missing, read_json, write_json, write_text
from pipelines.pages import data_report
from pipelines.suites import in_run
from pipelines.suites.writer import let_write
from pipelines.task import Task, problem_of
from pipelines.tasks import get_task, load_config

if TYPE_CHECKING:
    import pandas as pd

_DECODED, _VECTORS = 500, 400  # files whose content is described, and rows whose vector is
_SLICE_VALUES = 40  # of one slice, the commonest


def evaluate(task: str, config: str, dataset: str, model: str, lineage: str, out: str) -> dict[str, Any]:
    """Score ``dataset/test.parquet`` with the exported model; `out` becomes the candidate of a bundle.

    Args:
        lineage: JSON with code_version, data_version and source.
        out: gets model/, features.json (with features), seen.bin, golden.jsonl, baseline.json, evaluation.json,
            plots/*.png, data.html (`pipelines.pages.data_report`), answers.npy (of the test rows) and
            candidate.json (a BundleDocument without gate and files). Of a private model there is no seen.bin,
            baseline.json, plot or data.html, and the golden rows are made up.

    Returns:
        The metrics.
    """
    found = get_task(task)
    settings = load_config(found, config)
    source, target = Path(dataset), Path(out)
    trained = read_json(Path(model) / "train.json")
    target.mkdir(parents=True, exist_ok=True)
    ignored = shutil.ignore_patterns(seen.FILE)
    shutil.copytree(Path(model) / "model", target / "model", dirs_exist_ok=True, ignore=ignored)
    private = trained.get("privacy")  # nothing that shows rows, or who they were of, goes with such a model
    if not private:
        seen.carry(source, Path(model) / "model", target)
    has_features = (source / "features.json").exists()
    if has_features:
        shutil.copy(source / "features.json", target / "features.json")
    if not (source / "test.parquet").exists():
        raise missing(source / "test.parquet")
    frame = scoring.read_rows(source / "test.parquet")
    fields = scoring.fields_of(found, settings, trained, json.loads(lineage), has_features)
    fields["parameters"] = {**fields["parameters"], **in_parameters(private)}
    bundle = scoring.provisional(target, fields)
    engine = load_engine(bundle, threads=1)
    frame = scoring.for_engine(frame, engine, bundle.document.signature.inputs)
    document, signature = bundle.document, bundle.document.signature
    evaluation = get_evaluation(signature.output.problem)
    columns = scoring.columns_of(frame, signature.inputs)
    answers = scoring.predict(engine, columns, document, events.progress("evaluate"))
    frame, wrote = let_write(frame, answers, settings, events.progress("evaluate"))
    result = _measured(frame, answers, document, settings.gate.primary, settings.seed) | wrote
    result["rows_digest"] = seen.digest(frame["row_key"])
    for hidden in read_hidden(source, "test"):
        name = f"{SLICE}:{hidden[CASE].iloc[0]}"
        served = scoring.predict(engine, scoring.columns_of(hidden, signature.inputs), document)
        _add_slice(result, name, hidden, served, document, settings.seed)
    for name, rows in getattr(found, "variants", _no_variants)(frame, settings):
        served = scoring.predict(engine, scoring.columns_of(rows, signature.inputs), document)
        _add_slice(result, name, rows, served, document, settings.seed)
    decided = signature.problem.decide(signature.output, document.decision, answers)
    asked, strange, strangeness = out_of_distribution.measure(engine, found, settings, frame, signature.inputs, decided)
    result["metrics"] |= asked
    result |= {"ood": strange} if strange else {}
    result["latency_ms"] = scoring.latency(engine, columns)
    tolerance = trained.get("tolerance", Golden.model_fields["tolerance"].default)
    shown = made_up(signature.inputs, settings.seed) if private else columns
    replies = scoring.predict(engine, shown, document) if private else answers
    chosen = evaluation.golden_rows(signature.output, replies, find_engine(document).golden)
    _write_golden(target / "golden.jsonl", engine, shown, chosen, document, tolerance)
    given = (frame, answers, signature.output, document.decision)
    if hasattr(settings, "privacy"):
        result["membership"] = membership.measure(engine, document, source, given, private, settings.seed)
    result["privacy"] = private
    (target / "plots").mkdir(exist_ok=True)
    if not private:
        moments = _seconds(frame, found.timestamp)
        _write_baseline(target / FILE, moments, engine, columns, signature.inputs, given, strangeness)
        evaluation.draw(target / "plots", *given, result)
        plots.learning_curve(target / "plots" / "learning_curve.png", trained["history"])
        result |= evaluation.curves(*given)
    plotted = None if private else target / "plots"
    told = explaining.measure(engine, document, columns, answers, settings.seed, plotted)
    result |= {"explanations": told} if told else {}
    result["history"], result["choices"] = trained["history"], trained.get("choices", [])
    if settings.gate.suite.name:
        result["suite"] = in_run.measure(engine, document, settings.gate.suite, events.progress("evaluate"))
    if settings.data.pii_labelled:
        result["redaction"] = redaction.measure(settings.data)
    _add_fairness(result, found, settings.gate.fairness.min_rows, source, None if private else target, given)
    if tradeoff := trained.get("tradeoff"):
        result["tradeoff"] = tradeoff
        group_plots.tradeoff(target / "plots" / "tradeoff.png", tradeoff, settings.gate.fairness.selection_ratio)
    if search := trained.get("search"):
        from pipelines.search.outcome import judged

        result["search"] = judged(search, found, settings, Path(model), frame, given, target / "plots")
    result |= {name: trained[name] for name in ("tuning", "pretraining") if trained.get(name)}
    if federation := trained.get("federation"):
        from pipelines.evaluation import federation_plots

        result["federation"] = federation
        federation_plots.draw(target / "plots", federation, trained["history"])
    _write_texts(target / REASON_TEXTS, found, [item.name for item in signature.inputs])
    result |= {name: read_json(source / "dataset.json").get(name) for name in ("left_out", "origin")}
    about = {"task": found.name, "source": fields["lineage"]["source"], "version": fields["lineage"]["data_version"]}
    if not private:
        write_text(target / data_report.FILE, data_report.render_data(source, about, found.title))
    result["bundle_mb"] = round(scoring.folder_mb(target), 3)
    write_json(target / "evaluation.json", result)
    evaluation.save(target / scoring.ANSWERS, answers)
    candidate = {**fields, "metrics": result["metrics"], "slices": result["slices"]}
    write_json(target / "candidate.json", candidate)
    return {"rows": len(frame), **result["metrics"]}


def _write_baseline(
    file: Path,
    moments: NDArray[np.int64] | None,
    engine: Engine,
    columns: Mapping[str, NDArray[Any]],
    inputs: Sequence[Input],
    given: tuple[Any, Any, Any, Any],
    strangeness: NDArray[np.float64] | None,
) -> None:
    """What normal looks like, of the test rows."""
    frame, answers, output, decision = given
    evaluation = get_evaluation(output.problem)
    watched, beside = evaluation.described(inputs), out_of_distribution.watched(strangeness)
    normal: dict[str, Any] = {
        "rows": len(frame),
        "inputs": describe_inputs(columns, watched, moments),
        "answer": describe_answers(
            evaluation.watched(output, decision, answers)
            | evaluation.asked(engine, columns, inputs, answers)
            | dict(beside),
            moments,
        ),
    }
    known: dict[str, Any] = normal["inputs"]
    seen_as = _as_logged(engine, columns)
    described = describe_content(seen_as, watched, known, _unknown(engine, columns), _vectors(engine, seen_as))
    for name, content in described.items():
        known[name] |= content
    normal |= evaluation.baseline(output, answers) | evaluation.expected(frame, answers)
    write_json(file, normal)


def _write_texts(file: Path, task: Task, inputs: list[str]) -> None:
    """What the task says of reasons and of changes, for the model's inputs; nothing where it says nothing."""
    texts, changes = getattr(task, "reason_texts", {}), getattr(task, "changes", {})
    if not texts and not changes:
        return
    document = {
        "favourable": getattr(task, "favourable", ""),
        "texts": {name: dict(texts[name]) for name in inputs if name in texts},
        "changes": {name: changes[name] for name in inputs if name in changes},
    }
    write_json(file, document)


def _add_fairness(
    result: dict[str, Any], task: Task, least: int, dataset: Path, target: Path | None, given: tuple[Any, Any, Any, Any]
) -> None:
    """Measure the groups of the test rows into evaluation.json's `result`, and draw them below `target`."""
    groups = read_groups(dataset, "test", given[0]["id"])
    if groups is None:
        return
    frame, answers, output, decision = given
    outcome = get_evaluation(problem_of(task)).outcome(
        frame, answers, output, decision, getattr(task, "favourable", "")
    )
    if outcome is None:
        return
    result["fairness"] = fairness.measure(groups, outcome, least)
    if target is None:
        return
    group_plots.rates(target / "plots" / "fairness.png", result["fairness"])
    group_plots.calibration(target / "plots", groups, outcome, least)


def in_parameters(private: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a bundle and MLflow show of a private training beside other parameters."""
    names = ("epsilon", "delta", "clip", "noise_multiplier", "steps")
    return {name: private[name] for name in names} if private else {}


def _no_variants(frame: pd.DataFrame, settings: Any) -> Iterable[tuple[str, pd.DataFrame]]:
    return ()


def _as_logged(engine: Engine, columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The columns that content is described of: of files some, evenly from all, as a service decodes them."""
    if not isinstance(engine, DecodingEngine):
        return dict(columns)
    rows = len(next(iter(columns.values())))
    chosen = evenly(rows, _DECODED)
    return engine.decode({name: values[chosen] for name, values in columns.items()}, MAX_PIXELS * len(chosen))


def _unknown(engine: Engine, columns: Mapping[str, NDArray[Any]]) -> list[float | None]:
    """Of each row the share of tokens that the model does not know; empty where it has no tokenizer."""
    unknown = getattr(engine, "unknown_id", None)
    if unknown is None or not isinstance(engine, TokenEngine):
        return []
    return [unknown_share(ids, unknown) for ids in engine.tokenise(columns)]


def _vectors(engine: Engine, columns: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float64]]:
    """Of some rows, evenly from all, the model's own vector; each alone, as a service does. Empty where it has none."""
    vector = vector_of(engine)
    if vector is None:
        return []
    rows = engine.tokenise(columns) if isinstance(engine, TokenEngine) else next(iter(columns.values()))
    return [vector(rows[at]) for at in evenly(len(rows), _VECTORS)]


def _seconds(frame: pd.DataFrame, column: str | None) -> NDArray[np.int64] | None:
    """The moment of each row since 1970; None where the split keeps none, or not of all rows."""
    import pandas as pd

    moments = frame.get(column) if column is not None else None
    if moments is None or not pd.api.types.is_datetime64_any_dtype(moments) or moments.isna().any():
        return None
    utc = moments.dt.tz_convert("UTC").dt.tz_localize(None) if moments.dt.tz is not None else moments
    return utc.to_numpy().astype("datetime64[s]").astype(np.int64)


def _measured(frame: pd.DataFrame, answers: Any, document: BundleDocument, primary: str, seed: int) -> dict[str, Any]:
    """The document evaluation.json without latency and size."""
    output, decision = document.signature.output, document.decision
    evaluation = get_evaluation(output.problem)
    measure = evaluation.measure_for(frame, answers, output, decision)
    metrics = finite(measure(None))
    wanted = evaluation.interval_metrics(output, primary)
    spread = evaluation.measure_for(frame, answers, output, decision, wanted) if wanted else measure
    result: dict[str, Any] = {
        "rows": len(frame),
        "labels": evaluation.counts(frame["label"]),
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
            _add_slice(result, key, frame.iloc[rows], evaluation.take(answers, rows), document, seed)
    return result


def _add_slice(
    result: dict[str, Any], key: str, frame: pd.DataFrame, answers: Any, document: BundleDocument, seed: int
) -> None:
    """Measure some rows, and the interval of the primary metric among them, into evaluation.json's `result`."""
    primary, output = result["primary"], document.signature.output
    measure_for = get_evaluation(output.problem).measure_for
    measured = measure_for(frame, answers, output, document.decision)(None)
    result["slices"][key] = {"rows": float(len(frame)), **finite(measured)}
    one = measure_for(frame, answers, output, document.decision, only=[primary])
    interval = bootstrap(_only(one, primary), len(frame), seed)
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
    chosen: NDArray[np.int64],
    document: BundleDocument,
    tolerance: float,
) -> None:
    """The chosen rows with what the engine answers to them alone."""
    signature = document.signature
    rows = {name: values[chosen] for name, values in columns.items()}
    answers = engine.predict(rows)
    kinds = {item.name: item.dtype for item in signature.inputs}
    lines = []
    for at in range(len(chosen)):
        inputs = {name: _plain(values[at], kinds[name]) for name, values in rows.items()}
        expected = signature.problem.expected(signature.output, answers, at)
        lines.append(Golden(inputs=inputs, expected=expected, tolerance=tolerance).model_dump_json())
    write_text(file, "\n".join(lines) + "\n")


def _plain(value: Any, dtype: str) -> float | int | str | bool | None:
    if dtype == "bytes":
        return base64.b64encode(bytes(value)).decode()  # as in a request
    value = clean_numbers(value)
    if value is None or dtype == "string":
        return value  # type: ignore[no-any-return]
    return bool(value) if dtype == "bool" else int(value) if dtype == "int64" else float(value)

"""Every problem has an evaluation that measures, draws, describes and writes; measures agree with scikit-learn."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from contracts.errors import PlatformError
from contracts.problems import OURS, get_problem, read_output
from contracts.problems.answering import Answered, Citation, Passage
from contracts.problems.detection import Detections, Truth, write_truth
from contracts.problems.ranking import Ranked
from contracts.tagging import Tagged
from pipelines.evaluation import get_evaluation, written
from pipelines.evaluation.answering import Wanted
from pipelines.evaluation.embedding import ranks
from pipelines.evaluation.leakage import check_leakage
from pipelines.evaluation.measures import bootstrap
from pipelines.evaluation.multilabel import label_matrix
from pipelines.task import DataConfig
from tests import drawing_bundle
from tests.late import Late

reference = Late("sklearn.metrics")

RNG = np.random.default_rng(3)
ROWS = 300
WEIGHT = RNG.integers(0, 4, ROWS).astype(float)
_TRUE = RNG.random((ROWS, 3)) < [0.5, 0.3, 0.1]
_NUMBERS = RNG.normal(10, 4, ROWS)
_SAID = _NUMBERS + RNG.normal(0, 1, ROWS)
_VECTORS = np.eye(3)[RNG.integers(0, 3, ROWS)] + RNG.normal(0, 0.4, (ROWS, 3))
_WORDS = RNG.choice(["rain", "sun", "road", "town", "river", "bus", "snow", "wind"], (ROWS, 8))


def _lists() -> Any:
    found = np.empty(ROWS, dtype=object)
    for at, row in enumerate(_WORDS):
        items = tuple(dict.fromkeys(row[:4].tolist()))
        size, measures = len(items), {"novelty": at / 50, "diversity": at % 7 / 7, "tail": 0.5}
        known = measures | ({"calibration": 0.1} if at % 2 else {})
        scores = tuple(1.0 - place / 9 for place in range(size))
        found[at] = Ranked(items, scores, ("similar",) * size, (("sea",),) * size, (1.0,) * size, known)
    return found


def _scenes() -> tuple[list[str], Any]:
    """Images with objects of every size, of which most are found, some twice, and some are not there."""
    labels, found = [], np.empty(ROWS, dtype=object)
    for at in range(ROWS):
        many = at % 4
        corner, side = RNG.uniform(0, 200, (many, 2)), RNG.choice([15.0, 60.0, 150.0], (many, 1))
        boxes, kinds = np.concatenate([corner, corner + side], axis=1), RNG.integers(0, 2, many)
        labels.append(write_truth(Truth("ab"[k], tuple(box)) for k, box in zip(kinds, boxes.tolist(), strict=True)))
        said = np.concatenate([boxes + RNG.normal(0, 2, boxes.shape), [[300.0, 300.0, 320.0, 330.0]]])
        scores = np.append(RNG.random(many), RNG.random() / 2)
        order = np.argsort(-scores)
        found[at] = Detections(said[order], scores[order], np.append(kinds, at % 2)[order])
    return labels, found


def _spans() -> tuple[list[str], Any]:
    """Labels of up to three words each, of which some are missed, some are of another type, and some are too long."""
    labels, found = [], np.empty(ROWS, dtype=object)
    for at in range(ROWS):
        true = [(9 * one, 9 * one + 4, ("PER", "LOC")[(at + one) % 2]) for one in range(at % 4)]
        labels.append(json.dumps(true))
        said = [
            (start, end + (at % 7 == 0), "ORG" if at % 11 == 0 else kind) for start, end, kind in true[at % 3 == 0 :]
        ]
        found[at] = [Tagged(start, end, kind, 0.5 + at % 50 / 100) for start, end, kind in said]
    return labels, found


def _answers() -> tuple[list[str], Any]:
    """Questions of which every fourth has no answer; most are answered, some of them from another passage."""
    found = np.empty(ROWS, dtype=object)
    wanted = []
    for row in range(ROWS):
        right, said = row % 5 != 0, row % 7 != 0
        one = Passage(f"d#{row}", "d", "D", "", 0, (), 0.5, f"It is {row}." if right else "It is green.")
        other = Passage(f"e#{row}", "e", "E", "", 0, (), 0.25, f"Once it was. It is {row}.")
        cited = (Citation(0, one.text),) if said else ()
        found[row] = Answered(one.text if said else "", row / ROWS, cited, (one, other))
        wanted.append(Wanted(f"It is {row}.", f"It is {row}.", "d").text() if row % 4 else Wanted().text())
    return wanted, found


CASES: dict[str, tuple[dict[str, Any], Any, Any]] = {
    "classification": (
        {"classes": ["a", "b", "c"], "ordered": True},
        RNG.choice(["a", "b", "c"], ROWS),
        RNG.dirichlet([1, 1, 1], ROWS),
    ),
    "multilabel": (
        {"labels": ["x", "y", "z"], "thresholds": [0.5, 0.4, 0.3]},
        ["|".join(np.array(["x", "y", "z"])[row]) for row in _TRUE],
        np.clip(_TRUE * 0.4 + RNG.random((ROWS, 3)) * 0.6, 0, 1),
    ),
    "regression": ({"coverage": 0.8}, _NUMBERS, np.column_stack([_SAID, _SAID - 1.3, _SAID + 1.3])),
    "embedding": (
        {"dimensions": 3},
        RNG.choice(["a", "b", "c"], ROWS),
        _VECTORS / np.linalg.norm(_VECTORS, axis=1, keepdims=True),
    ),
    "generation": (
        {"max_characters": 200},
        [" ".join(row) for row in _WORDS],
        np.array([" ".join(row[: 2 + at % 5]) for at, row in enumerate(_WORDS)], dtype=object),
    ),
    "ranking": (
        {"k": 4, "longest": 5, "catalogue": 12},
        ["|".join(dict.fromkeys(row[4:])) for row in _WORDS],
        _lists(),
    ),
    "detection": ({"labels": ["a", "b"], "thresholds": [0.4, 0.6], "longest": 10}, *_scenes()),
    "tagging": ({"types": ["LOC", "ORG", "PER"]}, *_spans()),
    "image": (drawing_bundle.OUTPUT, *drawing_bundle.pictures(ROWS, 4, shift=2.0)),
    "answering": ({"k": 2, "longest": 2, "passages": 9, "documents": 2, "threshold": 0.5}, *_answers()),
}


def case(problem: str) -> tuple[Any, pd.DataFrame, Any, Any]:
    fields, label, answers = CASES[problem]
    output = read_output({**fields, "problem": problem})
    assert get_problem(problem).wrong(output, answers, ROWS) == ""
    frame = drawing_bundle.held_out(ROWS) if problem == "image" else pd.DataFrame({"label": label})
    return get_evaluation(problem), frame, answers, output


@pytest.mark.parametrize("problem", OURS)
def test_what_is_measured_may_be_named_by_a_gate_and_has_an_interval(problem: str) -> None:
    evaluation, frame, answers, output = case(problem)
    names = evaluation.metric_names(SimpleNamespace(classes=None, ordered=True), None)
    measure = evaluation.measure_for(frame, answers, output, None)
    found = measure(None)
    assert set(names.whole) <= set(found)
    assert [name for name in found if not names.has(name)] == []
    assert names.has(evaluation.usual)
    asked = written.HIGHER if problem == "answering" else frozenset()  # of a chat model: see test_written_answers
    assert evaluation.higher - asked <= {name.split(":")[0] for name in found}
    assert found == pytest.approx(measure(np.ones(ROWS)), nan_ok=True)
    doubled = evaluation.measure_for(pd.concat([frame, frame]), np.concatenate([answers, answers]), output, None)
    half = np.repeat([1.0, 0.0], ROWS)
    if problem not in ("embedding", "image"):  # there a copy of a row is the nearest row
        assert doubled(half) == pytest.approx(found, nan_ok=True)
    low, high = bootstrap(measure, ROWS, 1, 50)[evaluation.usual]
    assert low < found[evaluation.usual] < high
    only = evaluation.measure_for(frame, answers, output, None, only=[evaluation.usual])(WEIGHT)
    assert only[evaluation.usual] == pytest.approx(measure(WEIGHT)[evaluation.usual])


@pytest.mark.parametrize("problem", OURS)
def test_answers_are_drawn_described_and_written(problem: str, tmp_path: Path) -> None:
    evaluation, frame, answers, output = case(problem)
    measured = evaluation.measure_for(frame, answers, output, None)(None)
    result: dict[str, Any] = {"metrics": measured, "intervals": {}, "labels": evaluation.counts(frame["label"])}
    evaluation.draw(tmp_path, frame, answers, output, None, result)
    drawn = {file.stem for file in tmp_path.glob("*.png")}
    assert drawn
    assert drawn <= set(evaluation.plots)
    result |= evaluation.curves(frame, answers, output, None)
    assert evaluation.rows_text(result)
    document: Any = SimpleNamespace(signature=SimpleNamespace(output=output), decision=None)
    assert evaluation.answers_text(document).endswith(".")
    assert all(evaluation.title(name) for name in measured)
    assert evaluation.baseline(output, answers)["scores"]
    rows = evaluation.golden_rows(output, answers, 20)
    assert 15 <= len(set(rows)) <= 20
    evaluation.save(tmp_path / "answers.npy", answers)
    np.testing.assert_array_equal(evaluation.read(tmp_path / "answers.npy"), answers)


@pytest.mark.parametrize("problem", OURS)
def test_batch_scoring_writes_a_column_for_each_name_and_sums_up(problem: str) -> None:
    evaluation, _, answers, output = case(problem)
    batch = evaluation.batch(output, None)
    tables = [pa.table(batch.add(answers[part]), names=batch.columns) for part in (slice(0, 100), slice(100, ROWS))]
    assert pa.concat_tables(tables).num_rows == ROWS
    headings, rows = evaluation.batch_table({"rows": ROWS, **batch.document()})
    assert all(len(row) == len(headings) for row in rows)


_NO_ORDER = ("generation", "ranking", "detection", "tagging", "image", "answering")


@pytest.mark.parametrize("problem", [problem for problem in OURS if problem not in _NO_ORDER])
def test_a_column_made_from_the_label_gives_it_away_and_noise_does_not(problem: str) -> None:
    evaluation, frame, _, _ = case(problem)
    label = frame["label"].to_numpy(dtype=object)
    fit = RNG.random(ROWS) < 0.5
    made = pd.qcut(frame["label"], 16, labels=False) if problem == "regression" else pd.factorize(frame["label"])[0]
    told = evaluation.associate(np.asarray(made, dtype=np.int64), label, fit)
    assert told is not None
    assert told > 0.95
    noise = evaluation.associate(RNG.integers(0, 5, ROWS), label, fit)
    assert noise is not None
    assert noise < 0.7


def test_a_copy_of_a_number_is_refused_and_one_with_noise_is_not() -> None:
    label = RNG.lognormal(3, 1, 4000)
    frame = pd.DataFrame({"price": label, "copy": label * -2 + 1, "near": label * RNG.lognormal(0, 0.3, 4000)})
    with pytest.raises(PlatformError, match="column 'copy' predicts 'price' nearly alone") as caught:
        check_leakage(frame, "price", DataConfig(), get_evaluation("regression"))
    assert "concordance 0.99" in caught.value.detail
    assert "near" not in caught.value.detail


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_regression_agrees_with_scikit_learn(weight: Any) -> None:
    evaluation, frame, answers, output = case("regression")
    found, given = evaluation.measure_for(frame, answers, output, None)(weight), {"sample_weight": weight}
    true, said = frame["label"], answers[:, 0]
    ends = [(answers[:, 1], 0.1), (answers[:, 2], 0.9)]
    expected = {
        "mae": reference.mean_absolute_error(true, said, **given),
        "rmse": reference.mean_squared_error(true, said, **given) ** 0.5,
        "r2": reference.r2_score(true, said, **given),
        "mape": reference.mean_absolute_percentage_error(true, said, **given),
        "pinball": np.mean([reference.mean_pinball_loss(true, end, alpha=at, **given) for end, at in ends]),
        "width": 2.6,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    repeated = np.repeat(abs(said - true), 1 if weight is None else weight.astype(int))
    assert found["median_error"] == pytest.approx(np.quantile(repeated, 0.5, method="inverted_cdf"))


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_multilabel_agrees_with_scikit_learn(weight: Any) -> None:
    evaluation, frame, answers, output = case("multilabel")
    found, given = evaluation.measure_for(frame, answers, output, None)(weight), {"sample_weight": weight}
    true, said = label_matrix(frame["label"], output.labels), answers >= [0.5, 0.4, 0.3]
    np.testing.assert_array_equal(true, _TRUE)
    expected = {
        "micro_f1": reference.f1_score(true, said, average="micro", **given),
        "macro_f1": reference.f1_score(true, said, average="macro", **given),
        "precision": reference.precision_score(true, said, average="micro", **given),
        "recall": reference.recall_score(true, said, average="micro", **given),
        "average_precision": reference.average_precision_score(true, answers, **given),
        "subset_accuracy": reference.accuracy_score(true, said, **given),
        "hamming_loss": reference.hamming_loss(true, said, **given),
        "f1:z": reference.f1_score(true[:, 2], said[:, 2], **given),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_a_row_alone_in_its_class_looks_for_nothing() -> None:
    vectors = np.array([[1.0, 0], [0.9, 0.1], [0, 1.0], [0.1, 0.9], [0.6, 0.4]])
    assert ranks(np.array(["a", "a", "b", "a", "c"]), vectors).tolist() == [1, 1, 0, 3, 0]


def test_a_problem_that_nobody_can_evaluate_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(get_problem("embedding")), "evaluation", "nowhere.at_all")
    get_evaluation.cache_clear()
    with pytest.raises(PlatformError, match="cannot be evaluated") as caught:
        get_evaluation("embedding")
    get_evaluation.cache_clear()
    assert caught.value.code == "bad_plugin"

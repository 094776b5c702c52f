"""Quality once labels are there, and what is to be expected before."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.problems import get_problem
from contracts.problems.multilabel import MultilabelOutput
from pipelines.evaluation.number_measures import residuals
from services.feedback.records import Label
from services.feedback.writing import write_labels
from services.monitor.labelled import FILE
from services.problems import get_serving, measures
from tests.late import Late
from tests.monitor_log import NOON, Log

reference = Late("sklearn.metrics")

ROWS = st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 10), st.integers(1, 3)), min_size=5, max_size=60)


@settings(max_examples=12, deadline=None)
@given(ROWS)
def test_metrics_are_those_of_scikit_learn(rows: list[tuple[bool, bool, int, int]]) -> None:
    true, said = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    score, weight = np.array([row[2] / 10 for row in rows]), np.array([float(row[3]) for row in rows])
    found = measures.binary(true, said, score)(weight)
    if true.any() and said.any():
        assert found["precision"] == pytest.approx(reference.precision_score(true, said, sample_weight=weight))
        assert found["recall"] == pytest.approx(reference.recall_score(true, said, sample_weight=weight))
        assert found["average_precision"] == pytest.approx(
            reference.average_precision_score(true, score, sample_weight=weight)
        )
    both = measures.classes(true.astype(np.int64), said.astype(np.int64), 2)(weight)
    assert both["accuracy"] == pytest.approx(float(np.average(true == said, weights=weight)))
    if true.any() and not true.all():
        assert both["macro_f1"] == pytest.approx(reference.f1_score(true, said, average="macro", sample_weight=weight))
    number = measures.numbers(score, score[::-1])(weight)
    assert number["rmse"] ** 2 == pytest.approx(reference.mean_squared_error(score, score[::-1], sample_weight=weight))
    if len(set(score)) > 1:
        assert number["r2"] == pytest.approx(reference.r2_score(score, score[::-1], sample_weight=weight))


def _label(log: Log, wrong: float = 0.0) -> list[Label]:
    """The labels of all records: as probable as the scores say, but for a share that is turned."""
    rng, found = np.random.default_rng(3), []
    for file in sorted((log.folder / "m").glob("*.jsonl")):
        for line in file.read_text().splitlines():
            record = json.loads(line)
            yes = rng.random() < record["score"]
            yes = not yes if rng.random() < wrong else yes
            at = NOON + timedelta(days=1)
            found.append(Label(id=record["id"], label="yes" if yes else "no", time=at))
    return found


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path, metrics={"accuracy": 0.6, "recall": 0.6}, slices={"colour:red": {"accuracy": 0.6}})


def _items(report: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(item["metric"], item["slice"]): item for item in report["quality"]}


def test_labels_that_come_later_are_measured_with_intervals_and_by_slice(log: Log) -> None:
    monitor = log.monitor()
    log.write(30)
    assert log.look(monitor)["quality"] == []
    write_labels(str(log.folder), "m", _label(log))
    found = log.look(monitor, later=86_400)
    items = _items(found)
    assert found["labelled"] == 1_500
    overall = items["accuracy", ""]
    assert overall["low"] < overall["value"] < overall["high"]
    assert (overall["reference"], overall["dropped"]) == (0.6, False)
    assert {"colour:red", "colour:green", "colour:blue"} <= {name for _, name in items}
    assert items["accuracy", "colour:red"]["reference"] == 0.6
    assert items["accuracy", "colour:blue"]["reference"] is None
    assert monitor.report["labels"] == {"joined": 1_500, "unknown": 0, "contradicting": 0, "repeated": 0}


def test_a_drop_is_named(log: Log) -> None:
    log.write(40)
    write_labels(str(log.folder), "m", _label(log, wrong=0.5))
    dropped = {key for key, item in _items(log.look(log.monitor())).items() if item["dropped"]}
    assert ("accuracy", "") in dropped


def test_the_estimate_before_labels_is_near_what_labels_say_later(log: Log) -> None:
    monitor = log.monitor()
    log.write(30)
    before = log.look(monitor)["estimate"]["metrics"]["accuracy"]
    assert before["error"] is None
    write_labels(str(log.folder), "m", _label(log))
    found = log.look(monitor, later=600)
    after = _items(found)["accuracy", ""]
    assert after["low"] <= before["value"] <= after["high"]
    assert found["estimate"]["metrics"]["accuracy"]["error"] < 0.03


def test_labels_are_counted_by_what_became_of_them_and_survive_a_restart(log: Log) -> None:
    log.write(10)
    labels = _label(log)
    late = NOON + timedelta(days=3)
    first = labels[0]
    other = "no" if first.label == "yes" else "yes"
    write_labels(str(log.folder), "m", labels)
    log.look(log.monitor())
    odd = [
        first,
        Label(id=first.id, label=other, time=first.time),
        Label(id=labels[1].id, label="yes" if labels[1].label == "no" else "no", time=late),
        Label(id="f" * 32, label="yes", time=late),
        Label(id="no id", label="yes", time=late),
    ]
    write_labels(str(log.folder), "m", odd)
    monitor = log.monitor()
    log.look(monitor)
    assert monitor.report["labels"] == {"joined": 501, "unknown": 2, "contradicting": 1, "repeated": 1}
    rows = json.loads((log.folder / "m" / "monitor" / FILE).read_text())["rows"]["1"]
    assert rows[labels[1].id]["label"] == odd[2].label
    assert len(rows) == 500


def test_a_label_that_comes_before_its_prediction_is_waited_for(log: Log) -> None:
    log.write(10)
    log.write(5, file="b")
    labels = _label(log)
    write_labels(str(log.folder), "m", labels)
    file, away = log.folder / "m" / f"{NOON:%Y-%m-%d}.b.jsonl", log.folder.parent / "b.jsonl"
    file.rename(away)
    monitor = log.monitor()
    log.look(monitor)
    assert monitor.report["labels"] == {"joined": 500, "unknown": 0, "contradicting": 0, "repeated": 0}
    away.rename(file)
    monitor = log.monitor()
    assert (monitor.look(log.at + timedelta(days=5))["labels"]["joined"], monitor.report["labels_waiting"]) == (750, 0)
    again = log.monitor()
    again.look(log.at + timedelta(days=6))
    assert again.report["labels"] == {"joined": 750, "unknown": 0, "contradicting": 0, "repeated": 0}


def test_a_label_waits_a_week_for_its_prediction(log: Log) -> None:
    log.write(5)
    labels = _label(log)
    (log.folder / "m" / f"{NOON:%Y-%m-%d}.a.jsonl").rename(log.folder.parent / "a.jsonl")
    log.write(1, file="b")
    write_labels(str(log.folder), "m", labels)
    monitor = log.monitor()
    log.look(monitor)
    assert (monitor.report["labels"]["unknown"], monitor.report["labels_waiting"]) == (0, 250)
    monitor.look(log.at + timedelta(days=8))
    assert (monitor.report["labels"]["unknown"], monitor.report["labels_waiting"]) == (250, 0)


NUMBERS = st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50), st.integers(0, 5)), min_size=1, max_size=60)


@settings(max_examples=12, deadline=None)
@given(NUMBERS, st.booleans())
def test_the_estimate_of_a_regression_on_the_rows_it_was_made_of_is_what_they_say(
    rows: list[tuple[int, int, int]], intervals: bool
) -> None:
    table = np.array(rows, dtype=np.float64)
    true, said, width = table[:, 0], table[:, 1], table[:, 2]
    answers = np.column_stack([said, said - width / 2, said + width / 2] if intervals else [said])
    baseline = {"residuals": residuals(true, answers)}
    serving, sums = get_serving(get_problem("regression")), dict[str, float]()
    for row in answers.tolist():
        record = {"value": row[0], **({"interval": row[1:]} if intervals else {})}
        for name, value in serving.expected(None, None, record, baseline).items():
            sums[name] = sums.get(name, 0.0) + value
    found = serving.estimate(sums)
    assert found["mae"] == pytest.approx(np.abs(true - said).mean())
    assert found["rmse"] ** 2 == pytest.approx(((true - said) ** 2).mean())
    assert serving.expected(None, None, {"value": 1.0}, {}) == {}, "older bundles say nothing"


def test_the_estimate_of_several_labels_is_near_what_comes_true_where_they_are_calibrated() -> None:
    rng, names = np.random.default_rng(5), ["a", "b", "c"]
    output = MultilabelOutput(labels=names, thresholds=[0.5, 0.3, 0.6])
    chances = rng.beta(1, 2, (2_000, 3))
    true, said = rng.random(chances.shape) < chances, chances >= [0.5, 0.3, 0.6]
    serving, sums = get_serving(get_problem("multilabel")), dict[str, float]()

    def labels(row: Any) -> list[str]:
        return [name for name, one in zip(names, row, strict=True) if one]

    records = [{"labels": labels(row), "probabilities": one} for row, one in zip(said, chances.tolist(), strict=True)]
    for record in records:
        for name, value in serving.expected(output, None, record, {}).items():
            sums[name] = sums.get(name, 0.0) + value
    measure = serving.measure(output, None, records, [labels(row) for row in true])
    assert measure is not None
    found, truth = serving.estimate(sums), measure(np.ones(len(records)))
    assert set(found) == {"micro_f1", "subset_accuracy", "hamming_loss"}
    assert all(value == pytest.approx(truth[name], abs=0.03) for name, value in found.items())

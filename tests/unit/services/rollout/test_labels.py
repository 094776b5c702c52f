"""Labels that come during a rollout are counted by the version that gave the answer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from contracts.bundle import Signature
from contracts.problems import get_problem
from contracts.rollout_policy import RolloutPolicy
from services.feedback import layout
from services.feedback.line_file import append
from services.feedback.records import Label, Prediction, line_of
from services.feedback.writing import write_labels
from services.problems import get_serving
from services.rollout.labels import LabelWatch, count_labels
from services.rollout.observation import Labelled
from services.rollout.state import Rollout, new_rollout

CLASSES = Signature.model_validate({"inputs": [], "output": {"problem": "classification", "classes": ["a", "b"]}})
NUMBER = Signature.model_validate({"inputs": [], "output": {"problem": "regression"}})


@pytest.fixture
def start(tmp_path: Path) -> datetime:
    """Predictions of two versions, one per second, each "a"; the first six have labels, every third is "b"."""
    start = datetime.now(UTC) - timedelta(minutes=5)
    for number in range(8):
        at = start + timedelta(seconds=number)
        one = Prediction(
            id=f"{int(at.timestamp() * 1000):012x}{number:020x}",
            time=at,
            model="m",
            version=str(1 + number % 2),
            digest="",
            answer={"label": "a", "score": 0.9},
            inputs={},
            entities={},
            flags=(),
            latency_ms=1.0,
            schema=2,
        )
        append(layout.own_file(layout.home(str(tmp_path), "m")), line_of(one))
        if number < 6:
            write_labels(str(tmp_path), "m", [Label(id=one.id, label="b" if number % 3 == 0 else "a", time=at)])
    return start


def test_labelled_and_wrong_answers_are_counted_by_version(tmp_path: Path, start: datetime) -> None:
    end = start + timedelta(minutes=1)
    assert count_labels(str(tmp_path), "m", CLASSES, {}, start, end) == dict.fromkeys(
        ("1", "2"), Labelled(3, 1, {"a": 2, "b": 1}, {"a": 0, "b": 1})
    )
    later = start + timedelta(seconds=3.5)
    assert count_labels(str(tmp_path), "m", CLASSES, {}, later, end) == dict.fromkeys(
        ("1", "2"), Labelled(1, 0, {"a": 1, "b": 0}, {"a": 0, "b": 0})
    )
    assert count_labels(str(tmp_path), "m", NUMBER, {}, start, end) == {}


@pytest.mark.parametrize(
    ("problem", "answer", "right", "wrong"),
    [
        ("classification", {"label": "a"}, "a", "b"),
        ("multilabel", {"labels": ["a", "b"]}, ["b", "a"], ["a"]),
        ("regression", {"value": 10.0}, 11.9, 12.1),
    ],
)
def test_every_problem_that_takes_labels_says_what_is_wrong(problem: str, answer: Any, right: Any, wrong: Any) -> None:
    outputs: dict[str, dict[str, Any]] = {
        "classification": {"classes": ["a", "b"]},
        "multilabel": {"labels": ["a", "b"], "thresholds": [0.5, 0.5]},
        "regression": {},
    }
    output = outputs[problem]
    made = Signature.model_validate({"inputs": [], "output": {"problem": problem, **output}})
    serving, metrics = get_serving(made.problem), {"mae": 2.0}
    assert serving.is_right(answer, right, metrics) is True
    assert serving.is_right(answer, wrong, metrics) is False
    assert problem != "regression" or serving.is_right(answer, right, {}) is None


@pytest.mark.parametrize(
    ("problem", "answer", "label", "found"),
    [
        ("classification", {"label": "a"}, "b", {"b": True}),
        ("classification", {"label": "a"}, "a", {"a": False}),
        ("multilabel", {"labels": ["a", "c"]}, ["a", "b"], {"a": False, "b": True}),
        ("regression", {"value": 10.0}, 12.0, {}),
    ],
)
def test_wrong_answers_are_told_apart_by_what_is_true(
    problem: str, answer: Any, label: Any, found: dict[str, bool]
) -> None:
    assert get_serving(get_problem(problem)).misses(answer, label) == found


def test_the_champions_answers_of_before_count_by_class_and_nothing_without_a_rollout(
    tmp_path: Path, start: datetime
) -> None:
    rollout = new_rollout("r", "m", "1", "2", "canary", RolloutPolicy(), start.timestamp() + 2.5)
    under_way: list[Rollout | None] = [rollout]
    watch = LabelWatch(str(tmp_path), "m", CLASSES, lambda: under_way[-1])
    watch.look()
    assert watch.counts["1"] == Labelled(1, 0, {"a": 2, "b": 1}, {"a": 0, "b": 1})  # two answers of before by class
    assert watch.counts["2"] == Labelled(2, 1, {"a": 1, "b": 1}, {"a": 0, "b": 1})
    for none in (rollout.model_copy(update={"phase": "promoted"}), None):
        watch.counts = {"1": Labelled(1, 0, {}, {})}
        under_way.append(none)
        watch.look()
        assert watch.counts == {}

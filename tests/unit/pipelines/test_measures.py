"""Quality measures agree with scikit-learn, with weights too, and intervals cover what they should."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.problems.classification import ClassificationOutput
from pipelines.evaluation import get_evaluation
from pipelines.evaluation.class_measures import RANKED, Rule, binary, classification, multiclass, on_scale
from pipelines.evaluation.classification import METRICS
from pipelines.evaluation.measures import auc, bootstrap, finite, paired_bootstrap
from tests.late import Late

reference = Late("sklearn.metrics")

RNG = np.random.default_rng(5)
SCORE = np.round(RNG.random(500), 2)  # rounded: many ties
POSITIVE = RNG.random(500) < SCORE * 0.6
WEIGHT = RNG.integers(0, 4, 500).astype(float)


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_binary_measures_agree_with_scikit_learn(weight: np.ndarray | None) -> None:
    cost = RNG.uniform(1, 9, 500)
    found = binary(POSITIVE, SCORE, Rule(0.4, 2.0, cost))(weight)
    alarm = SCORE >= 0.4
    given = {"sample_weight": weight}
    expected = {
        "average_precision": reference.average_precision_score(POSITIVE, SCORE, **given),
        "roc_auc": reference.roc_auc_score(POSITIVE, SCORE, **given),
        "precision": reference.precision_score(POSITIVE, alarm, **given),
        "recall": reference.recall_score(POSITIVE, alarm, **given),
        "f1": reference.f1_score(POSITIVE, alarm, **given),
        "brier": reference.brier_score_loss(POSITIVE, SCORE, **given),
        "log_loss": reference.log_loss(POSITIVE, np.clip(SCORE, 1e-12, 1 - 1e-12), **given),
        "cost": np.average(np.where(POSITIVE, np.where(alarm, 0, cost), np.where(alarm, 2.0, 0)), weights=weight),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_multiclass_measures_agree_with_scikit_learn(weight: np.ndarray | None) -> None:
    label = RNG.integers(0, 3, 500)
    probability = RNG.dirichlet([1, 1, 1], 500)
    predicted = probability.argmax(axis=1)
    found = multiclass(label, probability, ["a", "b", "c"])(weight)
    f1 = reference.f1_score(label, predicted, average=None, sample_weight=weight)
    expected = {
        "accuracy": reference.accuracy_score(label, predicted, sample_weight=weight),
        "macro_f1": f1.mean(),
        "log_loss": reference.log_loss(label, probability, sample_weight=weight),
        **{f"f1:{name}": value for name, value in zip("abc", f1, strict=True)},
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_means_over_classes_agree_with_scikit_learn(weight: np.ndarray | None) -> None:
    label = RNG.integers(0, 3, 500)
    probability = np.round(RNG.dirichlet([1, 1, 1], 500), 2)
    probability /= probability.sum(axis=1, keepdims=True)
    given = {"sample_weight": weight}
    mean = {"average": "macro", **given}
    predicted = probability.argmax(axis=1)
    one_hot = np.eye(3)[label]
    expected = {
        "average_precision": np.mean(
            [reference.average_precision_score(label == k, probability[:, k], **given) for k in range(3)]
        ),
        "roc_auc": np.mean([reference.roc_auc_score(label == k, probability[:, k], **given) for k in range(3)]),
        "precision": reference.precision_score(label, predicted, **mean),
        "recall": reference.recall_score(label, predicted, **mean),
        "f1": reference.f1_score(label, predicted, **mean),
        "cost": 1 - reference.accuracy_score(label, predicted, **given),
        "brier": np.average(((probability - one_hot) ** 2).sum(axis=1) / 2, weights=weight),
    }
    found = multiclass(label, probability, ["a", "b", "c"])(weight)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("count", [2, 3, 31])
def test_the_metrics_are_one_set_whatever_the_number_of_classes(count: int) -> None:
    label, probability = np.arange(93) % count, RNG.dirichlet(np.ones(count), 93)
    names = [f"class {at}" for at in range(count)]
    found = classification(label, probability, names)(None)
    assert set(found) == {*METRICS, *(f"f1:{name}" for name in names if count <= 30)}
    spared = classification(label, probability, names, only=["accuracy"])(None)
    assert set(found) - set(spared) == (RANKED if count > 2 else set())
    assert {name: found[name] for name in spared} == spared
    assert finite(found) == found


@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("positive", [0, 1])
def test_two_classes_have_what_either_kind_had(weight: np.ndarray | None, positive: int) -> None:
    label = POSITIVE.astype(int)
    both = np.column_stack([1 - SCORE, SCORE])
    rule = Rule(0.3, 2.0, 5.0)
    found = classification(label, both, ["a", "b"], rule, positive)(weight)
    old = binary(label == positive, both[:, positive], rule)(weight)
    assert {name: found[name] for name in old} == old
    predicted = np.where(both[:, positive] >= 0.3, positive, 1 - positive)
    f1 = reference.f1_score(label, predicted, average=None, sample_weight=weight)
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(label, predicted, sample_weight=weight))
    assert [found["f1:a"], found["f1:b"], found["macro_f1"]] == pytest.approx([*f1, f1.mean()])
    several = multiclass(label, both, ["a", "b"])(weight)
    for name in ("brier", "log_loss"):
        assert several[name] == pytest.approx(found[name])


def test_a_label_that_the_model_does_not_know_is_wrong_of_two_classes_too() -> None:
    found = classification(np.array([0, -1]), np.array([[0.9, 0.1], [0.9, 0.1]]), ["a", "b"])(None)
    assert found["accuracy"] == 0.5


def test_classes_that_no_row_has_count_in_no_mean() -> None:
    found = multiclass(np.array([0, 1, 0]), np.array([[0.9, 0.1, 0], [0.2, 0.8, 0], [0, 0.1, 0.9]]), ["a", "b", "c"])
    values = found(None)
    assert (values["roc_auc"], values["recall"], values["precision"]) == (0.75, 0.75, 1.0)
    alone = multiclass(np.zeros(3, dtype=int), np.full((3, 3), 1 / 3), ["a", "b", "c"])(None)
    assert np.isnan(alone["roc_auc"])
    assert alone["average_precision"] == 1


def test_calibration_error_is_zero_for_the_truth_and_large_for_overconfidence() -> None:
    outcome = np.tile([True, False, False, False], 250)
    assert binary(outcome, np.full(1000, 0.25), Rule())(None)["ece"] == pytest.approx(0)
    assert binary(outcome, np.full(1000, 0.95), Rule())(None)["ece"] == pytest.approx(0.7)


def said_too_much(seed: int, rows: int, off: float) -> Any:
    """Measures of probabilities that are `off` from the truth, towards the ends."""
    rng = np.random.default_rng(seed)
    said = rng.beta(0.6, 3, rows)
    return binary(rng.random(rows) < np.clip(said + off * np.sign(0.5 - said), 0, 1), said, Rule())


@given(st.integers(0, 2**31), st.integers(2, 400), st.floats(0, 0.4))
def test_a_calibration_error_lies_in_its_interval(seed: int, rows: int, off: float) -> None:
    measure = said_too_much(seed, rows, off)
    low, high = bootstrap(measure, rows, seed, rounds=20)["ece"]
    assert 0 <= low <= measure(None)["ece"] <= high


def test_the_interval_of_a_perfect_models_calibration_error_begins_at_zero() -> None:
    """By percentiles alone it never did, and the value of the rows themselves lay below it."""
    found = [bootstrap(said_too_much(seed, 300, 0.0), 300, seed, rounds=100)["ece"] for seed in range(40)]
    assert sum(low == 0 for low, _ in found) >= 32
    wide = [bootstrap(said_too_much(seed, 300, 0.3), 300, seed, rounds=100)["ece"] for seed in range(20)]
    assert all(low > 0.1 for low, _ in wide)


def test_a_difference_of_calibration_errors_lies_in_its_interval() -> None:
    for seed in range(10):
        right, wrong = (said_too_much(seed, 300, off) for off in (0.0, 0.05))
        interval = paired_bootstrap(right, wrong, "ece", np.arange(300), seed, rounds=50)
        assert interval is not None
        assert interval[0] <= right(None)["ece"] - wrong(None)["ece"] <= interval[1]


def test_measures_that_are_not_defined_are_left_out() -> None:
    found = finite(binary(np.zeros(5, dtype=bool), np.linspace(0, 0.4, 5), Rule())(None))
    assert "average_precision" not in found
    assert "precision" not in found
    assert found["brier"] == pytest.approx(0.06)
    assert np.isnan(auc(np.ones(3), np.arange(3.0)))


def test_an_unknown_class_counts_as_wrong() -> None:
    found = multiclass(np.array([0, -1]), np.array([[0.9, 0.1], [0.9, 0.1]]), ["a", "b"])(None)
    assert found["accuracy"] == 0.5


def test_bootstrap_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    covered = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        outcome = rng.random(300) < 0.3
        measure = multiclass(outcome.astype(int), np.tile([0.9, 0.1], (300, 1)), ["a", "b"], per_class=False)
        low, high = bootstrap(measure, 300, seed, rounds=100)["accuracy"]
        covered += low <= 0.7 <= high
    assert 51 <= covered <= 60


def test_bootstrap_is_repeatable() -> None:
    measure = binary(POSITIVE, SCORE, Rule())
    assert bootstrap(measure, 500, 1) == bootstrap(measure, 500, 1)
    assert bootstrap(measure, 500, 1) != bootstrap(measure, 500, 2)


def _right(share: Any) -> Any:
    """A measure of which only the share of right answers is asked; `share` is 1 for each right row."""
    return lambda weight: {"accuracy": float(np.average(share, weights=weight))}


def test_the_interval_of_a_paired_difference_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    covered, widths = 0, []
    for trial in range(150):
        hard = rng.random(200)  # a row that is hard for one model is hard for the other
        models = [(hard < ability + rng.normal(0, 0.05, 200)).astype(float) for ability in (0.75, 0.8)]
        found = paired_bootstrap(_right(models[0]), _right(models[1]), "accuracy", np.arange(200), trial, rounds=200)
        assert found is not None
        covered += found[0] <= -0.05 <= found[1]
        widths.append(found[1] - found[0])
    assert 0.88 <= covered / 150 <= 1.0
    assert np.mean(widths) < 0.8 * 2 * 1.96 * np.sqrt((0.75 * 0.25 + 0.8 * 0.2) / 200)  # narrower than unpaired


def test_copies_of_rows_make_no_interval_narrower() -> None:
    rng = np.random.default_rng(5)
    a, b = (rng.random(60) < 0.7).astype(float), (rng.random(60) < 0.7).astype(float)
    once = paired_bootstrap(_right(a), _right(b), "accuracy", np.arange(60), 1, rounds=2000)
    groups = np.repeat(np.arange(60), 25)
    copied = paired_bootstrap(_right(np.repeat(a, 25)), _right(np.repeat(b, 25)), "accuracy", groups, 1, rounds=2000)
    assert copied == pytest.approx(once)


@given(st.integers(2, 60), st.integers(0, 99))
def test_a_model_does_not_differ_from_itself(rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    probability, positive = rng.random(rows), rng.random(rows) < 0.5
    positive[:2] = [True, False]
    measure = binary(positive, probability, Rule())
    for metric in ("average_precision", "roc_auc", "brier", "log_loss", "ece"):
        assert paired_bootstrap(measure, measure, metric, np.arange(rows), seed, rounds=20) in (None, (0.0, 0.0))


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_measures_of_a_scale_agree_with_scikit_learn(weight: np.ndarray | None) -> None:
    label, predicted = RNG.integers(0, 5, 500), RNG.integers(0, 5, 500)
    found = on_scale(label, predicted, 5)(weight)
    kappa = reference.cohen_kappa_score(label, predicted, weights="quadratic", sample_weight=weight)
    assert found["quadratic_kappa"] == pytest.approx(kappa)
    assert found["rank_error"] == pytest.approx(np.average(abs(label - predicted), weights=weight))
    assert on_scale(label, label, 5)(weight) == {"quadratic_kappa": 1.0, "rank_error": 0.0}


def test_classes_that_are_a_scale_have_its_measures_and_a_gate_may_name_them() -> None:
    evaluation = get_evaluation("classification")
    frame = pd.DataFrame({"label": ["1", "2", "3", "3"]})
    answers = np.eye(3)[[0, 1, 2, 0]]
    ordered, plain = (ClassificationOutput(classes=["1", "2", "3"], ordered=flag) for flag in (True, False))
    scale = evaluation.measure_for(frame, answers, ordered, None)(None)
    assert scale["rank_error"] == 0.5
    assert [evaluation.higher_is_better(name) for name in ("quadratic_kappa", "rank_error")] == [True, False]
    assert evaluation.measure_for(frame, answers, plain, None)(None).items() < scale.items()
    names = [evaluation.metric_names(SimpleNamespace(classes=None, ordered=flag), None) for flag in (True, False)]
    assert [each.has("quadratic_kappa") for each in names] == [True, False]

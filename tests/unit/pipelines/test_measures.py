"""Quality measures agree with scikit-learn, with weights too, and intervals cover what they should."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from pipelines.steps.measures import Rule, auc, binary, bootstrap, finite, multiclass

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


def test_calibration_error_is_zero_for_the_truth_and_large_for_overconfidence() -> None:
    outcome = np.tile([True, False, False, False], 250)
    assert binary(outcome, np.full(1000, 0.25), Rule())(None)["ece"] == pytest.approx(0)
    assert binary(outcome, np.full(1000, 0.95), Rule())(None)["ece"] == pytest.approx(0.7)


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

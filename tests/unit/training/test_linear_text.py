"""The linear text classifier and its calibration."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from pipelines.training.calibration import fit_temperature
from pipelines.training.linear_text import Chosen, LinearConfig, choose, class_weight, fit, tfidf

COUNTS = sparse.csr_matrix(np.array([[3, 0, 1], [2, 0, 0], [0, 4, 1], [0, 1, 0], [0, 2, 2], [1, 0, 1]], np.float32))
LABELS = np.array([0, 0, 1, 1, 1, 0])


def test_tfidf_equals_sklearn() -> None:
    from sklearn.feature_extraction.text import TfidfTransformer

    theirs = TfidfTransformer(sublinear_tf=True).fit(COUNTS)
    np.testing.assert_allclose(tfidf(COUNTS, theirs.idf_).toarray(), theirs.transform(COUNTS).toarray(), atol=1e-6)


def test_an_empty_row_scores_the_bias() -> None:
    model = fit(COUNTS, LABELS, 2, Chosen(1.0, 0.5), LinearConfig())
    empty = sparse.csr_matrix((1, 3), dtype=np.float32)
    np.testing.assert_allclose(model.scores(empty)[0], model.bias)
    assert (model.scores(COUNTS).argmax(axis=1) == LABELS).all()


def test_a_class_without_rows_is_never_chosen() -> None:
    model = fit(COUNTS, LABELS, 3, Chosen(1.0, 0.5), LinearConfig())
    assert (model.scores(COUNTS).argmax(axis=1) == LABELS).all()


def test_class_weights_make_classes_count_alike() -> None:
    labels = np.array([0] * 9 + [1])
    weight = class_weight(labels, 2)[labels]
    assert weight[:9].sum() == pytest.approx(weight[9])
    assert weight.mean() == pytest.approx(1.0)


def test_cross_validation_keeps_a_text_in_one_fold_and_repeats_itself() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    # Pure noise, every text twice: only a text that is trained on and scored could be told apart.
    noise = sparse.csr_matrix(np.repeat(rng.integers(0, 2, (30, 200)), 2, axis=0).astype(np.float32))
    labels = np.repeat(rng.integers(0, 2, 30), 2)
    groups = [str(at // 2) for at in range(60)]
    config = LinearConfig(strengths=(0.5,), folds=3)
    seen: list[int] = []
    first = choose(noise, labels, groups, 2, config, 1, lambda done, total, **metrics: seen.append(done))
    again = choose(noise, labels, groups, 2, config, 1, lambda *args, **metrics: None)
    assert first[2][0]["accuracy"] < 0.8
    np.testing.assert_array_equal(first[1], again[1])
    assert seen == [1]


def test_the_ratio_power_is_the_best_of_its_candidates_with_the_best_strength() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    counts = rng.poisson(0.4, (200, 60)) + (rng.random((200, 60)) < 0.25) * (labels[:, None] == np.arange(60) % 7)
    config = LinearConfig(strengths=(0.01, 1.0), ratio_powers=(0.0, 3.0, 0.5), folds=4)
    asked = [(0.01, 0.0), (1.0, 0.0)]
    groups = [str(row) for row in range(200)]
    given = sparse.csr_matrix(counts.astype(np.float32)), labels, groups, 2
    chosen, scores, history = choose(*given, config, 1, lambda *args, **metrics: None)
    best = max(history[:2], key=lambda one: one["accuracy"])["strength"]
    assert [(one["strength"], one["ratio_power"]) for one in history] == [*asked, (best, 3.0), (best, 0.5)]
    top = max(history, key=lambda one: one["accuracy"])
    assert (chosen.strength, chosen.ratio_power) == (top["strength"], top["ratio_power"])
    assert (scores.argmax(axis=1) == labels).mean() == top["accuracy"]
    turned = LinearConfig(strengths=(chosen.strength,), ratio_powers=(chosen.ratio_power,), folds=4)
    np.testing.assert_array_equal(choose(*given, turned, 1, lambda *args, **metrics: None)[1], scores)


def test_temperature_finds_the_scale_of_the_truth() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(20_000, 3))
    chance = np.exp(2.5 * scores) / np.exp(2.5 * scores).sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(3, p=p) for p in chance])
    assert fit_temperature(scores, labels) == pytest.approx(2.5, rel=0.05)


def test_temperature_of_separable_scores_stays_finite() -> None:
    assert np.isfinite(fit_temperature(np.eye(3), np.arange(3)))


def test_with_vectors_the_fit_is_that_of_liblinear() -> None:
    from sklearn.svm import LinearSVC

    rng = np.random.default_rng(1)
    counts = sparse.csr_matrix(rng.poisson(0.5, (300, 40)).astype(np.float32))
    vectors = rng.normal(size=(300, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = (counts.toarray()[:, :3] + vectors[:, :3] * 2 + rng.normal(size=(300, 3))).argmax(axis=1)
    model = fit(counts, labels, 4, Chosen(0.5, 0.0), LinearConfig(), vectors)  # of the fourth class there is no row
    features = np.concatenate([tfidf(counts, model.idf).toarray(), vectors], axis=1)
    weight = class_weight(labels, 4)[labels]
    theirs = [
        LinearSVC(C=0.5, tol=1e-8, max_iter=100_000).fit(features, labels == at, sample_weight=weight)
        for at in range(3)
    ]
    expected = np.stack([one.decision_function(features) for one in theirs], axis=1)
    found = model.scores(counts, vectors)
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.99
    for one, other in ((0, 1), (0, 2)):  # what all classes share is taken away
        np.testing.assert_allclose(found[:, one] - found[:, other], expected[:, one] - expected[:, other], atol=0.02)

"""Counters of a version, as its server exports them and as a rollout compares them."""

from __future__ import annotations

import pytest

from services.metrics.service_metrics import ServiceMetrics
from services.problems.classification import SERVING
from services.rollout.observation import Counts, read_counts


def exported() -> Counts:
    metrics = ServiceMetrics("model", "1", ("/predict",))
    metrics.predicting(["a", "b"], (), SERVING.distribution(None, ()))  # type: ignore[arg-type]
    for route, status, seconds in (
        ("/predict", 200, 0.004),
        ("/predict", 500, 0.2),
        ("/predict", 429, 0.001),
        ("/v2/models/{name}/infer", 422, 0.001),
        ("/metrics", 500, 1.0),
        ("/v2/health/ready", 503, 1.0),
        ("<unmatched>", 404, 1.0),
    ):
        metrics.answered(route, status, seconds)
    metrics.labels["a"].inc()
    metrics.observed.observe(0.35)
    metrics.flagged.inc()
    return read_counts(metrics.render()[0].decode(), unreached=3)


def test_what_a_server_exports_is_read_without_what_says_nothing_about_the_model() -> None:
    counts = exported()
    assert (counts.requests, counts.errors, counts.refusals, counts.unreached) == (4, 2, 1, 3)
    assert counts.latency["0.005"] == 3
    assert counts.seconds == pytest.approx(0.206)
    assert counts.labels == {"a": 1, "b": 0}
    assert (counts.scores["0.3"], counts.scores["0.4"], counts.predictions, counts.flagged) == (0, 1, 1, 1)


def test_counters_that_began_again_are_counted_from_nothing() -> None:
    before = Counts(requests=100, errors=9, unreached=4, latency={"0.1": 80}, labels={"a": 100})
    after = Counts(requests=7, errors=1, unreached=5, latency={"0.1": 6}, labels={"a": 7})
    grown = after.since(before)
    assert (grown.requests, grown.errors, grown.unreached) == (7, 1, 1)
    assert (grown.latency, grown.labels) == ({"0.1": 6}, {"a": 7})
    assert before.plus(grown).labels == {"a": 107}

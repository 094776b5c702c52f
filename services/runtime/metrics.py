"""Prometheus metrics of one process; names, labels and buckets come from contracts.metrics."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

# `bentoml serve` sets this for several workers per service. We run one, and values in memory cost a tenth of
# values in files; prometheus_client decides when it is imported.
os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from contracts import metrics as names

disable_created_metrics()  # a second series for each one, of no use to rules or dashboards
STATUSES = ("PRESENT", "NOT_FOUND", "OUTSIDE_MAX_AGE")
_CODES = ("200", "400", "422", "429", "500", "503", "504")


class ServiceMetrics:
    """The metrics of one served model; every label set that is known beforehand exists from the start."""

    def __init__(self, model: str, version: str, busy_routes: Iterable[str] = ()) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._model, self._version = model, version
        self._requests = self._counter(names.REQUESTS, "Requests answered, by route template and HTTP status.")
        self._seconds = self._histogram(names.REQUEST_SECONDS, "Time from request to answer.", names.LATENCY_BUCKETS)
        stages = self._histogram(names.STAGE_SECONDS, "Time per stage of a prediction.", names.LATENCY_BUCKETS)
        self.stage = {stage: stages.labels(model, stage) for stage in names.STAGES}
        self.inflight = self._gauge(names.INFLIGHT, "Requests being answered.").labels(model)
        self._predictions = self._counter(names.PREDICTIONS, "Predictions by label.")
        score = self._histogram(
            names.SCORE, "Probability of the positive, else of the predicted class.", names.SCORE_BUCKETS
        )
        self.score = score.labels(model, version)
        self._age = self._histogram(names.FEATURE_AGE, "Age of online features when read.", names.AGE_BUCKETS)
        self._status = self._counter(names.FEATURE_STATUS, "Online feature reads by outcome.")
        self._info = self._gauge(names.MODEL_INFO, "The served model; always 1.")
        self.load_seconds = self._gauge(names.MODEL_LOAD_SECONDS, "Time to verify, load and replay the model.")
        self._answers: dict[tuple[str, int], Counter] = {}
        self._durations: dict[str, Histogram] = {}
        self.labels: dict[str, Counter] = {}
        for route in busy_routes:
            self._durations[route] = self._seconds.labels(model, version, route)
            for code in _CODES:
                self._requests.labels(model, version, route, code)

    def loaded(self, classes: Sequence[str], views: Iterable[str], digest: str, recipe: str, seconds: float) -> None:
        """Create the label sets that the bundle determines."""
        self.labels = {label: self._predictions.labels(self._model, self._version, label) for label in classes}
        self.age = {view: self._age.labels(self._model, view) for view in views}
        self.status = {
            view: {status: self._status.labels(self._model, view, status) for status in STATUSES} for view in self.age
        }
        self._info.labels(self._model, self._version, digest[:12], recipe).set(1)
        self.load_seconds.labels(self._model).set(seconds)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count one answered request; `route` is a template, so that both labels are bounded."""
        key = (route, status)
        counter = self._answers.get(key)
        if counter is None:
            counter = self._answers[key] = self._requests.labels(self._model, self._version, route, str(status))
            self._durations.setdefault(route, self._seconds.labels(self._model, self._version, route))
        counter.inc()
        self._durations[route].observe(seconds)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The exposition and its media type, OpenMetrics when the scraper asks for it."""
        if "application/openmetrics-text" in accept:
            return openmetrics.generate_latest(self.registry), openmetrics.CONTENT_TYPE_LATEST
        return generate_latest(self.registry), CONTENT_TYPE_LATEST

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, names.LABELS[name], registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, names.LABELS[name], registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(name, text, names.LABELS[name], buckets=buckets, registry=self.registry)

"""Prometheus metrics of one process; names, labels and buckets come from contracts.metric_names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from contracts import metric_names as names
from services.metrics.exposition import expose
from services.metrics.series import Count, Counter, Histogram, Series
from services.problems.base import Distribution

disable_created_metrics()  # a second series for each one, of no use to rules or dashboards
STATUSES = ("PRESENT", "NOT_FOUND", "OUTSIDE_MAX_AGE", "UNAVAILABLE")
_CODES = ("200", "400", "401", "408", "422", "429", "500", "503", "504")


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
        flagged = self._counter(names.FLAGGED, "Predictions with flags.")
        self.flagged = flagged.labels(model, version)
        abstained = self._counter(names.ABSTENTIONS, "Predictions of which the model abstains.")
        self.abstained = abstained.labels(model, version)
        self.observed = Series(())  # exported when the problem has a distribution of answers
        self._age = self._histogram(names.FEATURE_AGE, "Age of online features when read.", names.AGE_BUCKETS)
        self._status = self._counter(names.FEATURE_STATUS, "Online feature reads by outcome.")
        self.queue_depth = self._gauge(names.QUEUE_DEPTH, "Requests that wait for a thread.").labels(model)
        self._rows = self._histogram(names.BATCH_ROWS, "Rows per model call.", names.ROW_BUCKETS).labels(model)
        tokens = self._histogram(names.BATCH_TOKENS, "Tokens per model call, without padding.", names.TOKEN_BUCKETS)
        self._tokens = tokens.labels(model)
        padding = self._histogram(names.PADDING, "Share of padding in a model call's tokens.", names.RATIO_BUCKETS)
        self._padding = padding.labels(model)
        shed = self._counter(names.SHED, "Requests refused without asking the model.")
        self._shed = {reason: shed.labels(model, reason) for reason in names.SHED_REASONS}
        self.logged = self._counter(names.LOG_RECORDS, "Records in the prediction log.").labels(model)
        lost = self._counter(names.LOG_LOST, "Records that the prediction log could not keep.")
        self.lost = lost.labels(model)
        feedback = self._counter(names.FEEDBACK, "Labels and annotations that were posted, by what became of them.")
        self.feedback = {outcome: feedback.labels(model, outcome) for outcome in names.FEEDBACK_OUTCOMES}
        self.padded: Callable[[Sequence[int]], int] = sum
        self._info = self._gauge(names.MODEL_INFO, "The served model; always 1.")
        self.load_seconds = self._gauge(names.MODEL_LOAD_SECONDS, "Time to verify, load and replay the model.")
        self._counted: dict[tuple[str, int], Count] = {}
        self._durations: dict[str, Series] = {}
        self.labels: dict[str, Count] = {}
        for route in busy_routes:
            self._durations[route] = self._seconds.labels(model, version, route)
            for code in _CODES:
                self._requests.labels(model, version, route, code)

    def loaded(self, digest: str, recipe: str, seconds: float) -> None:
        """Say which bundle is served, and how long it took to load it."""
        self._info.labels(self._model, self._version, digest[:12], recipe).set(1)
        self.load_seconds.labels(self._model).set(seconds)

    def predicting(self, labels: Sequence[str], views: Iterable[str], answers: Distribution | None) -> None:
        """Create the label sets of predictions, of look-ups in feature views, and the histogram of answers."""
        if answers is not None:
            histogram = self._histogram(answers.name, answers.text, answers.edges)
            self.observed = histogram.labels(self._model, self._version)
        self.labels = {label: self._predictions.labels(self._model, self._version, label) for label in labels}
        self.age = {view: self._age.labels(self._model, view) for view in views}
        self.status = {
            view: {status: self._status.labels(self._model, view, status) for status in STATUSES} for view in self.age
        }

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count one answered request; `route` is a template, so that both labels are bounded."""
        key = (route, status)
        counter = self._counted.get(key)
        if counter is None:
            counter = self._counted[key] = self._requests.labels(self._model, self._version, route, str(status))
            self._durations.setdefault(route, self._seconds.labels(self._model, self._version, route))
        counter.inc()
        self._durations[route].observe(seconds)

    def shed(self, reason: str) -> None:
        """Count a request that was refused without asking the model."""
        self._shed[reason].inc()

    def batched(self, waits: Sequence[float], rows: int, lengths: Sequence[int]) -> None:
        """Observe a batch that leaves for the model, see `services.batching.queue_items.Observer`."""
        queue = self.stage["queue"]
        for wait in waits:
            queue.observe(wait)
        self._rows.observe(rows)
        if lengths:
            tokens = sum(lengths)
            self._tokens.observe(tokens)
            self._padding.observe(1 - tokens / max(1, self.padded(lengths)))

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The exposition in the format that the scraper's ``accept`` header asks for, and its content type."""
        return expose(self.registry, accept)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, names.LABELS[name], self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, names.LABELS[name], registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(name, text, names.LABELS[name], buckets, self.registry)

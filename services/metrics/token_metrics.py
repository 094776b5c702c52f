"""Metrics of models that write token by token."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import Gauge

from contracts import metric_names as names
from services.metrics.series import Counter, Histogram
from services.metrics.service_metrics import ServiceMetrics


class TokenMetrics:
    """What one model has read and written; shown among the metrics of its service."""

    def __init__(
        self, metrics: ServiceMetrics, model: str, version: str, slots: int, rules: Sequence[str] = ()
    ) -> None:
        registry, label = metrics.registry, (model, version)

        def counter(name: str, text: str) -> Counter:
            return Counter(name, text, names.TOKEN_LABELS[name], registry)

        def histogram(name: str, text: str) -> Histogram:
            return Histogram(name, text, names.TOKEN_LABELS[name], names.TOKEN_SECONDS_BUCKETS, registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, names.TOKEN_LABELS[name], registry=registry)

        first, between = names.FIRST_TOKEN_SECONDS, names.TOKEN_SECONDS
        self.first = histogram(first, "Time from request to the first token.").labels(*label)
        self.between = histogram(between, "Time between two tokens of an answer.").labels(*label)
        self.read = counter(names.PROMPT_TOKENS, "Tokens of prompts.").labels(*label)
        self.cached = counter(names.CACHED_TOKENS, "Tokens of prompts that a slot had read before.").labels(*label)
        self.written = counter(names.ANSWER_TOKENS, "Tokens of answers.").labels(*label)
        ended = counter(names.GENERATIONS, "Answers by how they ended.")
        self.ended = {finish: ended.labels(*label, finish) for finish in names.FINISHES}
        held = counter(names.GUARD_HITS, "Rules of the guard that held, in what was said and in answers.")
        sides = [(side, rule) for side in names.GUARD_SIDES for rule in rules]
        self.guarded = {(side, rule): held.labels(*label, side, rule) for side, rule in sides}
        self.busy = gauge(names.SLOTS_BUSY, "Slots that write an answer.").labels(model)
        gauge(names.SLOTS, "Answers that are written together, at most.").labels(model).set(slots)

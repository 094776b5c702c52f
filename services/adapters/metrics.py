"""Metrics of adapters, beside those of every model server; names come from contracts.metric_names."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge

from contracts import metric_names as names
from services.metrics.series import Counter


class AdapterMetrics:
    """The metrics of one served model's adapters; every label set exists from the start."""

    def __init__(self, model: str, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str) -> Counter:
            return Counter(name, text, names.ADAPTER_LABELS[name], registry)

        held = Gauge(names.ADAPTERS_HELD, "Adapters in memory.", names.ADAPTER_LABELS[names.ADAPTERS_HELD],
                     registry=registry)  # fmt: skip
        self.held = held.labels(model)
        reads = counter(names.ADAPTER_READS, "Adapters that were asked for, by where they came from.")
        self.reads = {outcome: reads.labels(model, outcome) for outcome in names.ADAPTER_OUTCOMES}
        self.evicted = counter(names.ADAPTERS_EVICTED, "Adapters that left memory for others.").labels(model)
        updates = counter(names.ADAPTER_UPDATES, "Feedback to adapters, by what became of it.")
        self.updates = {outcome: updates.labels(model, outcome) for outcome in names.ADAPTER_UPDATE_OUTCOMES}

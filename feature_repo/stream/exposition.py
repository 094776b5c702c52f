"""What the consumer counts, as Prometheus metrics."""

from __future__ import annotations

import time
from collections.abc import Set

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from contracts import metric_names as names
from feature_repo.stream.pushing import Outcome

_EVERY = 1.0  # seconds from one look at the lag to the next
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Figures:
    """The metrics of one consumer, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = names.STREAM_LABELS
        self._rows = Counter(
            names.STREAM_ROWS, "Messages, by what became of them.", labels[names.STREAM_ROWS], registry=self.registry
        )
        self._lag = Gauge(
            names.STREAM_LAG, "Messages that are not pushed yet.", labels[names.STREAM_LAG], registry=self.registry
        )
        self._moment = Gauge(
            names.STREAM_NEWEST, "When the newest message that is pushed was written.",
            labels[names.STREAM_NEWEST], registry=self.registry,
        )  # fmt: skip
        self._push = Histogram(
            names.STREAM_PUSH, "Time of a push.", labels[names.STREAM_PUSH], buckets=_SECONDS, registry=self.registry
        )
        self._failures = Counter(
            names.STREAM_FAILURES, "Pushes that failed because a store was away.",
            labels[names.STREAM_FAILURES], registry=self.registry,
        )  # fmt: skip
        self._up = Gauge(names.STREAM_UP, "1 while a broker answers.", registry=self.registry)
        self._places: set[tuple[str, int]] = set()
        self._next = 0.0

    def pushed(self, topic: str, done: Outcome, seconds: float, moment: int) -> None:
        """A batch is written; `moment` is the newest of its messages in ms since 1970, or less than 0."""
        for outcome, count in (
            ("pushed", done.pushed),
            ("refused", len(done.refused)),
            ("tombstone", done.tombstones),
        ):
            self._rows.labels(topic, outcome).inc(count)
        self._push.labels(topic).observe(seconds)
        if moment >= 0:
            self._moment.labels(topic).set(moment / 1000)

    def failed(self, topic: str) -> None:
        """A store took nothing."""
        self._failures.labels(topic).inc()

    def totals(self) -> tuple[int, int, int]:
        """Rows pushed and messages refused so far, and messages that wait, of all topics."""
        found = [sample for family in self.registry.collect() for sample in family.samples]

        def of(name: str, **labels: str) -> int:
            return int(sum(one.value for one in found if one.name == name and labels.items() <= one.labels.items()))

        pushed, refused = (of(names.STREAM_ROWS, outcome=outcome) for outcome in ("pushed", "refused"))
        return pushed, refused, of(names.STREAM_LAG)

    def due(self) -> bool:
        """Whether it is time to look at the lag."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + _EVERY
        return True

    def lag(self, topic: str, partition: int, messages: int) -> None:
        """Messages of a partition behind its end."""
        self._places.add((topic, partition))
        self._lag.labels(topic, str(partition)).set(messages)

    def only(self, places: Set[tuple[str, int]]) -> None:
        """End the series of partitions that another member reads."""
        for topic, partition in self._places - places:
            self._lag.remove(topic, str(partition))
        self._places &= places

    def up(self, answers: bool) -> None:
        """Whether any broker answers."""
        self._up.set(float(answers))

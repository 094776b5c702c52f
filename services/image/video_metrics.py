"""Metrics of streams of frames, beside those that every service has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Gauge

from contracts import metric_names as names
from services.metrics.series import Counter, Histogram

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class VideoMetrics:
    """The series of one served model; all exist from the start."""

    def __init__(self, model: str, version: str, registry: CollectorRegistry) -> None:
        labels = names.VIDEO_LABELS
        frames = Counter(names.VIDEO_FRAMES, "Frames received.", labels[names.VIDEO_FRAMES], registry)
        self.frames = {outcome: frames.labels(model, version, outcome) for outcome in names.VIDEO_OUTCOMES}
        tracks = Counter(names.VIDEO_TRACKS, "Objects that were followed.", labels[names.VIDEO_TRACKS], registry)
        self.tracks = tracks.labels(model, version)
        events = Counter(names.VIDEO_EVENTS, "What happened at zones and lines.", labels[names.VIDEO_EVENTS], registry)
        self.events = {kind: events.labels(model, version, kind) for kind in names.VIDEO_EVENT_KINDS}
        text = "Time from a frame's arrival to its answer."
        lag = Histogram(names.VIDEO_LAG, text, labels[names.VIDEO_LAG], names.LATENCY_BUCKETS, registry)
        self.lag = lag.labels(model, version)
        streams = Gauge(names.VIDEO_STREAMS, "Streams that are open.", labels[names.VIDEO_STREAMS], registry=registry)
        self.streams = streams.labels(model)

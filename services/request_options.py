"""Options of a request: its deadline and its priority, and what its API key lets it read."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from time import perf_counter

PRIORITIES = {"high": -1.0, "normal": 0.0, "low": 1.0}


@dataclass(kw_only=True, slots=True)
class RequestOptions:
    """When a request must be answered, when it arrived, both by `time.perf_counter`, and its priority.

    The priority is one of the values of `PRIORITIES`, and `labels` are those of `services.server.auth.Holder`.
    """

    deadline: float = math.inf
    priority: float = 0.0
    arrived: float = field(default_factory=perf_counter)
    labels: frozenset[str] | None = None

"""Options that a client gives with a request: its deadline and its priority."""

from __future__ import annotations

import math
from dataclasses import dataclass

PRIORITIES = {"high": -1.0, "normal": 0.0, "low": 1.0}


@dataclass(kw_only=True, slots=True)
class RequestOptions:
    """When a request must be answered, by `time.perf_counter`, and its priority, one of the values of `PRIORITIES`."""

    deadline: float = math.inf
    priority: float = 0.0

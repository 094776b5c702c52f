"""Options of a request: its deadline and its priority, and whose API key it came with."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from time import perf_counter

PRIORITIES = {"high": -1.0, "normal": 0.0, "low": 1.0}


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Whose API key it is, and whether that one may do more than ask and look.

    labels: which documents it may read, of those that have labels; None: a request says so itself, and is believed.
    """

    name: str
    operator: bool = False
    labels: frozenset[str] | None = None


@dataclass(kw_only=True, slots=True)
class RequestOptions:
    """When a request must be answered, when it arrived, both by `time.perf_counter`, and its priority.

    The priority is one of the values of `PRIORITIES`, and `holder` has the API key; None where none is asked for.
    """

    deadline: float = math.inf
    priority: float = 0.0
    arrived: float = field(default_factory=perf_counter)
    holder: Holder | None = None

    @property
    def labels(self) -> frozenset[str] | None:
        """See `Holder`."""
        return self.holder.labels if self.holder is not None else None

"""How far rows are from usual ones, by the model's own vector; for the log, whose thread measures few of them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

import numpy as np

from contracts.content import Traits, distance
from services.logs import log_event

_SECONDS = 0.5  # from one to the next: each is a run of the model beside those of requests
_PAUSE = 20  # at least so many times as long as the run took, which is a twentieth of a core


class Distances:
    """The distance of rows of one input, at most two a second of a process.

    Args:
        vector: of a row, see `contracts.engine.VectorEngine`.  center: of length one, as wide.
    """

    def __init__(self, vector: Callable[[Any], Any], center: Any) -> None:
        self._vector, self._center = vector, np.asarray(center, dtype=np.float64)
        self._asked, self._next = -math.inf, -math.inf

    @classmethod
    def of_inputs(cls, vector: Callable[[Any], Any], normal: Mapping[str, Any]) -> dict[str, Distances]:
        """Of each input whose entry in the baseline has a ``center``, by name."""
        return {name: cls(vector, one["center"]) for name, one in normal.items() if one.get("center")}

    def is_due(self) -> bool:
        """Whether a row is to be measured now; then none is until that is done. Called where records are added."""
        now = monotonic()
        if now < self._next:
            return False
        self._asked, self._next = now, math.inf
        return True

    def __call__(self, row: Any) -> Traits:
        """The trait of a row, by a run of the model; the first one that fails is the last, and says so."""
        begun = monotonic()
        try:
            found = distance(self._vector(row), self._center)
        except Exception as err:  # noqa: BLE001 - the log goes on without: none is due any more
            log_event("distance_failed", logging.WARNING, error=f"{type(err).__name__}: {err}"[:300])
            return {}
        now = monotonic()
        self._next = max(self._asked + _SECONDS, now + _PAUSE * (now - begun))
        return found

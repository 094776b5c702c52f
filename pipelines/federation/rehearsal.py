"""Sites that misbehave, to rehearse what a federation does about them: ``federation.faults`` of a simulation."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipelines.federation.learner import learned
from pipelines.federation.messages import Message
from pipelines.federation.site import Site

_STRONGER = 5.0


class _Drops(Site):
    """Its process ends in the third round."""

    rounds = 0

    def update(self, *given: Any) -> Any:
        self.rounds += 1
        if self.rounds == 3:
            os._exit(1)
        return super().update(*given)


class _Late(Site):
    """It answers after the deadline, each time."""

    def answer(self, request: Message) -> Message:
        if request.document.get("ask") == "learn":
            time.sleep(1.2 * float(request.document["deadline"]))
        return super().answer(request)


class _Nan(Site):
    """It sends what is no number."""

    def update(self, *given: Any) -> Any:
        found = super().update(*given)
        found[0] = np.nan
        return found


class _Shape(Site):
    """It sends an update of other weights."""

    def update(self, *given: Any) -> Any:
        return super().update(*given)[:-1]


class _Schema(Site):
    """It has another schema."""

    def about(self) -> dict[str, Any]:
        found = super().about()
        return {**found, "inputs": [{**found["inputs"][0], "name": "another"}, *found["inputs"][1:]]}


class _Sign(Site):
    """It wants to undo what the others learn."""

    def update(self, *given: Any) -> Any:
        return -_STRONGER * super().update(*given)


class _Flip(Site):
    """It learns the wrong labels."""

    def update(self, weights: Any, seen: Any, how: Any, seed: Any) -> Any:
        return learned(self.model, weights, seen, len(self.classes) - 1 - self.part("train").y, how, seed)


FAULTS: Mapping[str, type[Site]] = {
    "drop": _Drops,
    "late": _Late,
    "nan": _Nan,
    "shape": _Shape,
    "schema": _Schema,
    "sign": _Sign,
    "flip": _Flip,
}

"""How often the log's thread runs the model to say how far a row is from usual ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from services.model import distances
from services.model.distances import Distances


def test_at_most_two_rows_a_second_are_measured_and_a_twentieth_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, takes = [0.0], 0.001
    monkeypatch.setattr(distances, "monotonic", lambda: clock[0])

    def vector(row: Any) -> Any:
        clock[0] += takes
        return np.array([1.0])

    found = Distances(vector, [1.0])
    measured = 0
    for _ in range(1_000):
        clock[0] += 0.01
        if found.is_due():
            assert not found.is_due(), "one at a time"
            found(None)
            measured += 1
    assert 18 <= measured <= 21
    takes = 1.0
    clock[0] += 1
    assert found.is_due()
    found(None)
    clock[0] += 19.9
    assert not found.is_due()
    clock[0] += 0.2
    assert found.is_due()

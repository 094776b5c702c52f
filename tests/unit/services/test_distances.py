"""How far rows are from usual ones: what the log says of them, and how often its thread runs the model for that."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.model import distances
from services.model.distances import Distances
from tests.unit.services.conftest import FakeEngine


class _Tokens(FakeEngine):
    """Knows three of four tokens, and has one vector for all rows."""

    unknown_id, has_vector = 0, True

    def tokenise(self, columns: Mapping[str, Any]) -> list[list[int]]:
        return [[0, 1, 2, 3] for _ in columns["title"]]

    def predict_ids(self, rows: Sequence[Sequence[int]]) -> Any:
        return np.tile([0.2, 0.5, 0.3], (len(rows), 1))

    def padded(self, lengths: Sequence[int]) -> int:
        return sum(lengths)

    def vector(self, row: Any) -> Any:
        assert row == [0, 1, 2, 3]
        return np.array([3.0, 4.0])


def test_what_a_service_says_of_the_tokens_of_texts_is_logged(
    serve_bundle: Any, make_text_bundle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").mkdir()
    normal = {"inputs": {"title": {"kind": "text", "center": [1.0, 0.0]}}}
    (tmp_path / "source" / "baseline.json").write_text(json.dumps(normal))
    bundle = make_text_bundle()
    monkeypatch.setattr("services.model.runtime.load_engine", lambda bundle, **_: _Tokens(bundle))
    served = serve_bundle(bundle, predictions={"folder": str(tmp_path / "log")})
    served.predict({"title": "a", "content": "b"})
    served.runtime.log.close()
    [file] = (tmp_path / "log").rglob("*.jsonl")
    told = json.loads(file.read_text())["inputs"]["title"]
    assert (told["unknown"], told["distance"]) == (0.25, 0.4)


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

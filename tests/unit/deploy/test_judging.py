"""Lists of the log become impressions, and say what another model would have earned."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.endpoints import Endpoints
from services.feedback import layout
from services.feedback.line_file import append
from services.feedback.records import Label, Prediction, line_of
from tests.problem_bundles import lists
from tests.unit.deploy.conftest import Said

NOW = datetime.now(UTC)


@pytest.fixture
def log(endpoints: Endpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model that exists since a day, and a log of 300 lists of its items, the last of which came today."""
    bundle = lists(tmp_path)
    created = (NOW - timedelta(days=1)).isoformat()
    lineage = bundle.document.lineage.model_copy(update={"created": created})
    object.__setattr__(bundle, "document", bundle.document.model_copy(update={"lineage": lineage}))
    version = SimpleNamespace(name="ranking", version="3")
    registry = SimpleNamespace(resolve=lambda ref: version, fetch=lambda ref: bundle)
    monkeypatch.setattr("contracts.registry.Registry", lambda endpoints: registry)
    write(endpoints.uri("predictions"))
    return endpoints.uri("predictions")


def write(folder: str, user: Any = None) -> None:
    rng, home = np.random.default_rng(1), Path(layout.home(folder, "ranking"))
    for number in range(300):
        at = NOW - timedelta(hours=40 - number / 8)
        items = rng.permutation(list("bcdef"))[:3].tolist()
        identifier = f"{int(at.timestamp() * 1000):012x}{number:020x}"
        known: dict[str, Any] = {
            "digest": "",
            "entities": {},
            "flags": (),
            "latency_ms": 1.0,
            "schema": 2,
            "inputs": {"user": user or f"p{number}"},
        }
        one = Prediction(
            id=identifier,
            time=at,
            model="ranking",
            version="2",
            answer={"items": items, "propensity": [0.2] * 3},
            **known,
        )
        day = f"{at:%Y-%m-%d}"
        append(home / f"{day}.a-1.jsonl", line_of(one))
        if "d" in items:
            append(home / "labels" / f"{day}.a-1.jsonl", line_of(Label(id=identifier, label=["d"], time=at)))


def test_lists_since_the_model_was_made_judge_it(log: str, fairlead: Callable[..., Said], tmp_path: Path) -> None:
    said = fairlead("predictions", "judge", "ranking:3", "--json", "--write", str(tmp_path / "shown.parquet"))
    assert said.code == 0, said.err
    document = said.json
    judged = document["judged"]
    assert (document["lists"], judged["lists"]) == (300, 172)
    shown = pd.read_parquet(tmp_path / "shown.parquet")
    young = shown[shown["time"] >= (NOW - timedelta(days=1)).timestamp()]
    assert judged["logged"]["value"] == pytest.approx(young.groupby("list")["clicked"].sum().mean())
    hits = (young["place"] == 2) & (young["item"] == "d") & young["clicked"]
    assert judged["ips"]["value"] == pytest.approx(hits.sum() / 0.2 / 172), "who is unknown gets a, d, b"
    again = fairlead("predictions", "judge", "ranking:3", "--json", "--lists", str(tmp_path / "shown.parquet"))
    assert again.json["judged"] == judged
    text = fairlead("predictions", "judge", "ranking:3")
    assert "doubly robust" in text.out


def test_a_log_that_does_not_say_who_asked_judges_nobody(
    endpoints: Endpoints, log: str, fairlead: Callable[..., Said]
) -> None:
    write(log, user={"chars": 3})
    said = fairlead("predictions", "judge", "ranking:3")
    assert said.code != 0
    assert "the log does not say who asked" in said.err
    assert "PREDICTIONS__TEXT=truncate" in said.err


def test_lists_that_are_older_than_the_model_are_refused(
    log: str, fairlead: Callable[..., Said], tmp_path: Path
) -> None:
    rows = {
        "list": ["a"],
        "user": ["ann"],
        "item": ["b"],
        "place": [1],
        "clicked": [1],
        "time": ["2020-01-01T00:00:00Z"],
    }
    pd.DataFrame(rows).to_csv(tmp_path / "old.csv", index=False)
    said = fairlead("predictions", "judge", "ranking:3", "--lists", str(tmp_path / "old.csv"))
    assert said.code != 0
    assert "older than ranking:3" in said.err

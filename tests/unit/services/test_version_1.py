"""Bundles of schema version 1, written by the code before version 2: read, proven, served and compared as they were.

``tests/version_1/<name>.json`` holds what that code answered.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.bundle import read_bundle, write_bundle
from services.server.golden import check

FOLDER = Path(__file__).parents[2] / "version_1"
NAMES = ("payments", "articles", "shades")


def alike(got: Any, before: Any, at: str = "") -> None:
    """The same members in the same order; ids and times are new, and another processor rounds otherwise."""
    if isinstance(before, dict):
        assert list(got) == list(before), at
        new = {"data"} if before.get("name") == "prediction_id" else {"id", "time"}
        for key in before.keys() - new:
            alike(got[key], before[key], f"{at}.{key}")
    elif isinstance(before, list):
        assert len(got) == len(before), at
        for index, (one, was) in enumerate(zip(got, before, strict=True)):
            alike(one, was, f"{at}[{index}]")
    elif isinstance(before, float):
        assert got == pytest.approx(before, abs=1e-6), at
    else:
        assert got == before, at


def _as_logged_then(line: dict[str, Any]) -> dict[str, Any]:
    """A line of the log without what lines have had since."""
    assert line["schema"] == 2
    inputs = {name: _without_traits(value) for name, value in line["inputs"].items()}
    return {name: value for name, value in line.items() if name not in ("schema", "latency_ms")} | {"inputs": inputs}


def _without_traits(value: Any) -> Any:
    return (
        {name: kept for name, kept in value.items() if name in ("chars", "hash")} if isinstance(value, dict) else value
    )


@pytest.mark.parametrize("name", NAMES)
def test_it_is_answered_and_logged_as_the_code_of_its_time_did(name: str, serve_bundle: Any, tmp_path: Path) -> None:
    bundle, before = read_bundle(FOLDER / name), json.loads((FOLDER / f"{name}.json").read_text())
    assert json.loads((FOLDER / name / "bundle.json").read_text())["schema_version"] == 1
    top = 0 if name == "shades" else 2
    served = serve_bundle(bundle, predictions={"folder": str(tmp_path)})
    alike(served.predict(*before["rows"], explain=top).json(), before["predict"])
    served.runtime.log.close()
    lines = [line for file in tmp_path.rglob("*.jsonl") for line in file.read_text().splitlines()]
    alike([_as_logged_then(json.loads(line)) for line in lines], before["log"])
    client = served.client
    alike(client.post(f"/v2/models/{name}/infer", json=before["request"]).json(), before["infer"])
    alike(client.get(f"/v2/models/{name}").json(), before["metadata"])


@pytest.mark.parametrize("name", NAMES)
def test_its_golden_examples_are_asked_over_http(name: str, serve_bundle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = read_bundle(FOLDER / name)
    monkeypatch.setattr("services.server.golden._ask", serve_bundle(bundle).ask)
    assert check(bundle, "") == len(list(bundle.golden()))


def test_it_is_the_champion_of_a_comparison(tmp_path: Path) -> None:
    from pipelines.evaluation import scoring
    from pipelines.evaluation.comparison import compare
    from pipelines.task import GateConfig

    champion = read_bundle(FOLDER / "payments")
    source = tmp_path / "source"
    shutil.copytree(champion.path, source)
    fields = json.loads((source / "bundle.json").read_text())
    (source / "bundle.json").unlink()
    fields |= {"schema_version": 2, "recipe": "next"}
    del fields["files"]
    candidate = write_bundle(source, tmp_path / "bundles", fields)
    assert candidate.document.signature == champion.document.signature
    assert candidate.document.schema_version == 2

    rng = np.random.default_rng(0)
    amount = rng.uniform(1, 300, 200)
    label = np.where(rng.random(200) < amount / 300, "fraud", "genuine")
    keys = [f"{at}" for at in range(200)]
    frame = pd.DataFrame({"amount": amount, "hour": 1.0, "country": "AT", "label": label, "row_key": keys})
    frame.to_parquet(tmp_path / "test.parquet")
    certain = (label == "fraud").astype(float)
    np.save(candidate.path / scoring.ANSWERS, np.column_stack([1 - certain, certain]))
    evaluation = {"metrics": {"roc_auc": 1.0}}
    made, _ = compare(candidate, champion, "payments:1", tmp_path, evaluation, GateConfig(primary="roc_auc"))
    assert made is not None
    assert made.passed
    assert made.rows_compared == 200
    assert made.difference is not None
    assert 0.1 < made.difference < 0.5

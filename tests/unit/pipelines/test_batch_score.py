"""Batch scoring: every row of a file gets an answer, or the file is refused with the row that has none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from contracts.bundle import write_bundle
from contracts.errors import PlatformError
from pipelines.steps import batch_score as step

GATE = {"passed": True, "checks": [], "champion": None, "reasons": []}


@pytest.fixture
def score(candidate: Path, endpoints: str, tmp_path: Path) -> Callable[..., tuple[dict[str, Any], pd.DataFrame]]:
    fields = json.loads((candidate / "candidate" / "candidate.json").read_text())
    fields |= {"gate": GATE, "lineage": {**fields["lineage"], "created": "2026-01-01T00:00:00Z"}}
    bundle = write_bundle(candidate / "candidate", tmp_path / "bundles", fields)

    def run(content: Any, name: str = "rows.csv") -> tuple[dict[str, Any], pd.DataFrame]:
        source = tmp_path / name
        if isinstance(content, bytes):
            source.write_bytes(content)
        else:
            content.to_parquet(source, index=False)
        out = tmp_path / "scores"
        summary = step.batch_score(str(bundle.path), str(source), endpoints, str(out))
        tables = [parquet.read_table(file) for file in sorted(out.glob("part-*.parquet"))]
        assert json.loads((out / "summary.json").read_text()) == summary
        return summary, pa.concat_tables(tables).to_pandas()

    return run


def test_every_row_is_answered_in_order_with_its_own_columns(score: Any) -> None:
    summary, scored = score(b"ref,kind,stops,distance\nA,box,1,10\nB,pallet,,990\nC,unheard,2,\n")
    assert scored["ref"].tolist() == ["A", "B", "C"]
    assert scored["label_predicted"].tolist()[:2] == ["no", "yes"]
    assert (scored["probability_no"] + scored["probability_yes"]).tolist() == pytest.approx([1, 1, 1])
    assert summary["rows"] == 3
    assert sum(summary["labels"].values()) == 3


def test_the_scores_are_those_of_the_evaluation(score: Any, candidate: Path) -> None:
    golden = [json.loads(line) for line in (candidate / "candidate" / "golden.jsonl").read_text().splitlines()]
    frame = pd.DataFrame([row["inputs"] for row in golden])
    _, scored = score(frame, "rows.parquet")
    expected = np.array([row["probabilities"] for row in golden])
    assert scored[["probability_no", "probability_yes"]].to_numpy() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_rows_of_a_data_version_can_be_scored(score: Any, name: str) -> None:
    frame = pd.DataFrame({"kind": ["box"], "stops": [1], "distance": [10.0], "_row": [7]})
    _, scored = score(frame.to_csv(index=False).encode() if name.endswith("csv") else frame, name)
    assert "_row" not in scored
    assert scored["_row_source"].astype(int).tolist() == [7]


@pytest.mark.parametrize(
    ("content", "said", "row"),
    [
        (b"kind,stops,distance\nbox,1,1\nbox,many,10\n", "row 2, column 'stops': not int64", 2),
        (b"kind,stops,distance\nbox,1\n", "rows.csv, row 1: 2 values, expected 3", 1),
        (b"kind,stops,distance\nb\xffx,1,1\n", "rows.csv, row 1: byte 0xff", 1),
    ],
)
def test_a_row_without_an_answer_stops_the_batch(
    score: Any, tmp_path: Path, content: bytes, said: str, row: int
) -> None:
    with pytest.raises(PlatformError) as caught:
        score(content)
    assert caught.value.headline.startswith(said)
    assert caught.value.context["row"] == row
    assert not (tmp_path / "scores").exists()


def test_features_are_those_of_each_rows_own_moment() -> None:
    """Known on day 10 and served for 5 days; the second entity is unknown."""
    day = 86_400.0

    class Reader:
        def read(self, keys: Any, moment: Any) -> Any:
            known = np.array([10 * day, np.nan, 10 * day])
            columns = {"count": np.array([3.0, np.nan, 3.0]), "place": np.array(["A", None, "A"], object)}
            return SimpleNamespace(columns=columns, age_seconds={"view": list(moment.timestamp() - known)})

    features = [{"name": "count"}, {"name": "place"}]
    plan = {"views": [{"name": "view", "ttl_seconds": 5 * day, "features": features}]}
    moments = np.array(["1970-01-12", "1970-01-12", "1970-01-20"], "M8[us]")
    found = step._read_at(Reader(), plan, {"key": ["a", "?", "a"]}, moments)
    assert found["count"].tolist() == pytest.approx([3.0, np.nan, np.nan], nan_ok=True)
    assert found["place"].tolist() == ["A", None, None]
    plan["views"][0]["ttl_seconds"] = 0
    assert step._read_at(Reader(), plan, {"key": ["a", "?", "a"]}, moments)["count"][2] == 3.0


def test_a_missing_input_is_named(score: Any) -> None:
    with pytest.raises(PlatformError, match="no column 'distance'") as caught:
        score(b"kind,stops\nbox,1\n")
    assert caught.value.detail == "columns there: kind, stops"

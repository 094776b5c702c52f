"""Batch scoring: every row of a file gets an answer, or the file is refused with the row that has none."""

from __future__ import annotations

import json
import shutil
from collections import Counter
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
from pipelines import data_engines
from pipelines.data_engines import Here
from pipelines.steps import batch_score as step
from pipelines.steps.batch_rows import Flags, read_at

GATE = {"passed": True, "checks": [], "champion": None, "reasons": []}


@pytest.fixture
def score(candidate: Path, endpoints: str, tmp_path: Path) -> Callable[..., tuple[dict[str, Any], pd.DataFrame]]:
    fields = json.loads((candidate / "candidate" / "candidate.json").read_text())
    fields |= {"gate": GATE, "lineage": {**fields["lineage"], "created": "2026-01-01T00:00:00Z"}}
    bundle = write_bundle(candidate / "candidate", tmp_path / "bundles", fields)

    def run(
        content: Any,
        name: str = "rows.csv",
        *,
        layout: dict[str, Any] | None = None,
        settings: Any = None,
        by_group: dict[str, Any] | None = None,
    ) -> tuple[dict[str, Any], pd.DataFrame]:
        made = bundle
        if layout is not None:
            made = write_bundle(candidate / "candidate", tmp_path / "bundles", {**fields, "layout": layout})
        if by_group is not None:
            changed = {**fields, "decision": {**fields["decision"], "by_group": by_group}}
            made = write_bundle(candidate / "candidate", tmp_path / "bundles", changed)
        source = tmp_path / name
        if isinstance(content, bytes):
            source.write_bytes(content)
        else:
            content.to_parquet(source, index=False)
        out = tmp_path / "scores"
        shutil.rmtree(out, ignore_errors=True)
        asked = json.dumps(settings or {})
        summary = step.batch_score(str(made.path), str(source), endpoints, str(out), asked)
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
    expected = np.array([row["expected"] for row in golden])
    assert scored[["probability_no", "probability_yes"]].to_numpy() == pytest.approx(expected, abs=1e-9)


def test_thresholds_by_group_decide_and_leave_what_the_model_says_as_it_is(score: Any, tmp_path: Path) -> None:
    rows = b"ref,kind,stops,distance\nA,box,1,10\nB,pallet,,990\nC,box,2,500\nD,box,2,500\n"
    summary, plain = score(rows)
    by = {"column": "sex", "thresholds": {"w": 0.0, "m": 1.0}, "reason": "allowed by the board, 12 May"}
    (tmp_path / "people.csv").write_text("ref,sex\nA,w\nB,m\nC,w\n")
    asked = {"groups.table": str(tmp_path / "people.csv"), "groups.key": "ref"}
    summary, scored = score(rows, settings=asked, by_group=by)
    assert scored["label_predicted"].tolist() == ["yes", "no", "yes", plain["label_predicted"][3]]
    assert scored["probability_yes"].tolist() == plain["probability_yes"].tolist()
    assert sum(summary["labels"].values()) == 4
    assert summary["thresholds_by_group"]["reason"] == by["reason"]
    summary, unsaid = score(rows, by_group=by)
    assert unsaid["label_predicted"].tolist() == plain["label_predicted"].tolist()
    assert "answered by the common one" in summary["warnings"][0]


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_rows_of_a_data_version_can_be_scored(score: Any, name: str) -> None:
    frame = pd.DataFrame({"kind": ["box"], "stops": [1], "distance": [10.0], "_row": [7]})
    _, scored = score(frame.to_csv(index=False).encode() if name.endswith("csv") else frame, name)
    assert "_row" not in scored
    assert scored["_row_source"].astype(int).tolist() == [7]


@pytest.mark.parametrize(
    ("content", "said", "row"),
    [
        (b"kind,stops,distance\nbox,1,1\nbox,many,10\n", "row 2, column 'stops': not a whole number", 2),
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
            status = {"view": ["PRESENT", "NOT_FOUND", "PRESENT"]}
            return SimpleNamespace(
                columns=columns, status=status, age_seconds={"view": list(moment.timestamp() - known)}
            )

    features = [{"name": "count"}, {"name": "place"}]
    plan = {"views": [{"name": "view", "ttl_seconds": 5 * day, "features": features}]}
    moments, flags = np.array(["1970-01-12", "1970-01-12", "1970-01-20"], "M8[us]"), Flags(3)
    found = read_at(Reader(), plan, {"key": ["a", "?", "a"]}, moments, flags)
    assert found["count"].tolist() == pytest.approx([3.0, np.nan, np.nan], nan_ok=True)
    assert found["place"].tolist() == ["A", None, None]
    assert flags.column().to_pylist() == [[], ["not_found:view"], ["outside_max_age:view"]]
    plan["views"][0]["ttl_seconds"] = 0
    assert read_at(Reader(), plan, {"key": ["a", "?", "a"]}, moments, Flags(3))["count"][2] == 3.0


@pytest.mark.parametrize(("late", "served"), [(0, True), (1, False)])
def test_a_row_is_too_old_from_the_microsecond_on_that_the_service_says_so(late: int, served: bool) -> None:
    event = 1_700_000_000_123_457

    class Reader:
        def read(self, keys: Any, moment: Any) -> Any:
            return SimpleNamespace(
                columns={"n": np.ones(1)}, status={"view": ["PRESENT"]}, age_seconds={"view": [(0 - event) / 1e6]}
            )

    plan = {"views": [{"name": "view", "ttl_seconds": 40, "features": [{"name": "n"}]}]}
    moments = np.array([event + 40_000_000 + late], "M8[us]")
    assert bool(read_at(Reader(), plan, {}, moments, Flags(1))["n"][0] == 1.0) is served


def test_flags_are_those_of_a_request_and_counted(score: Any) -> None:
    summary, scored = score(b"kind,stops,distance\nbox,1,10\nunheard,,\nbox,1,\n")
    assert scored["flags"][0].tolist() == []
    assert set(scored["flags"][1]) == {"missing:stops", "missing:distance", "unknown_category:kind"}
    assert list(scored["flags"][2]) == ["missing:distance"]
    assert summary["flags"] == {"missing:distance": 2, "missing:stops": 1, "unknown_category:kind": 1}


def test_columns_called_like_ours_keep_a_name_of_their_own(score: Any) -> None:
    header = b"Label_Predicted,label_predicted,label_predicted_source,probability_yes,flags,kind,stops,distance\n"
    summary, scored = score(header + b"a,b,c,0.5,x,box,1,10\n")
    names = [name.casefold() for name in scored.columns]
    assert len(set(names)) == len(names)
    assert scored["label_predicted"].tolist() == ["no"]
    assert {"a", "b", "c", "x", "0.5"} <= {str(value) for value in scored.iloc[0]}
    assert summary["renamed"]["label_predicted"] != "label_predicted_source"
    assert summary["renamed"]["flags"] == "flags_source"


def test_scored_rows_can_be_scored_again(score: Any) -> None:
    _, first = score(b"kind,stops,distance\nbox,1,10\n")
    _, again = score(first, "again.parquet")
    assert again["label_predicted"].tolist() == again["label_predicted_source"].tolist()


BARE = {"header": False, "columns": {"kind": "0", "stops": "1", "distance": "2"}}
MAPPED = {"columns": {"kind": "Art", "distance": "0"}, "delimiter": ";"}


@pytest.mark.parametrize(
    ("layout", "settings", "content"),
    [
        (MAPPED, {}, b"Art;stops;0\nbox;1;10\n"),
        (MAPPED, {}, b"kind,stops,distance\nbox,1,10\n"),
        (MAPPED, {}, b"kind;stops;0\nbox;1;10\n"),
        (MAPPED, {"data.delimiter": "|"}, b"Art|stops|0\nbox|1|10\n"),
        (MAPPED, {"data.columns.kind": "sort"}, b"sort;stops;0;kind\nbox;1;10;pallet\n"),
        ({}, {"data.delimiter": ";"}, b"kind;stops;distance\nbox;1;10\n"),
        (BARE, {}, b"box,1,10\n"),
        (BARE, {}, b"stops,kind,distance\n1,box,10\n"),
    ],
)
def test_a_file_is_read_as_the_training_data_were_unless_it_is_said_otherwise(
    score: Any, layout: dict[str, Any], settings: dict[str, Any], content: bytes
) -> None:
    _, expected = score(b"kind,stops,distance\nbox,1,10\n", "plain.csv")
    _, scored = score(content, layout=layout, settings=settings)
    assert scored["probability_yes"].tolist() == expected["probability_yes"].tolist()
    assert list(scored["flags"][0]) == []


def test_the_layout_of_the_training_is_in_the_bundle(candidate: Path) -> None:
    layout = json.loads((candidate / "candidate" / "candidate.json").read_text())["layout"]
    assert layout["delimiter"] == ","
    assert "max_bad_share" not in layout


def test_a_setting_that_does_not_fit_the_file_names_the_column_and_the_cure(score: Any) -> None:
    with pytest.raises(PlatformError, match="no column 'distance'") as caught:
        score(b"kind;stops;distance\nbox;1;10\n")
    assert caught.value.fix == "--set 'data.delimiter=;'"


@pytest.mark.parametrize("key", ["data.delimeter", "model.rounds", "data.columns"])
def test_unknown_settings_of_reading_are_refused(score: Any, key: str) -> None:
    with pytest.raises(PlatformError):
        score(b"kind,stops,distance\nbox,1,10\n", settings={key: 3})


def test_many_rows_of_unknown_entities_are_a_warning() -> None:
    assert step._warnings(Counter({"not_found:v": 19, "missing:x": 90}), 100) == []
    assert step._warnings(Counter({"not_found:v": 20}), 100)[0].startswith("20 of 100 rows (20%) are of entities")


def test_a_missing_input_is_named(score: Any) -> None:
    with pytest.raises(PlatformError, match="no column 'distance'") as caught:
        score(b"kind,stops\nbox,1\n")
    assert str(caught.value.detail).startswith("columns there: kind, stops;")


class Sharing(Here):
    """An engine of two workers, which are this process."""

    workers = 2


def test_files_that_workers_score_are_the_files_of_one_process(
    score: Any, endpoints: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score(b"ref,kind,stops,distance\nA,box,1,10\n")
    (bundle,) = (tmp_path / "bundles" / "toy").iterdir()
    source, made = tmp_path / "source", {}
    source.mkdir()
    for name in "abc":
        rows = "".join(f"{name}{at},{'box' if at % 3 else 'unheard'},{at},{at * 40}\n" for at in range(50))
        (source / f"{name}.csv").write_text(f"ref,kind,stops,distance\n{rows}")
    shared: tuple[Here, ...] = (Sharing(),)
    for which, engines in (("one", ()), ("shared", shared)):
        monkeypatch.setattr(data_engines, "_current", [*engines])
        summary = step.batch_score(str(bundle), str(source), endpoints, str(tmp_path / which))
        made[which] = (summary, {file.name: file.read_bytes() for file in sorted((tmp_path / which).iterdir())})
    assert made["shared"] == made["one"]
    assert made["one"][0]["rows"] == 150
    assert len(made["one"][1]) == 4  # a part of each file, and the summary
    (source / "b.csv").write_text("ref,kind,stops,distance\nB,box,many,1\n")
    with pytest.raises(PlatformError, match="row 1, column 'stops'"):
        step.batch_score(str(bundle), str(source), endpoints, str(tmp_path / "bad"))
    assert not (tmp_path / "bad").exists()

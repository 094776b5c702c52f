"""Validation: bad rows are listed and set aside, a bad schema and a leaking column stop the run."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from contracts.errors import PlatformError
from pipelines import data_engines
from pipelines.data.schema import cast_column
from pipelines.evaluation import get_evaluation
from pipelines.evaluation.leakage import check_leakage
from pipelines.settings import parse_setting
from pipelines.steps import ingest as ingest_step
from pipelines.steps import validate as step
from pipelines.task import Column, DataConfig, data_config
from tests.unit.pipelines.test_ingest_files import Workers

CLASSES = get_evaluation("classification")
Run = Callable[..., tuple[dict[str, Any], pd.DataFrame, list[dict[str, str]]]]


@pytest.fixture
def check(toy: Any, toy_config: Callable[..., str], toy_csv: Any, tmp_path: Path) -> Run:
    """Ingest and validate a frame (as CSV) or bytes; gives the report, the clean rows and the quarantine."""

    def run(content: Any, **data: Any) -> tuple[dict[str, Any], pd.DataFrame, list[dict[str, str]]]:
        source = tmp_path / "data.csv"
        if isinstance(content, bytes | Path):
            source = content if isinstance(content, Path) else source
            if isinstance(content, bytes):
                source.write_bytes(content)
        else:
            toy_csv(source, content)
        config, manifest = toy_config(data=data), tmp_path / "manifest.json"
        ingest_step.ingest("toy", config, str(source), str(tmp_path / "data"), str(manifest))
        out = tmp_path / "clean"
        report = step.validate("toy", config, str(manifest), str(out))
        tables = [parquet.read_table(file) for file in sorted(out.glob("part-*.parquet"))]
        with (out / "quarantine.csv").open(newline="", encoding="utf-8") as stream:
            return report, pa.concat_tables(tables).to_pandas(), list(csv.DictReader(stream))

    return run


def test_good_rows_get_the_tasks_types(check: Run, toy_frame: Any) -> None:
    frame = toy_frame(50)
    report, clean, quarantine = check(frame)
    nothing = {"rows_read": 50, "rows_left_out": 0, "groups": [], "classes": []}
    assert report.pop("version")
    assert report == {
        "rows": 50,
        "good": 50,
        "bad": 0,
        "reasons": [],
        "left_out": nothing,
        "personal": {},
        "origin": {},
    }
    assert quarantine == []
    pd.testing.assert_frame_equal(clean, frame, check_dtype=False)
    assert str(clean["sent"].dtype) == "datetime64[us, UTC]"
    assert [str(clean[name].dtype) for name in ("distance", "stops")] == ["float64", "int64"]


def test_every_bad_value_is_listed_with_row_column_and_reason(check: Run, toy_frame: Any) -> None:
    frame = toy_frame(60).astype({"distance": object, "stops": object})
    frame.loc[1, "distance"] = "far"
    frame.loc[2, "distance"] = 1000.5
    frame.loc[3, "stops"] = 1.5
    frame.loc[4, "late"] = ""
    frame.loc[5, "kind"] = "crate"
    frame.loc[6, "parcel"] = frame.loc[0, "parcel"]
    frame.loc[7, "note"] = "x" * 51
    frame.loc[8, "distance"] = "inf"
    frame.loc[9, "late"] = np.nan
    frame.loc[9, "stops"] = -1
    report, clean, quarantine = check(frame)
    found = {(int(q["row"]), q["column"]): q["reason"] for q in quarantine}
    assert found == {
        (2, "distance"): "not a finite number",
        (3, "distance"): "above the maximum of 1000",
        (4, "stops"): "not a whole number",
        (5, "late"): "missing value",
        (6, "kind"): "not one of: box, letter, pallet",
        (7, "parcel"): "duplicate of an earlier row",
        (8, "note"): "longer than 50",
        (9, "distance"): "not a finite number",
        (10, "late"): "missing value",
        (10, "stops"): "below the minimum of 0",
    }
    assert (report["good"], report["bad"]) == (51, 9)
    assert set(clean["parcel"]) == set(frame["parcel"]) - {f"P{i:06d}" for i in (1, 2, 3, 4, 5, 6, 7, 8, 9)}
    assert quarantine[6]["value"] == "x" * 40 + "... (51 characters)"


def test_rows_that_could_not_be_read_count_as_bad_and_name_their_file(
    check: Run, toy_frame: Any, toy_csv: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "many"
    toy_csv(folder / "a.csv", toy_frame(20))
    toy_csv(folder / "b.csv", toy_frame(40)[20:])
    lines = (folder / "b.csv").read_bytes().splitlines()
    lines[3] = b"P000022,2026"
    lines[5] = lines[5].replace(b"note", b"\xff")
    (folder / "b.csv").write_bytes(b"\n".join(lines))
    report, _, quarantine = check(folder)
    assert [(q["row"], q["column"], q["file"]) for q in quarantine] == [("3", "", "b.csv"), ("5", "note", "b.csv")]
    assert (report["rows"], report["bad"]) == (40, 2)


def test_rows_left_out_are_told_by_reason_and_a_class_that_loses_more_than_its_share_is_named(
    check: Run, toy_frame: Any, toy_csv: Any, tmp_path: Path
) -> None:
    lines = toy_csv(tmp_path / "given.csv", toy_frame(400)).read_bytes().splitlines()
    label_at = lines[0].split(b",").index(b"late")
    late = [at for at, line in enumerate(lines) if line.split(b",")[label_at] == b"yes"]
    for number, at in enumerate(late[:12]):
        lines[at] = lines[at].replace(b"note", b"x" * number + b"\xc4\xe3", 1)
    report, _, quarantine = check(b"\n".join(lines), max_bad_share=0.2)
    found = report["left_out"]
    assert (found["rows_read"], found["rows_left_out"]) == (400, 12)
    assert [(group["reason"], group["rows"]) for group in found["groups"]] == [("note: byte 0xc4 is not UTF-8", 12)]
    assert len(quarantine) == 12
    assert Path(found["groups"][0]["where"]).exists()
    assert [(each["left_out"], each["rows"]) for each in found["classes"]] == [(12, len(late))]
    assert found["classes"][0]["others_left_out"] == 0


def test_a_row_with_two_bad_values_is_left_out_once(check: Run, toy_frame: Any) -> None:
    frame = toy_frame(100).astype({"distance": object, "stops": object})
    frame.loc[7, ["distance", "stops"]] = "none"
    report, _, quarantine = check(frame)
    assert len(quarantine) == 2
    assert report["left_out"]["rows_left_out"] == sum(group["rows"] for group in report["left_out"]["groups"]) == 1


def test_duplicates_are_found_across_parts(check: Run, toy_frame: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_step, "PART_ROWS", 10)
    frame = toy_frame(40)
    frame.loc[35, "parcel"] = frame.loc[3, "parcel"]
    _, clean, quarantine = check(frame)
    assert [(q["row"], q["column"]) for q in quarantine] == [("36", "parcel")]
    assert clean["parcel"].is_unique


def test_a_bad_row_does_not_make_the_next_one_a_duplicate(check: Run, toy_frame: Any) -> None:
    frame = toy_frame(40)
    frame.loc[3, ["parcel", "kind"]] = ["SAME", "crate"]
    frame.loc[4, "parcel"] = "SAME"
    _, clean, quarantine = check(frame)
    assert len(quarantine) == 1
    assert "SAME" in set(clean["parcel"])


def test_too_many_bad_rows_stop_the_run_and_say_which(check: Run, toy_frame: Any, tmp_path: Path) -> None:
    frame = toy_frame(20)
    frame.loc[:9, "kind"] = "crate"
    with pytest.raises(PlatformError, match="10 of 20 rows are bad") as caught:
        check(frame)
    assert caught.value.code == "too_many_bad_rows"
    assert "kind: not one of" in caught.value.detail
    assert Path(caught.value.context["quarantine"]).exists()
    assert caught.value.fix.endswith("or accept it: --set data.max_bad_share=0.51")
    check(frame, max_bad_share=0.5)


def test_all_rows_bad_stop_the_run_whatever_is_allowed(check: Run, toy_frame: Any) -> None:
    with pytest.raises(PlatformError, match="20 of 20 rows are bad") as caught:
        check(toy_frame(20).assign(kind="crate"), max_bad_share=1.0)
    assert "max_bad_share" not in caught.value.fix


def test_the_loss_of_most_rows_is_not_proposed(check: Run, toy_frame: Any) -> None:
    frame = toy_frame(20)
    frame.loc[:10, "kind"] = "crate"
    with pytest.raises(PlatformError, match="11 of 20 rows are bad") as caught:
        check(frame)
    assert "max_bad_share" not in caught.value.fix
    assert "say how it is read" in caught.value.fix


def test_one_label_only_stops_the_run(check: Run, toy_frame: Any) -> None:
    with pytest.raises(PlatformError, match="same 'late'"):
        check(toy_frame(20).assign(late="no"))


def test_missing_column_stops_the_run(toy: Any, toy_config: Callable[..., str], tmp_path: Path, toy_frame: Any) -> None:
    toy_frame(5).drop(columns=["kind"]).assign(_row=1).to_parquet(tmp_path / "part-00000.parquet")
    manifest = {"parts": [{"name": "part-00000.parquet"}], "files": [], "path": str(tmp_path)}
    (tmp_path / "m.json").write_text(json.dumps(manifest))
    with pytest.raises(PlatformError, match="no column 'kind'") as caught:
        step.validate("toy", toy_config(), str(tmp_path / "m.json"), str(tmp_path / "clean"))
    assert "distance" in caught.value.detail


def test_an_optional_column_may_be_absent(check: Run, toy_frame: Any) -> None:
    _, clean, _ = check(toy_frame(30).drop(columns=["note"]))
    assert clean["note"].isna().all()


def test_wrong_parquet_type_stops_the_run(check: Run, toy_frame: Any, tmp_path: Path) -> None:
    frame = toy_frame(30)
    frame["sent"] = np.arange(30)
    frame.to_parquet(tmp_path / "x.parquet")
    with pytest.raises(PlatformError, match="column 'sent' cannot be timestamp"):
        check(tmp_path / "x.parquet")


def test_the_same_version_gives_the_same_bytes(check: Run, toy_frame: Any, tmp_path: Path) -> None:
    check(toy_frame(30))
    first = {p.name: p.read_bytes() for p in (tmp_path / "clean").iterdir()}
    check(toy_frame(30))
    assert {p.name: p.read_bytes() for p in (tmp_path / "clean").iterdir()} == first


def test_a_column_made_from_the_label_is_refused_unless_allowed(check: Run, toy_frame: Any) -> None:
    frame = toy_frame(400)
    frame["outcome"] = np.where(frame["late"] == "yes", frame["stops"] + 20, frame["stops"])
    with pytest.raises(PlatformError, match="'outcome' predicts 'late' nearly alone") as caught:
        check(frame)
    assert caught.value.code == "leakage"
    assert "data.drop=[outcome]" in caught.value.fix
    check(frame, allow_leakage=["outcome"])
    check(frame, drop=["outcome"])


def test_the_cure_of_a_leak_keeps_the_lists_that_there_are_and_the_columns_that_the_task_needs() -> None:
    label = np.array(["no", "yes"] * 200)
    leaks = {"so far": label == "yes", "own": label}
    frame = pd.DataFrame({"label": label, **leaks})
    data = DataConfig(drop=("other",), allow_leakage=("third",))

    def follow(frame: pd.DataFrame, data: DataConfig, needed: list[str]) -> DataConfig:
        with pytest.raises(PlatformError) as caught:
            check_leakage(frame, "label", data, CLASSES, needed)
        words = shlex.split(caught.value.fix.partition(": ")[2].partition(";")[0])
        assert words[::2] == ["--set"] * (len(words) // 2)
        return data_config(asdict(data), dict(map(parse_setting, words[1::2])))

    cured = follow(frame, data, ["own"])
    assert (cured.drop, cured.allow_leakage) == (("other", "so far"), ("third", "own"))
    check_leakage(frame.drop(columns=list(cured.drop), errors="ignore"), "label", cured, CLASSES, ["own"])
    cured = follow(frame[["label", "own"]], data, ["own"])
    assert (cured.drop, cured.allow_leakage) == (("other",), ("third", "own"))
    cured = follow(frame[["label", "so far"]], data, [])
    assert (cured.drop, cured.allow_leakage) == (("other", "so far"), ("third",))


@pytest.mark.parametrize("classes", [2, 3])
def test_leakage_is_told_from_noise_for_any_kind_of_column(classes: int) -> None:
    rng = np.random.default_rng(1)
    label = rng.integers(0, classes, 3000)
    frame = pd.DataFrame(
        {
            "label": label.astype(str),
            "unique": [f"text {i}" for i in range(3000)],
            "noise": rng.normal(size=3000),
            "constant": 1,
            "missing": np.nan,
        }
    )
    assert max(check_leakage(frame, "label", DataConfig(), CLASSES).values()) < 0.6
    for leak in (
        pd.Series(label).map({0: "a", 1: "b", 2: "c"}),
        label + rng.normal(0, 0.05, 3000),
        ((label - 1) ** 2 * 100 + label + rng.normal(0, 0.05, 3000)).astype(str),
    ):
        with pytest.raises(PlatformError, match="'leak'"):
            check_leakage(frame.assign(leak=leak), "label", DataConfig(leakage_auc=0.98), CLASSES)


@pytest.mark.parametrize(
    ("dtype", "texts", "expected"),
    [
        ("int64", ["1", " 2 ", "3.0", "1e3", "9007199254740993", "", "x", "1.5", "0x10"], [1, 2, 3, 1000, 2**53 + 1]),
        ("float64", ["1", "-2.5", ".5", "1e-3", "", "nan", "1_000", "inf"], [1.0, -2.5, 0.5, 0.001]),
    ],
)
def test_numbers_are_read_exactly_or_not_at_all(dtype: Any, texts: list[str], expected: list[float]) -> None:
    values, wrong = cast_column(pa.chunked_array([texts]), Column(name="x", dtype=dtype))
    assert values.to_pylist()[: len(expected)] == expected
    assert values.to_pylist()[len(expected) :] == [None] * (len(texts) - len(expected))
    missing = ("", "nan")
    assert wrong.tolist()[len(expected) :] == [text not in missing for text in texts[len(expected) :]]


def test_moments_with_and_without_zone_become_utc() -> None:
    texts = ["2024-03-05 14:30:00", "2024-03-05T14:30:00.25+02:00", "2024-03-05", "5.3.2024", ""]
    values, wrong = cast_column(pa.chunked_array([texts]), Column(name="t", dtype="timestamp"))
    shown = [None if v is None else v.isoformat() for v in values.to_pylist()]
    assert shown == [
        "2024-03-05T14:30:00+00:00",
        "2024-03-05T12:30:00.250000+00:00",
        "2024-03-05T00:00:00+00:00",
        None,
        None,
    ]
    assert wrong.tolist() == [False, False, False, True, False]


@pytest.mark.parametrize("writing", ["ints", "floats", "white space", "parquet floats", "parquet dictionary"])
def test_ids_that_were_floats_once_are_the_ids_that_they_were(tmp_path: Path, writing: str) -> None:
    from pipelines.steps.ingest import ingest
    from pipelines.steps.validate import validate
    from pipelines.task import dump_config
    from pipelines.tasks import get_task, recipe_config

    config = dump_config(recipe_config(get_task("fraud"), None, {"data.leakage_auc": 1.0}))
    ids = pd.Series(range(700_000, 700_040))
    times = pd.date_range("2026-01-01", periods=40, freq="h", tz="UTC").strftime("%Y-%m-%dT%H:%M:%SZ")
    frame = pd.DataFrame({"transaction_id": [f"t{at}" for at in ids], "event_time": times, "terminal_id": "T1"})
    frame = frame.assign(amount=[5.0 + at % 7 for at in range(40)], fraud=[at % 2 for at in range(40)])
    written: dict[str, Any] = {
        "ints": ids,
        "floats": ids.astype(float),
        "white space": " " + ids.astype(str),
        "parquet floats": ids.astype(float),
        "parquet dictionary": ids.astype(str).astype("category"),
    }
    frame["customer_id"] = written[writing]
    source = tmp_path / ("payments.parquet" if "parquet" in writing else "payments.csv")
    frame.to_parquet(source) if "parquet" in writing else frame.to_csv(source, index=False)
    ingest("fraud", config, str(source), str(tmp_path / "data"), str(tmp_path / "manifest.json"))
    validate("fraud", config, str(tmp_path / "manifest.json"), str(tmp_path / "clean"))
    clean = pd.concat(map(pd.read_parquet, sorted((tmp_path / "clean").glob("part-*.parquet"))))
    assert clean["customer_id"].tolist() == ids.astype(str).tolist()


def test_parts_that_workers_check_are_those_of_one_process(
    check: Run, toy_frame: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bad values, values that are read as something else, and ids that other parts have."""
    monkeypatch.setattr(ingest_step, "PART_ROWS", 40)
    frame = toy_frame(150).astype({"distance": object, "kind": object})
    frame.loc[[3, 60], "distance"] = "far"
    frame.loc[70, "kind"] = "barrel"
    frame.loc[140, "parcel"] = frame.loc[2, "parcel"]
    frame.loc[141, "parcel"] = frame.loc[100, "parcel"]
    alone = check(frame, max_bad_share=0.5)
    shutil.rmtree(tmp_path / "clean")
    engine = Workers()
    monkeypatch.setattr(data_engines, "_current", [engine])
    report, clean, quarantine = check(frame, max_bad_share=0.5)
    assert engine.done == ["pipelines.steps.validate_parts:check_part"] * 4
    assert (report, quarantine) == (alone[0], alone[2])
    assert {row["column"] for row in quarantine} == {"distance", "kind", "parcel"}
    pd.testing.assert_frame_equal(clean, alone[1])

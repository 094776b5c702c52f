"""Logged inputs beside the same features joined from the history."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.bundle import Input
from contracts.errors import PlatformError
from contracts.metric_names import MONITOR_SKEW
from contracts.registry import ModelVersion
from deploy.cli.features import skew
from deploy.cli.features.skew import _by_bundle, compare_logged, newest
from services.feedback.hashing import hashed
from services.feedback.layout import home
from services.feedback.records import Prediction, line_of
from services.monitor.exposition import Reports
from services.monitor.skew import latest_skew
from tests.monitor_log import Log

START = datetime(2026, 1, 1, tzinfo=UTC)
PLAN = {
    "timestamp": "at",
    "views": [
        {
            "name": "v",
            "join_keys": [{"name": "driver", "dtype": "string"}],
            "features": [{"name": "trips", "dtype": "int64"}, {"name": "town", "dtype": "string"}],
            "ttl_seconds": 0,
            "source": "v.parquet",
            "timestamp_field": "event",
            "created_field": "",
        }
    ],
}
INPUTS = [
    Input(name="amount", dtype="float64"),
    Input(name="trips", dtype="float64", source="online", default=-1),
    Input(name="town", dtype="string", source="online"),
]
BUNDLE: Any = SimpleNamespace(
    read_json=lambda name: PLAN,
    document=SimpleNamespace(name="m", signature=SimpleNamespace(inputs=INPUTS)),
)


@pytest.fixture
def history(tmp_path: Path) -> Path:
    rows = [("a", 0, 1, "Graz"), ("a", 10, 2, "Graz"), ("b", 0, 7, "Linz")]
    who, when, trips, town = zip(*rows, strict=True)
    moments = pa.array([START + timedelta(days=day) for day in when], pa.timestamp("us", "UTC"))
    table = pa.table([pa.array(who), moments, pa.array(trips), pa.array(town)], ["driver", "event", "trips", "town"])
    pq.write_table(table, tmp_path / "v.parquet")
    return tmp_path


def logged(driver: str, day: int, trips: float | None, town: Any, *, keep: bool = False) -> Prediction:
    return Prediction(
        id=f"{day:032x}",
        time=START + timedelta(days=60),
        model="m",
        version="1",
        digest="",
        answer={},
        inputs={"amount": 3.0, "trips": trips, "town": town},
        entities={"driver": driver if keep else hashed(b"salt", driver)},
        flags=(),
        latency_ms=1.0,
        schema=2,
        moment=START + timedelta(days=day),
    )


def test_rows_are_joined_at_their_moment_and_those_that_differ_are_counted(history: Path) -> None:
    records = [
        logged("a", 5, 1.0, {"chars": 4}),
        logged("a", 15, 1.0, {"hash": hashed(b"salt", "Graz"), "chars": 4}),  # the store was late
        logged("b", 5, 7.0, "Linz", keep=True),
        logged("b", 5, -1.0, {"chars": 0}),  # and here it was empty
        logged("c", 5, -1.0, {"chars": 0}),
    ]
    found = compare_logged(BUNDLE, history, records, "salt")
    assert (found["rows"], found["unknown_entities"], set(found["inputs"])) == (4, 1, {"trips", "town"})
    trips, town = found["inputs"]["trips"], found["inputs"]["town"]
    assert (trips["different"], trips["ratio"], trips["example"]["joined"]) == (2, 0.5, 2)
    assert (town["different"], town["example"]["id"]) == (1, records[3].id)


def test_what_was_asked_before_the_history_begins_has_the_default(history: Path) -> None:
    found = compare_logged(BUNDLE, history, [logged("a", -5, -1.0, {"chars": 0})], "salt")
    assert [one["different"] for one in found["inputs"].values()] == [0, 0]


def test_the_newest_rows_that_have_keys_are_taken(tmp_path: Path) -> None:
    place = Path(home(str(tmp_path), "m"))
    place.mkdir()
    rows = [logged("a", day, 1.0, "Graz") for day in range(6)]
    (place / "2026-03-01.a-1.jsonl").write_bytes(b"".join(map(line_of, rows[:3])))
    (place / "2026-03-02.a-1.jsonl").write_bytes(b"".join(map(line_of, rows[3:])))
    found = newest(str(tmp_path), "m", 4)
    assert sorted(one.moment for one in found if one.moment) == [one.moment for one in rows[2:]]
    with pytest.raises(PlatformError, match="has entity keys"):
        newest(str(tmp_path), "other", 4)


def test_the_monitor_reports_and_exports_what_was_measured(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write(2)
    file = log.folder / "m" / "monitor" / "skew.json"
    file.parent.mkdir()
    kept = {"time": log.at.isoformat(), "versions": {"1": {"inputs": {"size": {"ratio": 0.25}}}}}
    file.write_text(json.dumps(kept))
    monitor = log.monitor()
    assert log.look(monitor)["skew"] == {"size": 0.25}
    reports = Reports()
    reports.put("m", monitor.report, 1.0)
    sample = next(one for family in reports.collect() for one in family.samples if one.name == MONITOR_SKEW)
    assert (sample.labels["input"], sample.value) == ("size", 0.25)
    assert latest_skew(str(log.folder / "m"), log.at + timedelta(days=3)) == {}
    file.write_text("{")
    with pytest.raises(PlatformError) as caught:
        latest_skew(str(log.folder / "m"), log.at)
    assert caught.value.code == "bad_state"


def _version(number: str, digest: str) -> ModelVersion:
    return ModelVersion(
        name="m", version=number, digest=digest, path="", gate_passed=True, created="", metrics={}, recipe="r"
    )


def test_rows_are_of_the_bundle_that_their_digest_names_whatever_they_were_served_as() -> None:
    known = [_version("2", "bbbb" * 16), _version("1", "aaaa" * 16)]
    rows = [
        replace(logged("a", day, 1.0, "Graz"), version=version, digest=digest)
        for day, (version, digest) in enumerate(
            [("demo", "bbbb"), ("1", "aaaa"), ("demo", "aaaa"), ("2", ""), ("1", "cccc"), ("9", "")]
        )
    ]
    found = _by_bundle(known, rows)
    assert {name: (of, len(some)) for name, (of, some) in found.items()} == {
        "demo": ("2", 1),
        "1": ("1", 1),
        "2": ("2", 1),
    }


def test_of_all_models_those_that_cannot_be_compared_are_named_and_a_failure_is_the_end_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("good", "plain", "torn"):
        (tmp_path / "predictions" / name).mkdir(parents=True)
    profile = tmp_path / "profile.yaml"
    profile.write_text(f"home: {tmp_path}\npredictions: {tmp_path / 'predictions'}\n")
    found = {"model": "good", "known_until": "x", "versions": {"1": {"inputs": {"trips": {"ratio": 0.5}}}}}
    said = {"plain": PlatformError("plain takes no features", fix="", code="no_features")}

    def measured(endpoints: Any, profile: str, model: str, rows: int) -> dict[str, Any]:
        if model in said:
            raise said[model]
        return {**found, "model": model}

    monkeypatch.setattr(skew, "measure_skew", measured)
    assert skew.show_skew(str(profile), None, 10, True) == 3
    told = json.loads(capsys.readouterr().out)
    assert [one["model"] for one in told["models"]] == ["good", "torn"]
    assert told["skipped"] == {"plain": "plain takes no features"}
    said["good"] = PlatformError("the log is torn", fix="", code="bad_state")
    with pytest.raises(PlatformError, match="torn"):
        skew.show_skew(str(profile), None, 10, True)
    assert [one["model"] for one in json.loads(capsys.readouterr().out)["models"]] == ["torn"], (
        "the others are measured"
    )

"""A model under watch, over a prediction log on disk."""

from __future__ import annotations

import hashlib
import json
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.bundle import Input
from contracts.content import describe_content
from contracts.errors import PlatformError
from contracts.ports import free_port
from contracts.settings import load
from services.feedback import layout
from services.monitor.housekeeping import Housekeeping
from services.monitor.rules import Rules
from services.monitor.service import Monitor
from services.monitor.settings import MonitorSettings
from tests.monitor_log import NOON, Log


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def _drifted(report: dict[str, Any]) -> Sequence[str]:
    names: Sequence[str] = report["drifted"]
    return names


def test_traffic_as_the_baseline_says_is_described_and_raises_no_alarm(log: Log) -> None:
    log.write(60)
    found = log.look(log.monitor())
    assert set(found["inputs"]) == {"size", "colour", "(answer)", "(label)"}
    assert _drifted(found) == []
    assert found["reference_rows"] == 4_000
    assert found["inputs"]["size"]["rows"] == found["rows"] == 3_000
    assert all(one["psi"] < 2 * one["noise_floor"] for one in found["inputs"].values())
    assert sum(found["inputs"]["colour"]["now"]) == pytest.approx(1, abs=1e-5)  # each share has six decimals


def test_half_a_deviation_is_seen_within_a_minute_and_is_gone_when_it_ends(log: Log) -> None:
    monitor = log.monitor()
    log.write(60)
    log.look(monitor)
    begun = log.at
    log.write(50, shift=0.5)
    found = log.look(monitor)
    assert _drifted(found) == ["size"]
    since = datetime.fromisoformat(found["inputs"]["size"]["since"])
    assert abs(since - begun) <= timedelta(seconds=20)
    log.write(40)
    assert _drifted(log.look(monitor)) == []


@pytest.mark.parametrize(
    ("given", "name", "share"),
    [
        ({"size": None}, "size", "missing"),
        ({"size": ...}, "size", "absent"),
        ({"size": "large"}, "size", "other_type"),
        ({"size": 1e6}, "size", "new_or_out_of_range"),
        ({"colour": {"chars": 6}}, "colour", "new_or_out_of_range"),
        ({"colour": "red"}, "colour", None),
    ],
)
def test_what_breaks_an_input_is_named(log: Log, given: dict[str, Any], name: str, share: str | None) -> None:
    log.write(40, rate=20)
    log.write(40, rate=20, **given)
    found = log.look(log.monitor())
    assert _drifted(found) == [name]
    if share:
        assert found["inputs"][name][share] == 1


@pytest.fixture
def texts(tmp_path: Path) -> Log:
    """A log whose bundle says what its texts are like."""
    words = ["the bank said", "profit rose on", "what analysts had", "expected of the company", "a strong quarter"]
    rows = [f"{words[at % 5]} {words[(at // 5) % 5]} {words[at // 25 % 5]}" for at in range(400)]
    content = describe_content({"note": np.array(rows, object)}, [Input(name="note", dtype="string")], {})
    return Log(tmp_path, note={"kind": "text", "length": {"edges": [9.0], "shares": [1.0]}, **content["note"]})


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, []),
        ({"script": "latin", "familiar": 1.0}, []),
        ({"script": "latin", "familiar": 0.1}, ["note:familiar"]),
        ({"script": "cyrillic", "familiar": 0.0}, ["note:script", "note:familiar"]),
    ],
)
def test_texts_of_another_language_are_seen_and_older_records_say_nothing(
    texts: Log, given: dict[str, Any], named: list[str]
) -> None:
    texts.write(40, rate=20, note={"chars": 9, **given})
    found = texts.look(texts.monitor())
    assert {"note:script", "note:familiar"} < set(found["inputs"])
    assert _drifted(found) == named
    assert found["inputs"]["note:script"]["rows"] == (800 if given else 0)


@pytest.mark.parametrize(("moved", "named"), [(0.0, []), (0.15, ["note:distance"])])
def test_rows_far_from_usual_ones_are_seen_and_those_that_were_not_measured_are_not_missing(
    tmp_path: Path, moved: float, named: list[str]
) -> None:
    rng = np.random.default_rng(4)
    vectors = [rng.normal([1.0, *[0.0] * 15], 0.2) for _ in range(400)]
    note = Input(name="note", dtype="string")
    content = describe_content({"note": np.array(["a"], object)}, [note], {}, vectors=vectors)["note"]
    usual = [1 - one[0] / np.linalg.norm(one) for one in vectors]
    del content["traits"]["script"]
    log = Log(tmp_path, note={"kind": "text", "length": {"edges": [9.0], "shares": [1.0]}, **content})
    for _ in range(120):
        log.write(1, rate=2, note={"chars": 9, "distance": round(rng.choice(usual) + moved, 6)})
        log.write(1, rate=8)
    found = log.look(log.monitor())
    one, other = found["inputs"]["note:distance"], found["inputs"]["size"]
    assert (found["rows"], one["rows"], one["missing"]) == (1_200, 240, 0)
    assert _drifted(found) == named
    assert one["noise_floor"] > 1.5 * other["noise_floor"], "few rows say what is usual"


def test_a_restart_goes_on_and_counts_no_record_twice(log: Log) -> None:
    log.write(20)
    log.look(log.monitor())
    log.write(10)
    after = log.look(log.monitor())
    assert after["rows"] == 1_500
    whole = log.monitor()
    (log.folder / "m" / "monitor" / "state.json").unlink()
    assert log.look(whole)["inputs"] == after["inputs"]


def test_of_two_monitors_one_watches_and_the_other_takes_over(log: Log) -> None:
    first, second = log.monitor(), log.another_monitor()
    log.write(20)
    log.look(first)
    with pytest.raises(PlatformError) as caught:
        second.look(log.at)
    assert (caught.value.code, second.kept_report()["versions"]["1"]["rows"]) == ("lease_held", 1_000)
    log.write(10)
    first.release()
    assert log.look(second)["rows"] == 1_500
    with pytest.raises(PlatformError):
        first.look(log.at)


def test_a_monitor_that_slept_writes_nothing_over_what_another_one_has_counted(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = (log.another_monitor() for _ in range(3))
    ahead = [0.0]
    for one in (first, second, third):
        monkeypatch.setattr(one._lease, "_clock", lambda: datetime.now(UTC) + timedelta(seconds=ahead[0]))
    log.write(20)
    log.look(first)
    ahead[0] = 61
    log.write(10)
    log.look(second)
    second.release()
    with pytest.raises(PlatformError) as caught:
        first.look(log.at)
    assert (caught.value.code, first.kept_report()["versions"]["1"]["rows"]) == ("lease_held", 1_500)
    log.write(10)
    assert log.look(third)["rows"] == 2_000


def test_finished_days_become_parquet_by_themselves_and_old_ones_go(log: Log) -> None:
    log.write(20)
    monitor = log.monitor()
    log.look(monitor)
    log.write(4)
    house = Housekeeping(str(log.folder), keep_days=3)
    house.of(["m"])
    house.once(now=NOON + timedelta(days=1, hours=1))
    names = [file.name for file in layout.files(str(log.folder), "m")]
    assert [name.partition("/")[0] for name in names] == [f"day={NOON:%Y-%m-%d}"]
    assert log.look(monitor)["rows"] == 1_200, "those that it had not read as lines, and no other, come from Parquet"
    house.once(now=NOON + timedelta(days=6))
    assert layout.files(str(log.folder), "m") == []


def test_a_state_that_cannot_be_read_is_named(log: Log) -> None:
    (log.folder / "m" / "monitor").mkdir(parents=True)
    (log.folder / "m" / "monitor" / "state.json").write_text("{")
    with pytest.raises(PlatformError, match="state of m") as raised:
        log.look(log.monitor())
    assert raised.value.code == "bad_state"


def test_late_records_count_in_their_window_and_those_of_the_future_now(log: Log) -> None:
    monitor = log.monitor()
    log.write(300, rate=5)
    log.look(monitor)
    now, log.at = log.at, NOON
    log.write(30, rate=10, file="b")
    log.at = now + timedelta(days=3)
    log.write(1, rate=10, file="c")
    log.at = now
    found = log.look(monitor)
    assert (found["late"], found["from_the_future"]) == (300, 10)
    assert found["inputs"]["size"]["rows"] == 1_500 + 300 + 10
    assert found["newest"] <= (now + timedelta(seconds=60)).isoformat()


def test_without_traffic_it_says_so_and_alarms_of_nothing(log: Log) -> None:
    monitor = log.monitor()
    log.write(60, shift=2.0)
    assert _drifted(log.look(monitor)) == ["size"]
    found = log.look(monitor, later=3_600)
    assert _drifted(found) == []
    assert "no traffic since" in found["note"]


def test_a_model_without_a_baseline_is_watched_against_its_first_day(tmp_path: Path) -> None:
    log, rules = Log(tmp_path, baseline=False), Rules(first_seconds=600, first_rows=500)
    log.write(300, rate=2)
    found = log.look(log.monitor(rules))
    assert (found["learning"], found["inputs"]) == (True, {})
    assert "first full day" in found["note"]
    log.write(320, rate=2)
    monitor = log.monitor(rules)
    assert not log.look(monitor)["learning"]
    log.write(60, rate=20, shift=2.0)
    found = log.look(log.monitor(rules))
    assert found["reference"] == "its first full day"
    assert set(found["inputs"]) == {"size", "colour", "note", "(answer)", "(label)"}
    assert _drifted(found) == ["size"]


def test_an_older_bundle_says_no_rows_and_is_taken_to_have_few(log: Log) -> None:
    folder = next((log.artifacts / "m").iterdir())
    baseline, document = (
        json.loads((folder / "baseline.json").read_text()),
        json.loads((folder / "bundle.json").read_text()),
    )
    del baseline["rows"], baseline["answer"]
    baseline["scores"] = {"yes": {"edges": [0.0, 0.2, 0.5, 1.0], "shares": [0.3, 0.6, 0.1]}}
    text = json.dumps(baseline)
    document["files"]["baseline.json"] = hashlib.sha256(text.encode()).hexdigest()
    (folder / "baseline.json").write_text(text)
    (folder / "bundle.json").write_text(json.dumps(document))
    log.digest = hashlib.sha256((folder / "bundle.json").read_bytes()).hexdigest()[:12]
    folder.rename(folder.parent / log.digest)
    log.write(10)
    found = log.look(log.monitor())
    assert found["reference_rows"] == 200
    assert "no number of rows" in found["note"]
    assert set(found["inputs"]) == {"size", "colour", "(answer)"}


@pytest.fixture
def metrics(log: Log) -> Iterator[Any]:
    port = free_port()
    settings = load(
        MonitorSettings,
        environ={},
        overrides={"predictions": str(log.folder), "artifacts": str(log.artifacts), "port": port, "host": "127.0.0.1"},
    )
    monitor = Monitor(settings)
    end = monitor.serve()

    def scrape() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            return str(answer.read().decode())

    yield monitor, scrape
    end()


def test_metrics_are_those_of_the_last_pass_and_an_unreachable_log_leaves_them(log: Log, metrics: Any) -> None:
    monitor, scrape = metrics
    log.now()
    log.write(60, colour="grey")
    assert monitor.look()["m"]["drifted"] == ["colour"]
    before = scrape()
    assert 'fairlead_monitor_drift_detected{input="colour",model="m",version="1"} 1.0' in before
    assert 'fairlead_monitor_rows_total{model="m",version="1"} 3000.0' in before
    assert 'fairlead_monitor_new_category_ratio{input="colour",model="m",version="1"}' in before
    assert 'measure="js"' in before
    (log.folder / "m").rename(log.folder.parent / "away")
    (log.folder / "m").write_text("no folder")
    found = monitor.look()["m"]
    assert found["error"]["headline"]
    assert found["drifted"] == ["colour"]
    after = scrape()
    pick = [line for line in before.splitlines() if line.startswith("fairlead_monitor_")]
    assert [line for line in after.splitlines() if line.startswith("fairlead_monitor_")] == pick


def test_who_stands_by_shows_the_report_of_the_other_and_exports_nothing(log: Log, metrics: Any) -> None:
    monitor, scrape = metrics
    log.now()
    log.write(60, colour="grey")
    other = log.monitor()
    other.look(log.at)
    found = monitor.look()["m"]
    assert (found["drifted"], "standing_by" in found) == (["colour"], True)
    assert 'model="m"' not in scrape()
    other.release()
    assert "standing_by" not in monitor.look()["m"]
    assert 'fairlead_monitor_drift_detected{input="colour",model="m",version="1"} 1.0' in scrape()


def test_the_service_ends_when_it_is_told_to(log: Log, metrics: Any) -> None:
    monitor, _ = metrics
    log.write(1)
    stop, seen = threading.Event(), list[Any]()

    def after(reports: Any) -> None:
        seen.append(reports)
        stop.set()

    monitor.run(stop, after)
    assert list(seen[0]) == ["m"]


def test_without_a_log_the_settings_are_refused() -> None:
    with pytest.raises(PlatformError, match="no prediction log"):
        Monitor(load(MonitorSettings, environ={}))

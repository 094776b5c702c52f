"""How quality and drift were: windows that late labels change, and points that become fewer as they become old."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from services.monitor import history as module
from services.monitor.bundles import Known
from services.monitor.history import History

BEGIN = datetime(2026, 3, 2, tzinfo=UTC)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows were measured, each time that they were."""
    sizes: list[int] = []

    def of_all(rows: Any, known: object) -> list[dict[str, Any]]:
        sizes.append(len(rows))
        good = sum(row["label"] == "yes" for row in rows) / len(rows)
        return [{"metric": "f1", "slice": "", "value": good, "low": 0.0, "high": 1.0, "reference": 0.9, "rows": 1}]

    monkeypatch.setattr(module, "of_all", of_all)
    return sizes


def rows(day: int, count: int, label: str = "yes", late: int = 0) -> list[dict[str, Any]]:
    times = [(BEGIN + timedelta(days=day, minutes=at)).isoformat() for at in range(count)]
    return [{"time": time, "label": label, "at": f"2026-04-0{1 + late}", "answer": {}, "slices": {}} for time in times]


def windows(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "history.json").read_text())["versions"]["1"]["quality"]
    return found


def test_a_window_is_measured_again_only_when_it_has_new_labels(tmp_path, measured):
    kept = History(str(tmp_path))
    kept.quality("1", "d", [*rows(0, 60), *rows(1, 80), *rows(2, 10), *rows(4, 90)], Known())
    kept.save()
    assert [(one["begin"][:10], one["rows"], one["seconds"]) for one in windows(tmp_path)] == [
        ("2026-03-02", 60, 86_400), ("2026-03-03", 80, 86_400), ("2026-03-06", 90, 86_400),
    ]  # fmt: skip
    again = History(str(tmp_path))
    corrected = [*rows(0, 59), *rows(0, 60, "no", late=1)[59:]]
    again.quality("1", "d", [*corrected, *rows(1, 80), *rows(4, 95)], Known())
    again.save()
    assert measured == [60, 80, 90, 60, 95]
    assert windows(tmp_path)[0]["metrics"][0]["value"] == pytest.approx(59 / 60)


def test_windows_whose_rows_are_no_longer_held_stay_as_they_were(tmp_path, measured):
    kept = History(str(tmp_path))
    kept.quality("1", "d", [*rows(0, 60), *rows(1, 80), *rows(4, 60)], Known())
    kept.quality("1", "d", [*rows(1, 70), *rows(4, 60), *rows(9, 60)], Known())
    kept.save()
    assert [(one["begin"][8:10], one["rows"]) for one in windows(tmp_path)] == [
        ("02", 60), ("03", 80), ("06", 60), ("11", 60),
    ]  # fmt: skip
    kept.quality("1", "other", rows(9, 60), Known())
    kept.save()
    assert len(windows(tmp_path)) == 1, "the name means another bundle now"


def test_the_first_days_are_seen_by_the_hour(tmp_path, measured):
    kept = History(str(tmp_path))
    kept.quality("1", "d", rows(0, 180), Known())
    kept.save()
    assert [one["seconds"] for one in windows(tmp_path)] == [3600, 3600, 3600]


def test_points_of_drift_are_bounded_and_reach_back_to_the_first(tmp_path):
    kept = History(str(tmp_path))
    for minute in range(0, 5 * 2000, 5):
        newest = (BEGIN + timedelta(minutes=minute)).isoformat()
        kept.drift("1", {"digest": "d", "newest": newest, "quiet": False, "inputs": {"size": {"psi": 0.12345678}}})
    kept.drift("1", {"digest": "d", "newest": newest, "quiet": False, "inputs": {"size": {"psi": 1.0}}})
    kept.save()
    points = json.loads((tmp_path / "history.json").read_text())["versions"]["1"]["drift"]
    assert len(points) <= 240
    assert points[0] == {"time": BEGIN.isoformat(), "psi": {"size": 0.1235}}
    assert points[-1]["time"] == newest
    assert [one["time"] for one in points] == sorted(one["time"] for one in points)


def test_versions_that_are_no_longer_watched_go_and_a_broken_document_begins_anew(tmp_path, measured):
    kept = History(str(tmp_path))
    kept.quality("1", "d", rows(0, 60), Known())
    kept.quality("2", "d", rows(0, 60), Known())
    kept.forget(["2"])
    kept.save()
    assert set(json.loads((tmp_path / "history.json").read_text())["versions"]) == {"2"}
    (tmp_path / "history.json").write_text("{")
    assert History(str(tmp_path))._versions == {}

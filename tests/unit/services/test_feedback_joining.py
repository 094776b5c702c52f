"""Labels that come late, twice, corrected or contradicting, joined to their predictions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import storage
from services.feedback import layout
from services.feedback.compaction import compact
from services.feedback.joining import joined, winners
from services.feedback.line_file import Unreadable, append
from services.feedback.records import Label, Prediction, line_of

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def identifier(number: int, at: datetime) -> str:
    return f"{int(at.timestamp() * 1000):012x}{number:020x}"


def prediction(number: int, at: datetime) -> Prediction:
    return Prediction(
        id=identifier(number, at),
        time=at + timedelta(milliseconds=3),
        model="m",
        version="1",
        digest="",
        answer={"label": "a"},
        inputs={"x": 1.0},
        entities={},
        flags=(),
        latency_ms=1.0,
        schema=2,
    )


def label(number: int, at: datetime, value: Any = "a", *, days: float = 7) -> Label:
    return Label(id=identifier(number, at), label=value, time=at + timedelta(days=days))


def write(folder: Path, *records: Any, kind: layout.Kind = "predictions") -> None:
    for one in records:
        file = Path(layout.home(str(folder), "m", kind)) / f"{one.time:%Y-%m-%d}.a-1.jsonl"
        append(file, line_of(one))


def shown(folder: Path, start: datetime, end: datetime, **options: int) -> list[tuple[int, Any]]:
    rows = joined(str(folder), "m", start, end, **options)
    return sorted((int(one.prediction.id[12:], 16), one.label and one.label.label) for one in rows)


def test_the_latest_label_wins_and_both_are_kept(tmp_path: Path) -> None:
    write(tmp_path, prediction(1, START), prediction(2, START), prediction(3, START))
    write(tmp_path, label(1, START, "b", days=9), label(1, START, "a", days=7), label(2, START), kind="labels")
    window = (START, START + timedelta(days=1))
    assert shown(tmp_path, *window) == [(1, "b"), (2, "a"), (3, None)]
    for kind in ("predictions", "labels"):
        compact(str(tmp_path), "m", kind, Unreadable())
    assert shown(tmp_path, *window) == [(1, "b"), (2, "a"), (3, None)]


@pytest.mark.parametrize("most", [1, 7, 1000])
def test_a_window_with_many_labels_is_read_in_parts_without_loss(tmp_path: Path, most: int) -> None:
    times = [START + timedelta(minutes=7 * number) for number in range(40)]
    write(tmp_path, *(prediction(number, at) for number, at in enumerate(times)))
    write(tmp_path, *(label(number, at, number) for number, at in enumerate(times)), kind="labels")
    assert shown(tmp_path, START, START + timedelta(days=1), most=most) == [(n, n) for n in range(40)]
    inside = [n for n, at in enumerate(times) if START <= at + timedelta(milliseconds=3) < times[20]]
    assert shown(tmp_path, START, times[20], most=most) == [(n, n) for n in inside]


LABELS = st.lists(
    st.builds(
        lambda number, hours, value: label(number, START, value, days=hours / 24),
        st.integers(0, 3),
        st.integers(0, 3),
        st.sampled_from(["a", "b"]),
    ),
    max_size=12,
)


@settings(max_examples=40)
@given(data=st.data(), delivered=LABELS)
def test_any_order_and_repetition_of_deliveries_gives_the_same(data: st.DataObject, delivered: list[Label]) -> None:
    again = delivered + (data.draw(st.lists(st.sampled_from(delivered), max_size=6)) if delivered else [])
    assert winners(data.draw(st.permutations(again))) == winners(delivered)
    assert all(one.time >= other.time for other in delivered for one in [winners(delivered)[other.id]])


def test_labels_in_s3_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from services.feedback.writing import write_labels
    from tests.s3_folder import FolderClient

    (tmp_path / "lake").mkdir()
    client = FolderClient(tmp_path)
    monkeypatch.setattr(storage, "_client", lambda: client)
    one = prediction(1, datetime.now(UTC))
    storage.write_bytes(layout.new_object(layout.home("s3://lake/log", "m")), line_of(one))
    write_labels("s3://lake/log", "m", [Label(id=one.id, label="b", time=datetime.now(UTC))])
    (found,) = joined("s3://lake/log", "m", one.time, one.time + timedelta(seconds=1))
    assert found.label is not None
    assert found.label.label == "b"

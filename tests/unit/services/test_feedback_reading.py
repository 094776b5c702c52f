"""The prediction log as it is read: whole, by time, and while it grows."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from contracts import storage
from contracts.errors import PlatformError
from services.feedback import layout
from services.feedback.line_file import Unreadable
from services.feedback.reading import Position, new_predictions, predictions
from services.feedback.records import Label, Prediction, id_time, line_of
from services.model.prediction_log import new_id

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
OLD = {
    "id": "0" * 32,
    "time": "2026-03-01T12:00:00.000+00:00",
    "model": "m",
    "version": "1",
    "digest": "abc",
    "label": "fraud",
    "score": 0.5,
    "inputs": {"amount": 1.0, "note": {"chars": 8}},
}


def line(number: int, at: datetime = NOON) -> bytes:
    document = {**OLD, "id": f"{number:032x}", "time": at.isoformat(), "schema": 2, "latency_ms": 1.5}
    return json.dumps(document).encode() + b"\n"


def put(folder: str, name: str, data: bytes) -> None:
    day, _, rest = name.partition(".")
    storage.write_bytes(storage.join(folder, "m", f"{day}/{rest}" if storage.is_remote(folder) else name), data)


def numbers(records: Any) -> list[int]:
    return [int(one.id, 16) for one in records]


def test_a_record_of_the_first_schema_is_read_and_written_as_it_was() -> None:
    record = Prediction.of(OLD)
    assert (record.schema, record.latency_ms, record.answer) == (1, None, {"label": "fraud", "score": 0.5})
    assert (record.time, record.flags, record.entities) == (NOON, (), {})
    assert json.loads(line_of(record)) == OLD


def test_what_the_server_logs_is_read(serve: Any, make_bundle: Any, tmp_path: Path) -> None:
    served = serve(make_bundle(), predictions={"folder": str(tmp_path / "log"), "salt": "s"})
    answer = served.predict({"amount": None, "country": "AT"}).json()["predictions"][0]
    served.runtime.log.close()
    folder, now = str(tmp_path / "log"), datetime.now(UTC)
    (record,) = predictions(folder, "payments", now - timedelta(minutes=5), now + timedelta(minutes=5))
    assert (record.id, record.version, record.flags) == (answer["id"], "3", ("missing:amount",))
    assert record.answer["label"] == answer["label"]
    assert record.latency_ms is not None
    assert Prediction.of(json.loads(line_of(record))) == record
    assert abs(id_time(record.id) - record.time) < timedelta(seconds=1)
    assert layout.models(folder) == ["payments"]


def test_new_records_are_read_once_and_positions_survive_a_restart(folder: str) -> None:
    put(folder, "2026-03-01.a-1.jsonl", line(1) + line(2))
    put(folder, "2026-03-02.a-1.jsonl", line(3))
    first = new_predictions(folder, "m", Position())
    assert (numbers(first.records), first.more) == ([1, 2, 3], False)
    position = Position.from_json(first.position.to_json())
    assert position == first.position
    put(folder, "2026-03-02.b-1.jsonl", line(4))
    put(folder, "2026-03-05.a-1.jsonl", line(5))
    second = new_predictions(folder, "m", position)
    assert numbers(second.records) == [4, 5]
    assert numbers(new_predictions(folder, "m", second.position).records) == []
    assert list(second.position.files) == [layout.files(folder, "m")[-1].name], "what is read to its end is forgotten"


def test_a_limit_stops_between_pieces_and_loses_nothing(folder: str) -> None:
    for number in range(5):
        put(folder, f"2026-03-01.a-{number}.jsonl", line(2 * number) + line(2 * number + 1))
    found, position, more = list[int](), Position(), True
    while more:
        news = new_predictions(folder, "m", position, limit=3)
        assert len(news.records) <= 4
        found, position, more = found + numbers(news.records), news.position, news.more
    assert found == list(range(10))


def test_a_clock_that_is_ahead_does_not_end_what_others_write(folder: str) -> None:
    today = datetime.now(UTC)
    ahead = today + timedelta(days=400)
    put(folder, f"{ahead:%Y-%m-%d}.b-1.jsonl", line(1, ahead))
    put(folder, f"{today:%Y-%m-%d}.a-1.jsonl", line(2, today))
    first = new_predictions(folder, "m", Position())
    put(folder, f"{today:%Y-%m-%d}.a-2.jsonl", line(3, today))
    put(folder, f"{today + timedelta(days=1):%Y-%m-%d}.a-1.jsonl", line(4, today))
    second = new_predictions(folder, "m", first.position)
    assert (sorted(numbers(first.records)), sorted(numbers(second.records))) == ([1, 2], [3, 4])
    assert numbers(predictions(folder, "m", ahead, ahead + timedelta(seconds=1))) == [1]
    assert new_predictions(folder, "m", second.position).records == []


def test_a_half_line_is_left_for_the_next_time(tmp_path: Path) -> None:
    file = tmp_path / "m" / "2026-03-01.a-1.jsonl"
    file.parent.mkdir()
    file.write_bytes(line(1) + line(2)[:20])
    first = new_predictions(str(tmp_path), "m", Position())
    assert (numbers(first.records), first.unreadable.count) == ([1], 0)
    with file.open("ab") as stream:
        stream.write(line(2)[20:])
    assert numbers(new_predictions(str(tmp_path), "m", first.position).records) == [2]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'{"id": ', "is no JSON"),
        (b"[1]", "expected an object"),
        (b'{"id": "a"}', "has no time"),
        (json.dumps({**OLD, "time": "2026-03-01T12:00:00"}).encode(), "time has no zone"),
        (json.dumps({**OLD, "time": 12}).encode(), "time is no text"),
        (json.dumps({**OLD, "inputs": 3}).encode(), "expected an object"),
        (b"\xff\xfe", "is no JSON"),
    ],
)
def test_a_line_that_is_no_record_is_named_and_the_others_are_read(folder: str, bad: bytes, reason: str) -> None:
    put(folder, "2026-03-01.a-1.jsonl", line(1) + bad + b"\n" + line(2))
    news = new_predictions(folder, "m", Position())
    (file,) = layout.files(folder, "m")
    assert (numbers(news.records), news.unreadable.count) == ([1, 2], 1)
    assert news.unreadable.named == [f"{file.name} at byte {len(line(1))}: {reason}"]
    unreadable = Unreadable()
    assert numbers(predictions(folder, "m", NOON, NOON + timedelta(hours=1), unreadable)) == [1, 2]
    assert unreadable.count == 1


def test_a_window_is_by_event_time_whatever_file_a_record_is_in(folder: str) -> None:
    late = NOON + timedelta(hours=11, minutes=59)
    put(folder, "2026-03-01.a-1.jsonl", line(1, NOON - timedelta(seconds=1)) + line(2))
    put(folder, "2026-03-02.a-1.jsonl", line(3, late) + line(4, NOON + timedelta(days=1)))
    put(folder, "2026-02-28.a-1.jsonl", line(5, NOON - timedelta(days=1)))
    assert numbers(predictions(folder, "m", NOON, NOON + timedelta(days=1))) == [2, 3]


def test_other_files_are_passed_over(folder: str) -> None:
    for name in ("2026-03-01.a-1.jsonl", "2026-03-01.notes.txt", "2026-99-01.a-1.jsonl", "x.jsonl"):
        put(folder, name, line(1))
    assert len(layout.files(folder, "m")) == 1
    assert layout.files(folder, "other") == []


@pytest.mark.parametrize(
    "text", ["", "[]", '{"files": {}}', '{"since": "x", "files": {}}', '{"since": 1, "files": {}}']
)
def test_a_position_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(PlatformError) as caught:
        Position.from_json(text)
    assert caught.value.code == "bad_position"


def test_a_label_is_read_as_it_was_written() -> None:
    label = Label(id=new_id(), label=["a", "b"], time=NOON + timedelta(microseconds=1), version="3")
    assert Label.of(json.loads(line_of(label))) == label

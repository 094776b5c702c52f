"""Records of one entity are removed, days are listed, and old ones dropped."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from contracts import storage
from services.feedback import annotating, layout
from services.feedback.compaction import compact
from services.feedback.days import days, drop_before
from services.feedback.forgetting import Forgotten, annotated, forget, removals
from services.feedback.hashing import hashed
from services.feedback.line_file import Unreadable, append, rewrite
from services.feedback.reading import Position, labels, logged_annotations, new_predictions, predictions
from services.feedback.records import Annotation, Label, Prediction, line_of
from services.feedback.writing import write_annotations

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ALL = (NOON - timedelta(days=30), NOON + timedelta(days=30))


def record(number: int, card: str = "1", at: datetime = NOON) -> Prediction:
    return Prediction(
        id=f"{int(at.timestamp() * 1000):012x}{number:020x}",
        time=at,
        model="m",
        version=str(number % 2),
        digest="",
        answer={"label": "a"},
        inputs={"x": 1.0},
        entities={"card": hashed(b"salt", card)},
        flags=(),
        latency_ms=1.0,
        schema=2,
    )


def put(folder: str, name: str, *records: Any, kind: layout.Kind = "predictions") -> None:
    day, _, end = name.partition(".")
    name = f"{day}/{end}" if storage.is_remote(folder) else name
    storage.write_bytes(storage.join(layout.home(folder, "m", kind), name), b"".join(map(line_of, records)))


def of(folder: str) -> list[int]:
    return sorted(int(one.id[12:], 16) for one in predictions(folder, "m", *ALL))


def labelled(folder: str) -> list[int]:
    return sorted(int(one.id[12:], 16) for one in labels(folder, "m"))


def filled(folder: str) -> list[Prediction]:
    """Two days of lines, of which one is compacted, with a label for each record."""
    given = [record(1), record(2, "2"), record(3), record(4, "2", NOON + timedelta(days=1)), record(5, "1")]
    put(folder, "2026-03-01.a-1.jsonl", *given[:3])
    found = [Label(id=one.id, label="a", time=one.time) for one in given]
    put(folder, "2026-03-01.a-1.jsonl", *found[:3], kind="labels")
    for kind in ("predictions", "labels"):
        compact(folder, "m", kind, Unreadable())
    put(folder, "2026-03-02.a-1.jsonl", *given[3:])
    put(folder, "2026-03-02.a-1.jsonl", *found[3:], kind="labels")
    return given


def test_an_entity_is_removed_from_lines_parquet_and_labels(folder: str) -> None:
    filled(folder)
    before = new_predictions(folder, "m", Position())
    assert forget(folder, "m", {"card": "1"}, "salt") == Forgotten(predictions=3, labels=3)
    assert (of(folder), labelled(folder)) == ([2, 4], [2, 4])
    (note,) = removals(folder, "m")
    assert (note["predictions"], note["labels"], set(note)) == (3, 3, {"time", "predictions", "labels", "annotations"})
    assert new_predictions(folder, "m", before.position).records == [], "positions stay what they were"
    assert new_predictions(folder, "m", before.position).unreadable.count == 0
    compact(folder, "m", "predictions", Unreadable())
    assert of(folder) == [2, 4]
    base = layout.home(folder, "m")
    for name in storage.list_names(base):
        if name.endswith((".json", ".jsonl")):
            assert hashed(b"salt", "1").encode() not in storage.read_bytes(storage.join(base, name))


def test_others_and_other_salts_find_nothing(folder: str) -> None:
    filled(folder)
    nothing = Forgotten(predictions=0, labels=0)
    assert forget(folder, "m", {"card": "3"}, "salt") == nothing
    assert forget(folder, "m", {"card": "1"}, "other") == nothing
    assert forget(folder, "m", {"card": "1", "customer": "1"}, "salt") == nothing
    assert (of(folder), removals(folder, "m")) == ([1, 2, 3, 4, 5], [])


def test_keys_that_are_kept_as_they_are_are_found_too(folder: str) -> None:
    put(folder, "2026-03-01.a-1.jsonl", replace(record(1), entities={"card": "1"}), record(2, "2"))
    assert forget(folder, "m", {"card": "1"}, "salt").predictions == 1
    assert of(folder) == [2]


def test_what_a_crash_left_is_forgotten_by_the_next_call(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(folder)
    write = storage.write_bytes

    def dies(uri: str, data: bytes) -> None:
        if uri.endswith("a-1.jsonl") and "labels" not in uri:
            raise RuntimeError
        write(uri, data)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_bytes", dies)
        with pytest.raises(RuntimeError):
            forget(folder, "m", {"card": "1"}, "salt")
    forget(folder, "m", {"card": "1"}, "salt")
    assert (of(folder), labelled(folder)) == ([2, 4], [2, 4])


def test_a_writer_beside_it_loses_no_line(tmp_path: Path) -> None:
    file = tmp_path / "m" / "2026-03-01.a-1.jsonl"
    lines = [line_of(record(number, str(number % 2))) for number in range(200)]
    append(file, lines[0])

    def write() -> None:
        for one in lines[1:]:
            append(file, one)

    writing = threading.Thread(target=write)
    writing.start()
    gone = 0
    while writing.is_alive():
        for one in layout.files(str(tmp_path), "m"):
            gone += rewrite(one, lambda line: hashed(b"salt", "1").encode() in line)
    forget(str(tmp_path), "m", {"card": "1"}, "salt")
    assert of(str(tmp_path)) == list(range(0, 200, 2))


def test_days_are_listed(folder: str) -> None:
    filled(folder)
    put(folder, "2026-03-03.a-1.jsonl", record(9, at=NOON + timedelta(days=2)))
    found = [one.document() for one in days(folder, "m", Unreadable())]
    assert all(one.pop("bytes") > 100 for one in found)
    parquet = {
        "day": "2026-03-01",
        "rows": 3,
        "versions": ["0", "1"],
        "labels": 4,
        "form": "parquet",
        "uncounted_files": 0,
    }
    lines = {"day": "2026-03-02", "rows": 2, "versions": ["0", "1"], "labels": 1, "form": "lines", "uncounted_files": 0}
    assert found[:2] == [parquet, lines]
    assert (found[2]["rows"], found[2]["versions"], found[2]["labels"]) == (1, ["1"], 0)


def test_old_days_are_dropped_and_others_kept(folder: str) -> None:
    filled(folder)
    for kind in ("predictions", "labels"):
        compact(folder, "m", kind, Unreadable())
    now = NOON + timedelta(days=5)
    assert drop_before(folder, "m", 5, now=now) == []
    assert len(drop_before(folder, "m", 4, now=now)) >= 2
    assert of(folder) == [4]


def remark(one: Prediction, said: Any, at: datetime = NOON) -> Annotation:
    return annotating.checked({"id": one.id, "annotation": said, "time": at.isoformat()}, at)


def remarks(folder: str) -> list[Any]:
    return [one.annotation for one in logged_annotations(folder, "m")]


def test_annotations_of_an_entity_are_removed_from_lines_and_parquet(folder: str) -> None:
    given, later = filled(folder), NOON + timedelta(days=1)
    put(folder, "2026-03-01.a-1.jsonl", remark(given[0], {"tags": ["a"]}), remark(given[1], [0.5]), kind="annotations")
    assert compact(folder, "m", "annotations", Unreadable()).records == 2
    put(folder, "2026-03-02.a-1.jsonl", remark(given[3], 2**60, later), remark(given[4], "x"), kind="annotations")
    assert remarks(folder) == [{"tags": ["a"]}, [0.5], 2**60, "x"], "in both forms as they were sent"
    assert annotated(folder, "m", {given[0].id, given[4].id}) == 2
    assert forget(folder, "m", {"card": "1"}, "salt").annotations == 2
    assert remarks(folder) == [[0.5], 2**60]
    assert drop_before(folder, "m", 1, now=NOON + timedelta(days=30))
    assert remarks(folder) == [2**60], "and those of old days go with the labels"


def test_annotations_are_given_away_once_and_what_is_unreadable_stays(folder: str) -> None:
    given, kept = filled(folder), dict[str, Any]()

    def keep(some: Any) -> int:
        before = len(kept)
        kept.update({f"{one.id}{one.key}": one.annotation for one in some})
        return len(kept) - before

    said = [remark(given[0], "old"), remark(given[1], {"text": "new"})]
    put(folder, "2026-03-01.a-1.jsonl", said[0], kind="annotations")
    compact(folder, "m", "annotations", Unreadable())
    write_annotations(folder, "m", [said[1]])
    write_annotations(folder, "m", said)

    def fails(some: Any) -> int:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        annotating.take(folder, "m", fails)
    assert len(remarks(folder)) == 4, "what was not kept is in the log yet"
    done = annotating.take(folder, "m", keep)
    assert (done.records, done.new, done.unreadable.count, remarks(folder)) == (4, 2, 0, [])
    assert list(kept.values()) == ["old", {"text": "new"}]
    assert annotating.take(folder, "m", keep).files == 0
    write_annotations(folder, "m", said)
    home = layout.home(folder, "m", "annotations")
    storage.write_bytes(layout.new_object(home) if storage.is_remote(home) else f"{home}/2026-03-02.b.jsonl", b"x\n")
    done = annotating.take(folder, "m", keep)
    assert (done.records, done.new, done.unreadable.count) == (2, 0, 1)
    assert len(layout.files(folder, "m", "annotations")) == 1


def test_a_service_goes_on_writing_while_annotations_are_given_away(tmp_path: Path) -> None:
    folder, sent, taken = str(tmp_path), 300, list[Any]()
    given = [remark(record(1), at + 1) for at in range(sent)]
    writing = threading.Thread(target=lambda: [write_annotations(folder, "m", [one]) for one in given])

    def keep(some: Any) -> int:
        taken.extend(one.annotation for one in some)
        return len(some)

    writing.start()
    while writing.is_alive():
        annotating.take(folder, "m", keep)
    writing.join()
    annotating.take(folder, "m", keep)
    assert sorted(taken) == list(range(1, sent + 1)), "each once: none is lost, none given away twice"

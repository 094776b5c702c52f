"""Lines become Parquet, and whoever reads sees each record once, whatever happens meanwhile."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import storage
from contracts.errors import PlatformError
from services.feedback import layout, turn
from services.feedback.compaction import compact
from services.feedback.line_file import Unreadable
from services.feedback.reading import Position, labels, new_predictions, predictions
from services.feedback.records import Label, Prediction, line_of

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ALL = (NOON - timedelta(days=30), NOON + timedelta(days=30))
TODAY = datetime(2026, 3, 4, 12, tzinfo=UTC)


def record(number: int, at: datetime = NOON, **changes: Any) -> Prediction:
    plain = Prediction(
        id=f"{number:032x}",
        time=at,
        model="m",
        version="1",
        digest="abc",
        answer={"label": "fraud", "score": 0.5, "probabilities": [0.5, 0.5]},
        inputs={"amount": 1.5, "count": number, "note": {"chars": 8}, "country": "AT", "new": True, "gone": None},
        entities={"card": "f00"},
        flags=("missing:gone",),
        latency_ms=1.5,
        schema=2,
    )
    return replace(plain, **changes)


def put(folder: str, name: str, *records: Any, rest: bytes = b"", kind: layout.Kind = "predictions") -> None:
    day, _, end = name.partition(".")
    name = f"{day}/{end}" if storage.is_remote(folder) else name
    data = b"".join(map(line_of, records)) + rest
    storage.write_bytes(storage.join(layout.home(folder, "m", kind), name), data)


def found(folder: str) -> list[Prediction]:
    return sorted(predictions(folder, "m", *ALL), key=lambda one: one.id)


def forms(folder: str) -> list[str]:
    return [file.name.partition("/")[0] for file in layout.files(folder, "m")]


def test_records_are_the_same_in_both_forms_and_in_the_day_of_their_event(folder: str) -> None:
    given = [record(1), record(2, NOON - timedelta(days=1)), record(3, version="2", inputs={"other": 2**60})]
    given += [record(4, inputs={**given[0].inputs, "amount": 2, "note": "text"}, entities={}, flags=())]
    given += [record(5, schema=1, latency_ms=None, moment=NOON, answer={"value": 3.25, "interval": [1.0, 4]})]
    put(folder, "2026-03-01.a-1.jsonl", *given[:3])
    put(folder, "2026-03-02.a-1.jsonl", *given[3:])
    put(folder, "2026-03-04.a-1.jsonl", record(6))
    assert found(folder) == [*given, record(6)]
    done = compact(folder, "m", "predictions", Unreadable(), now=TODAY)
    assert (done.files, done.records) == (2, 5)
    assert found(folder) == [*given, record(6)]
    names = forms(folder)
    assert set(names[:-1]) == {"day=2026-02-28", "day=2026-03-01"}
    assert names[-1].startswith("2026-03-04"), "what today's writers are at is left alone"
    assert compact(folder, "m", "predictions", Unreadable(), now=TODAY).files == 0
    late = [one.id for one in predictions(folder, "m", NOON - timedelta(days=1), NOON)]
    assert late == [given[1].id]


def test_a_day_is_finished_some_minutes_after_midnight(folder: str) -> None:
    put(folder, "2026-03-01.a-1.jsonl", record(1))
    early = datetime(2026, 3, 2, 0, 5, tzinfo=UTC)
    assert compact(folder, "m", "predictions", Unreadable(), now=early).files == 0
    assert compact(folder, "m", "predictions", Unreadable(), now=early + timedelta(minutes=20)).files == 1


def test_labels_are_compacted_as_well(folder: str) -> None:
    given = [Label(id=f"{n:032x}", label=one, time=NOON) for n, one in enumerate(["a", 1.5, ["x"], [], "b"])]
    put(folder, "2026-03-01.a-1.jsonl", *given, kind="labels")
    compact(folder, "m", "labels", Unreadable(), now=TODAY)
    assert list(labels(folder, "m")) == given
    assert list(labels(folder, "m", since=date(2026, 3, 2))) == []


def test_lines_that_are_no_records_are_counted_and_named(folder: str) -> None:
    put(folder, "2026-03-01.a-1.jsonl", record(1), rest=b'{"id": \n')
    bad = Unreadable()
    assert compact(folder, "m", "predictions", bad, now=TODAY).records == 1
    assert (bad.count, len(bad.named), "is no JSON" in bad.named[0]) == (1, 1, True)


class CrashError(Exception):
    pass


def crashing(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """The process dies before the call number `at` that changes the store."""
    calls = [0]

    def wrap(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **named: Any) -> Any:
            calls[0] += 1
            if calls[0] == at:
                raise CrashError
            return call(*args, **named)

        return wrapped

    for name in ("write_bytes", "write_new", "upload_file", "remove"):
        monkeypatch.setattr(storage, name, wrap(getattr(storage, name)))


def test_a_crash_at_any_step_loses_and_repeats_nothing(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [record(1), record(2, NOON - timedelta(days=1)), record(3), record(4, NOON + timedelta(days=1))]
    for step in range(1, 50):
        for number, one in enumerate(given[:3]):
            put(folder, f"2026-03-01.a-{number}.jsonl", one)
        put(folder, "2026-03-02.a-1.jsonl", given[3])
        half = new_predictions(folder, "m", Position(), limit=2)
        with monkeypatch.context() as patch:
            crashing(patch, step)
            try:
                compact(folder, "m", "predictions", Unreadable(), now=TODAY)
                crashed = False
            except CrashError:
                crashed = True
        assert found(folder) == given
        rest = new_predictions(folder, "m", half.position)
        assert sorted(one.id for one in half.records + rest.records) == [one.id for one in given]
        compact(folder, "m", "predictions", Unreadable(), now=TODAY)
        assert found(folder) == given
        assert all(name.startswith("day=") for name in forms(folder))
        if not crashed:
            break
        for file in layout.files(folder, "m"):
            storage.remove(file.uri)
    assert step > 8


def test_whoever_follows_reads_on_in_parquet_where_it_stopped_in_lines(folder: str) -> None:
    put(folder, "2026-03-01.a-1.jsonl", record(1), record(2))
    put(folder, "2026-03-02.a-1.jsonl", record(3))
    first = new_predictions(folder, "m", Position())
    put(folder, "2026-03-02.b-1.jsonl", record(4), record(5, NOON - timedelta(days=1)))
    compact(folder, "m", "predictions", Unreadable(), now=TODAY)
    second = new_predictions(folder, "m", Position.from_json(first.position.to_json()))
    assert sorted(int(one.id, 16) for one in second.records) == [4, 5]
    third = new_predictions(folder, "m", second.position)
    assert third.records == []
    put(folder, "2026-03-04.a-1.jsonl", record(6))
    assert [int(one.id, 16) for one in new_predictions(folder, "m", third.position).records] == [6]
    everything, position, more = list[str](), Position(), True
    while more:
        news = new_predictions(folder, "m", position, limit=1)
        everything, position, more = everything + [one.id for one in news.records], news.position, news.more
    assert sorted(everything) == [f"{n:032x}" for n in range(1, 7)]


def test_a_reader_that_a_compaction_overtakes_sees_each_record_once(folder: str) -> None:
    for number in range(3):
        put(folder, f"2026-03-01.a-{number}.jsonl", record(2 * number), record(2 * number + 1))
    reading = predictions(folder, "m", *ALL)
    seen = [next(reading)]
    compact(folder, "m", "predictions", Unreadable(), now=TODAY)
    seen += reading
    assert sorted(one.id for one in seen) == [f"{n:032x}" for n in range(6)]


def test_two_at_once_are_refused_and_a_dead_one_is_taken_over(folder: str) -> None:
    put(folder, "2026-03-01.a-1.jsonl", record(1))
    base, now = layout.home(folder, "m"), datetime.now(UTC)
    theirs = layout.Marker(batch="b", state="writing", owner="elsewhere 1", since=now.isoformat())
    written = layout.write_marker(base, theirs)
    assert written is not None
    with pytest.raises(PlatformError) as caught:
        compact(folder, "m", "predictions", Unreadable(), now=TODAY)
    assert (caught.value.code, "elsewhere" in caught.value.detail) == ("compacting", True)
    assert layout.write_marker(base, replace(written, since=(now - timedelta(hours=2)).isoformat())) is not None
    assert compact(folder, "m", "predictions", Unreadable(), now=TODAY).files == 1


def test_two_compactions_at_once_write_each_record_once(folder: str) -> None:
    given = [record(number) for number in range(40)]
    for number, one in enumerate(given):
        put(folder, f"2026-03-01.a-{number}.jsonl", one)
    outcomes: list[Any] = []

    def run() -> None:
        try:
            outcomes.append(compact(folder, "m", "predictions", Unreadable(), now=TODAY).records)
        except PlatformError as err:
            outcomes.append(err.code)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count(40) == 1
    assert set(outcomes) <= {40, 0, "compacting"}
    assert found(folder) == given
    assert compact(folder, "m", "predictions", Unreadable(), now=TODAY).files == 0


@pytest.mark.parametrize("at", ["upload_file", "write_new"])
def test_one_that_was_taken_for_dead_and_goes_on_changes_nothing(
    folder: str, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    given = [record(1), record(2, NOON - timedelta(days=1))]
    put(folder, "2026-03-01.a-1.jsonl", *given)
    calls, real = [0], getattr(storage, at)

    def wakes_late(*args: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2:  # the second file, or the word that the batch is committed
            with monkeypatch.context() as patch:
                patch.setattr(storage, at, real)
                patch.setattr(turn, "_here", set())
                assert compact(folder, "m", "predictions", Unreadable(), now=TODAY).records == 2
        return real(*args, **named)

    monkeypatch.setattr(storage, at, wakes_late)
    with pytest.raises(PlatformError) as caught:
        compact(folder, "m", "predictions", Unreadable(), now=TODAY)
    assert caught.value.code == "compacting"
    assert found(folder) == given
    monkeypatch.setattr(storage, at, real)
    assert compact(folder, "m", "predictions", Unreadable(), now=TODAY).files == 0


def test_a_marker_of_version_1_counts(folder: str) -> None:
    put(folder, "2026-03-01.a-1.jsonl", record(1))
    base = layout.home(folder, "m")
    old = {"batch": "b", "state": "committed", "sources": [layout.files(folder, "m")[0].name]}
    marker = {**old, "owner": f"{socket.gethostname()} {os.getpid()}", "since": NOON.isoformat()}
    storage.write_bytes(storage.join(base, "compaction.json"), json.dumps(marker).encode())
    assert found(folder) == [], "its lines are in Parquet"
    put(folder, "2026-03-02.a-1.jsonl", record(2))
    assert compact(folder, "m", "predictions", Unreadable(), now=TODAY).files == 1
    assert found(folder) == [record(2)]


def test_a_marker_that_cannot_be_read_is_said(folder: str) -> None:
    for name in ("compaction.json", "compaction/000000000001.json"):
        storage.write_bytes(storage.join(layout.home(folder, "m"), name), b"{")
        with pytest.raises(PlatformError) as caught:
            layout.files(folder, "m")
        assert caught.value.code == "unreadable_log"


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8"), max_size=5),
    st.dictionaries(st.sampled_from(["chars", "hash"]), st.integers(0, 9)),
    st.lists(st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)), max_size=3),
)


@settings(max_examples=12)
@given(rows=st.lists(st.fixed_dictionaries({"a": VALUES, "b": VALUES}), min_size=1, max_size=6))
def test_any_values_survive(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    folder = str(tmp_path_factory.mktemp("log"))
    given = [record(n, inputs=one, answer={"value": one["a"]}) for n, one in enumerate(rows)]
    put(folder, "2026-03-01.a-1.jsonl", *given)
    before = found(folder)
    compact(folder, "m", "predictions", Unreadable(), now=TODAY)
    assert found(folder) == before
    assert [json.loads(line_of(one)) for one in before] == [json.loads(line_of(one)) for one in given]

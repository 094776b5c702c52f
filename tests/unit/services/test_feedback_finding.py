"""Predictions are found by their ids, and days are listed, without reading what cannot hold them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import storage
from services.feedback import layout, parquet_form
from services.feedback.compaction import compact
from services.feedback.days import days
from services.feedback.line_file import Unreadable
from services.feedback.reading import find_predictions
from services.feedback.records import Label, Prediction, line_of
from services.feedback.writing import write_labels
from tests.s3_folder import FolderClient

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TODAY = NOON + timedelta(days=3)


def identifier(at: datetime, number: int = 0) -> str:
    return f"{int(at.timestamp() * 1000):012x}{number:020x}"


def record(at: datetime, number: int = 0) -> Prediction:
    return Prediction(
        id=identifier(at, number),
        time=at,
        model="m",
        version="1",
        digest="d",
        answer={"label": "yes"},
        inputs={"size": float(number), "id": "f" * 32},
        entities={},
        flags=(),
        latency_ms=1.0,
        schema=2,
    )


def put(folder: str, name: str, records: list[Prediction]) -> None:
    day, _, end = name.partition(".")
    name = f"{day}/{end}" if storage.is_remote(folder) else name
    storage.write_bytes(storage.join(layout.home(folder, "m"), name), b"".join(map(line_of, records)))


@settings(max_examples=8)
@given(
    moments=st.lists(st.integers(0, 3 * 86_400), min_size=1, max_size=12, unique=True),
    wanted=st.sets(st.integers(0, 11)),
    compacted=st.booleans(),
)
def test_those_that_are_there_are_found(
    tmp_path_factory: pytest.TempPathFactory, moments: list[int], wanted: set[int], compacted: bool
) -> None:
    folder, start = str(tmp_path_factory.mktemp("log")), NOON - timedelta(hours=12)
    given_ = [record(start + timedelta(seconds=at), number) for number, at in enumerate(moments)]
    for number, one in enumerate(given_):
        put(folder, f"{one.time:%Y-%m-%d}.a-{number % 2}-{number}.jsonl", [one])
    if compacted:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(parquet_form, "GROUP_ROWS", 2)
            compact(folder, "m", "predictions", Unreadable(), now=TODAY + timedelta(days=2))
    ids = {given_[one].id for one in wanted if one < len(given_)} | {identifier(NOON, 99), "no id", "0" * 32}
    found = sorted(find_predictions(folder, "m", ids), key=lambda one: one.id)
    assert found == sorted((one for one in given_ if one.id in ids), key=lambda one: one.id)


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderClient:
    client = FolderClient(tmp_path)
    (tmp_path / "lake").mkdir()
    monkeypatch.setattr(storage, "_client", lambda: client)
    monkeypatch.setattr(storage, "_PART", 1 << 10)
    return client


def test_of_a_day_in_s3_the_groups_that_may_have_an_id_are_fetched(
    lake: FolderClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_form, "GROUP_ROWS", 20)
    put("s3://lake", "2026-03-01.a-1.jsonl", [record(NOON + timedelta(seconds=n), n) for n in range(400)])
    compact("s3://lake", "m", "predictions", Unreadable(), now=TODAY)
    groups: list[int] = []
    real = pq.ParquetFile.read_row_group

    def seen(file: Any, number: int, *args: Any, **named: Any) -> Any:
        groups.append(number)
        return real(file, number, *args, **named)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", seen)
    ids = [identifier(NOON + timedelta(seconds=n), n) for n in (30, 390)]
    assert [one.id for one in find_predictions("s3://lake", "m", [*ids, identifier(NOON + timedelta(hours=5))])] == ids
    assert set(groups) == {1, 19}


def test_listing_days_in_s3_reads_no_lines_and_of_parquet_the_end(lake: FolderClient) -> None:
    put("s3://lake", "2026-03-01.a-1.jsonl", [record(NOON + timedelta(seconds=n), n) for n in range(2_000)])
    write_labels("s3://lake", "m", [Label(id=identifier(NOON), label="yes", time=NOON)])
    for kind in ("predictions", "labels"):
        compact("s3://lake", "m", kind, Unreadable(), now=datetime.now(UTC) + timedelta(days=2))
    put("s3://lake", "2026-03-02.a-1.jsonl", [record(NOON + timedelta(days=1))])
    write_labels("s3://lake", "m", [Label(id=identifier(NOON, 1), label="yes", time=NOON)])
    lake.read.clear()
    first, second = days("s3://lake", "m", Unreadable(), count=False)
    assert (first.rows, first.versions, first.labels, first.uncounted) == (2_000, {"1"}, 1, 0)
    assert (second.rows, second.uncounted, second.bytes > 100) == (0, 1, True)
    assert not [key for key in lake.read if key.endswith(".jsonl")]
    first, second = days("s3://lake", "m", Unreadable())
    assert (first.labels, second.rows) == (2, 1)


def test_a_file_that_does_not_say_how_many_labels_each_day_has_is_counted(folder: str) -> None:
    put(folder, "2026-03-01.a-1.jsonl", [record(NOON)])
    write_labels(folder, "m", [Label(id=identifier(NOON, n), label="yes", time=NOON) for n in range(3)])
    compact(folder, "m", "labels", Unreadable(), now=datetime.now(UTC) + timedelta(days=2))
    parquet = next(file for file in layout.files(folder, "m", "labels") if not file.is_lines)
    assert parquet_form.rewrite(parquet.uri, lambda one: one == identifier(NOON, 1)) == 1
    assert days(folder, "m", Unreadable())[0].labels == 2

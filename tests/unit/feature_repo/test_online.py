"""The online plug-in and the reader on SQLite: what was written, by whom, and when is what is served."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.errors import PlatformError

DAY = timedelta(days=1)


@pytest.fixture
def filled(repos: Any, make_repo: Callable[..., Any], tmp_path: Path) -> Any:
    """A store with every type; driver ``full`` has values, ``null`` none, ``edge`` the odd ones."""
    s = repos.second
    full = {
        "f64": 1.5,
        "f32": 2.5,
        "i64": 2**63 - 1,
        "i32": -5,
        "flag": True,
        "at": s(5),
        "name": "x",
        "raw": b"\0",
        "vector": [1, 2],
    }
    edge = {"f64": np.nan, "i64": -(2**63), "flag": False, "name": "", "raw": b"", "vector": [], "words": []}
    rows = [
        {"driver": "full", "event": s(0), "words": ["é", ""], **full},
        {"driver": "edge", "event": s(0), **edge},
        {"driver": "null", "event": s(0)},
    ]
    repos.write_history(tmp_path, "v", rows)
    store = make_repo(views=[repos.view_of("v", list(repos.TYPES), ttl=DAY)])
    repos.materialise(store, s(1))
    return store


def test_every_type_is_served_as_it_was(repos: Any, filled: Any) -> None:
    read = repos.reader(filled).read({"driver": ["full", "edge", "null", "nobody"]}, repos.second(2))
    native = {name: read.native(name) for name in repos.TYPES}
    assert native["i64"].tolist()[:2] == [2**63 - 1, -(2**63)]
    assert native["i64"].dtype == np.int64
    assert native["f32"].dtype == np.float32
    assert native["flag"].tolist()[:2] == [True, False]
    assert native["at"][0] == np.datetime64("2026-01-01T00:00:05")
    assert native["name"].tolist() == ["x", "", None, None]
    assert native["raw"].tolist() == [b"\0", b"", None, None]
    assert native["vector"][0].tolist() == [1, 2]
    assert native["vector"][1].tolist() == []
    assert native["words"].tolist() == [["é", ""], [], None, None]


def test_one_entity_is_read_as_among_many(repos: Any, make_repo: Callable[..., Any], tmp_path: Path) -> None:
    names = ["f64", "f32", "i64", "i32", "flag", "name"]
    full = {"f64": 0.1, "f32": 0.1, "i64": 2**63 - 1, "i32": -(2**31), "flag": True, "name": "\u5ba2"}
    edge = {"f64": -np.inf, "f32": np.nan, "i64": -(2**53) - 1, "i32": 0, "flag": False, "name": ""}
    rows: list[dict[str, Any]] = [{"driver": "full", **full}, {"driver": "edge", **edge}, {"driver": "null"}]
    repos.write_history(tmp_path, "v", [{**row, "event": repos.second(0)} for row in rows])
    store = make_repo(views=[repos.view_of("v", names, ttl=DAY)])
    repos.materialise(store, repos.second(1))
    reader, drivers = repos.reader(store), ["full", "edge", "null", "nobody"]
    for moment in (repos.second(1), repos.second(100_000)):
        many = reader.read({"driver": drivers}, moment)
        for at, driver in enumerate(drivers):
            one = reader.read({"driver": [driver]}, moment)
            for name in names:
                left, right = one.columns[name][0], many.columns[name][at]
                assert left == right or (left != left and right != right), (driver, name)
                assert one.statuses(name) == [many.statuses(name)[at]]


def test_nan_null_and_unknown_are_three_things(repos: Any, filled: Any) -> None:
    read = repos.reader(filled).read({"driver": ["edge", "null", "nobody", "full"]}, repos.second(2))
    assert read.statuses("f64") == ["PRESENT", "NULL", "NOT_FOUND", "PRESENT"]
    assert np.isnan(read.columns["f64"][:3]).all()
    assert read.status == {"v": ["PRESENT", "PRESENT", "NOT_FOUND", "PRESENT"]}
    assert read.age_seconds["v"][0] == 2
    assert np.isnan(read.age_seconds["v"][2])


def test_the_time_to_live_is_applied_when_reading(repos: Any, filled: Any) -> None:
    reader = repos.reader(filled)
    last = reader.read({"driver": ["full"]}, repos.second(86_400))
    late = reader.read({"driver": ["full", "nobody"]}, repos.second(86_400) + timedelta(microseconds=1))
    assert last.columns["f64"].tolist() == [1.5]
    assert late.status == {"v": ["OUTSIDE_MAX_AGE", "NOT_FOUND"]}
    assert late.native("name").tolist() == [None, None]
    assert late.statuses("i64") == ["OUTSIDE_MAX_AGE", "NOT_FOUND"]
    assert np.isnan(late.columns["i64"]).all()


def test_an_older_row_never_replaces_a_newer_one(repos: Any, make_repo: Callable[..., Any], tmp_path: Path) -> None:
    repos.write_history(tmp_path, "v", [{"driver": "a", "event": repos.second(0), "f64": 0.0}])
    store = make_repo(views=[repos.view_of("v", ["f64"], created="made")])
    s = repos.second

    def push(event: datetime, value: float, made: datetime) -> float:
        rows = {"driver": ["a"], "event": [event], "made": [made], "f64": [value]}
        store.write_to_online_store("v", df=pd.DataFrame(rows))
        return float(repos.reader(store).read({"driver": ["a"]}, s(9)).columns["f64"][0])

    assert push(s(5), 1.0, s(5)) == 1
    assert push(s(4), 2.0, s(9)) == 1
    assert push(s(5), 3.0, s(4)) == 1
    assert push(s(5), 4.0, s(6)) == 4
    assert push(s(5), 4.0, s(6)) == 4
    assert push(s(5) + timedelta(microseconds=1), 5.0, s(0)) == 5


def test_moments_are_utc_whatever_their_zone(repos: Any, make_repo: Callable[..., Any], tmp_path: Path) -> None:
    repos.write_history(tmp_path, "v", [{"driver": "a", "event": repos.second(0), "f64": 0.0}])
    store = make_repo(views=[repos.view_of("v", ["f64"])])
    shanghai = timezone(timedelta(hours=8))
    moments = [repos.second(60), repos.second(60).astimezone(shanghai), repos.second(60).replace(tzinfo=None)]
    for driver, moment in zip("abc", moments, strict=True):
        frame = pd.DataFrame({"driver": [driver], "event": [moment], "f64": [1.0]})
        store.write_to_online_store("v", df=frame)
    read = repos.reader(store).read({"driver": list("abc")}, repos.second(61).astimezone(shanghai))
    assert read.age_seconds["v"] == [1, 1, 1]
    assert repos.reader(store).read({"driver": ["a"]}, repos.second(61).replace(tzinfo=None)).age_seconds["v"] == [1]


def test_an_event_of_a_wrong_clock_is_refused(repos: Any, make_repo: Callable[..., Any], tmp_path: Path) -> None:
    repos.write_history(tmp_path, "v", [{"driver": "a", "event": repos.second(0), "f64": 0.0}])
    store = make_repo(views=[repos.view_of("v", ["f64"])])
    ahead = datetime.now(UTC) + 2 * DAY
    frame = pd.DataFrame({"driver": ["a"], "event": [ahead], "f64": [1.0]})
    with pytest.raises(PlatformError, match="event in the future"):
        store.write_to_online_store("v", df=frame)
    skewed = frame.assign(event=datetime.now(UTC) + timedelta(seconds=30))
    store.write_to_online_store("v", df=skewed)
    read = repos.reader(store).read({"driver": ["a"]})
    assert read.status["v"] == ["PRESENT"]
    assert read.age_seconds["v"][0] < 0


def test_keys_with_separators_and_letters_of_the_world(
    repos: Any, make_repo: Callable[..., Any], tmp_path: Path
) -> None:
    keys = ["a|b", "a:b", "a", "{x}", "客户", "", "a b", "a\0b", "'; DROP TABLE v", "\U0001f680", "x" * 3000]
    rows = [{"driver": key, "event": repos.second(0), "f64": float(at)} for at, key in enumerate(keys)]
    repos.write_history(tmp_path, "v", rows)
    store = make_repo(views=[repos.view_of("v", ["f64"])])
    repos.materialise(store, repos.second(1))
    read = repos.reader(store).read({"driver": keys}, repos.second(1))
    assert read.columns["f64"].tolist() == list(range(len(keys)))


def test_none_and_very_many_entities(repos: Any, filled: Any) -> None:
    reader = repos.reader(filled)
    none = reader.read({"driver": []}, repos.second(1))
    assert none.status == {"v": []}
    assert none.columns["f64"].shape == none.columns["name"].shape == (0,)
    many = reader.read({"driver": ["full", "nobody"] * 50_000}, repos.second(1))
    assert many.columns["f64"][:2].tolist()[0] == 1.5
    assert int((many.columns["f64"] == 1.5).sum()) == 50_000


def test_a_changed_schema_is_read_by_its_own(repos: Any, filled: Any, make_repo: Callable[..., Any]) -> None:
    before = repos.reader(filled)
    store = make_repo(views=[repos.view_of("v", ["f64", "name", "more__f64"], ttl=DAY)])
    read = repos.reader(store).read({"driver": ["full"]}, repos.second(1))
    assert read.columns["f64"].tolist() == [1.5]
    assert read.columns["name"].tolist() == ["x"]
    assert read.statuses("more__f64") == ["NULL"]
    assert before.read({"driver": ["full"]}, repos.second(1)).native("i64").tolist() == [2**63 - 1]


def test_a_damaged_row_is_an_error(repos: Any, filled: Any, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "online.db") as connection:
        connection.execute("UPDATE packed_test_v SET row = substr(row, 1, length(row) - 1)")
    with pytest.raises(PlatformError, match="damaged"):
        repos.reader(filled).read({"driver": ["full"]})


@pytest.mark.parametrize("dtype", ["float64", "string"])
@pytest.mark.parametrize(
    "harm",
    [
        lambda one, two: [one, two[:-1]],
        lambda one, two: [one + b"x", two],
        lambda one, two: [one + b"xyz", two[:-3]],  # together they are as long as they should be
        lambda one, two: [one, None, two[:20]],
        lambda one, two: [one[:5], two],
    ],
)
def test_a_reader_finds_rows_that_are_damaged(
    monkeypatch: pytest.MonkeyPatch, dtype: str, harm: Callable[..., list[bytes | None]]
) -> None:
    from feature_repo.stores.packed_rows import Layout
    from feature_repo.stores.reader import OnlineReader

    fields, fine = [{"name": "x", "dtype": dtype}], [{"name": "y", "dtype": "int64"}]
    key = [{"name": "k", "dtype": "string"}]
    views = [
        {"name": name, "join_keys": key, "features": f, "ttl_seconds": 0} for name, f in (("a", fine), ("b", fields))
    ]
    whole, given = Layout(fine), [1.0, 2.0] if dtype == "float64" else [b"one", b"two"]
    rows = harm(*Layout(fields).encode({"x": given}, {}, np.array([1, 1]), np.array([0, 0])))
    others = whole.encode({"y": np.arange(len(rows))}, {}, np.ones(len(rows)), np.zeros(len(rows)))
    reader = OnlineReader({"project": "p", "views": views}, "redis://nowhere/0")
    monkeypatch.setattr(reader._backend, "fetch", lambda project, wanted: [others, rows])
    with pytest.raises(PlatformError, match="damaged"):
        reader.read({"k": [str(at) for at in range(len(rows))]})


def test_a_store_that_was_never_filled_says_so(repos: Any, filled: Any, tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="has not been materialised"):
        repos.reader(filled, str(tmp_path / "nowhere.db")).read({"driver": ["a"]})
    with sqlite3.connect(tmp_path / "online.db") as connection:
        connection.execute("DROP TABLE packed_test_v")
    with pytest.raises(PlatformError, match="has not been materialised"):
        repos.reader(filled).read({"driver": ["a"]})


def test_feasts_own_sdk_reads_through_the_plug_in(repos: Any, filled: Any) -> None:
    from feast.protos.feast.serving.ServingService_pb2 import FieldStatus

    now = datetime.now(UTC) - timedelta(seconds=5)
    frame = pd.DataFrame({"driver": ["new"], "event": [now], "f64": [7.5], "i64": [2**63 - 1], "name": ["n"]})
    for name in set(repos.TYPES) - {"f64", "i64", "name"}:
        frame[name] = pd.Series([None], dtype=object)
    filled.write_to_online_store("v", df=frame)
    rows = [{"driver": driver} for driver in ("new", "full", "nobody", "new")]
    answer = filled.get_online_features(features=["v:f64", "v:i64", "v:vector"], entity_rows=rows)
    assert answer.to_dict()["f64"] == [7.5, None, None, 7.5]
    assert answer.to_dict()["i64"] == [2**63 - 1, None, None, 2**63 - 1]
    names = list(answer.proto.metadata.feature_names.val)
    got = {name: list(answer.proto.results[at].statuses) for at, name in enumerate(names)}
    assert got["f64"] == [
        FieldStatus.PRESENT,
        FieldStatus.OUTSIDE_MAX_AGE,
        FieldStatus.NOT_FOUND,
        FieldStatus.PRESENT,
    ]
    assert got["vector"][0] == FieldStatus.NULL_VALUE


def test_a_view_that_is_no_more_takes_its_rows_with_it(
    repos: Any, filled: Any, make_repo: Callable[..., Any], tmp_path: Path
) -> None:
    filled.delete_feature_service("all")
    filled.apply([], objects_to_delete=[filled.get_feature_view("v")], partial=False)
    with sqlite3.connect(tmp_path / "online.db") as connection:
        assert not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'packed_test_v'").fetchall()


def test_what_feast_wrote_to_sqlite_is_read(repos: Any, make_repo: Callable[..., Any], tmp_path: Path) -> None:
    s = repos.second
    rows = [{"driver": "a", "event": s(0.5), "f64": 1.5, "i64": -7, "flag": True, "at": s(3), "vector": [1.0]}]
    rows.append({"driver": "b", "event": s(0), "f64": None, "name": "x", "words": ["y", "z"]})
    for name in repos.TYPES:
        rows[0].setdefault(name, None)
    repos.write_history(tmp_path, "v", rows)
    online = {"type": "sqlite", "path": str(tmp_path / "feast.db")}
    store = make_repo(views=[repos.view_of("v", list(repos.TYPES), ttl=DAY)], online=online)
    repos.materialise(store, s(1))
    read = repos.reader(store, str(tmp_path / "feast.db")).read({"driver": ["a", "b", "c"]}, s(2))
    assert read.status["v"] == ["PRESENT", "PRESENT", "NOT_FOUND"]
    assert read.native("i64").tolist()[0] == -7
    assert read.native("at")[0] == np.datetime64("2026-01-01T00:00:03")
    assert read.native("vector")[0].tolist() == [1]
    assert read.native("words")[1] == ["y", "z"]
    assert read.statuses("f64") == ["PRESENT", "NULL", "NOT_FOUND"]


def test_readers_go_on_while_a_writer_works(repos: Any, filled: Any, tmp_path: Path) -> None:
    writer = sqlite3.connect(tmp_path / "online.db", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM packed_test_v")
    assert repos.reader(filled).read({"driver": ["full"]}, repos.second(1)).status["v"] == ["PRESENT"]
    writer.execute("ROLLBACK")
    writer.close()


def test_the_reader_imports_nothing_heavy() -> None:
    code = """
import sys
import feature_repo.stores.reader
print(*{"feast", "pandas", "pyarrow", "duckdb", "google.protobuf", "redis"} & set(sys.modules))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert said == []

"""The point-in-time join and the offline plug-in: every row, in order, with what was known then."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import PlatformError
from feature_repo.stores import parquet_sources
from feature_repo.stores.join import point_in_time_join
from feature_repo.stores.offline import DuckDBOfflineStoreConfig
from feature_repo.stores.parquet_sources import connect
from pipelines.data_engines import Here

START = datetime(2026, 1, 1, tzinfo=UTC)


def plan(ttl: int = 0, created: str = "made", **types: str) -> dict[str, Any]:
    view = {
        "name": "v",
        "join_keys": [{"name": "driver", "dtype": "string"}],
        "features": [{"name": name, "dtype": dtype} for name, dtype in (types or {"x": "int64"}).items()],
        "ttl_seconds": ttl,
        "source": "v.parquet",
        "timestamp_field": "event",
        "created_field": created,
    }
    return {"timestamp": "event_timestamp", "views": [view]}


moments = st.integers(0, 20)
history_rows = st.lists(
    st.tuples(st.sampled_from("abc"), moments, moments | st.none(), st.integers(0, 99)), max_size=25
)
entity_rows = st.lists(st.tuples(st.sampled_from("abcd"), moments), min_size=1, max_size=15)


def expected(history: list[Any], driver: str, moment: int, ttl: int) -> int | None:
    known = [
        (event, -1 if made is None else made, at, value)
        for at, (who, event, made, value) in enumerate(history)
        if who == driver and event <= moment and (not ttl or moment - event <= ttl)
    ]
    return max(known)[3] if known else None


@settings(max_examples=30)
@given(history_rows, entity_rows, st.sampled_from([0, 1, 5]), st.booleans())
def test_the_join_is_what_a_loop_finds(
    tmp_path_factory: pytest.TempPathFactory, history: list[Any], rows: list[Any], ttl: int, parts: bool
) -> None:
    folder = tmp_path_factory.mktemp("join")
    event = pa.timestamp("us", "UTC")

    def second(number: int | None) -> datetime | None:
        return None if number is None else START + timedelta(seconds=number)

    def write(some: list[Any], path: Path) -> None:
        who, when, made, value = zip(*some, strict=True) if some else ((), (), (), ())
        columns = [
            pa.array(who, pa.string()),
            pa.array(map(second, when), event),
            pa.array(map(second, made), event),
            pa.array(value, pa.int64()),
        ]
        pq.write_table(pa.table(columns, names=["driver", "event", "made", "x"]), path)

    if parts:
        (folder / "v.parquet").mkdir()
        half = len(history) // 2
        write(history[:half], folder / "v.parquet" / "0.parquet")
        write(history[half:], folder / "v.parquet" / "1.parquet")
    else:
        write(history, folder / "v.parquet")
    asked = pd.DataFrame({"driver": [r[0] for r in rows], "event_timestamp": [second(r[1]) for r in rows]})
    asked.index = pd.Index(range(7, 7 + len(rows)))
    joined = point_in_time_join(plan(ttl=ttl), folder, asked)
    assert joined.index.equals(asked.index)
    pd.testing.assert_frame_equal(joined[["driver", "event_timestamp"]], asked)
    assert joined["x"].dtype == pd.Int64Dtype()
    got = [None if value is pd.NA else value for value in joined["x"]]
    assert got == [expected(history, who, moment, ttl) for who, moment in rows]


@pytest.fixture
def store(repos: Any, make_repo: Callable[..., Any], tmp_path: Path) -> Any:
    s = repos.second
    rows = [
        {"driver": "a", "event": s(0), "i64": 2**53 + 1, "flag": True, "name": "x"},
        {"driver": "a", "event": s(100), "i64": 2, "flag": False, "name": ""},
        {"driver": "b", "event": s(50), "i64": None, "flag": None, "name": None},
    ]
    repos.write_history(tmp_path, "v", rows)
    return make_repo(views=[repos.view_of("v", ["i64", "flag", "name"], ttl=timedelta(seconds=60))])


def test_feasts_sdk_gets_every_row_in_order_with_its_types(repos: Any, store: Any) -> None:
    s = repos.second
    frame = repos.frame(list("aaabz"), [s(100), s(0), s(0), s(60), s(0)], label=[1, 2, 3, 4, 5])
    made = store.get_historical_features(features=["v:i64", "v:flag", "v:name"], entity_df=frame).to_df()
    assert made["label"].tolist() == [1, 2, 3, 4, 5]
    assert made["i64"].dtype == pd.Int64Dtype()
    assert made["flag"].dtype == pd.BooleanDtype()
    assert made["i64"].tolist() == [2, 2**53 + 1, 2**53 + 1, pd.NA, pd.NA]
    assert made["name"].tolist() == ["", "x", "x", None, None]


def test_the_time_to_live_is_exact_to_the_microsecond(repos: Any, store: Any) -> None:
    edge, tick = repos.second(160), timedelta(microseconds=1)
    frame = repos.frame(["a", "a"], [edge, edge + tick])
    made = store.get_historical_features(features=["v:i64"], entity_df=frame).to_df()
    assert made["i64"].tolist() == [2, pd.NA]


def test_columns_may_be_named_in_full_and_queries_given(repos: Any, store: Any, tmp_path: Path) -> None:
    repos.frame(["a"], [repos.second(1)]).to_parquet(tmp_path / "asked.parquet")
    query = f"SELECT driver, event_timestamp FROM '{tmp_path}/asked.parquet'"
    job = store.get_historical_features(features=["v:i64"], entity_df=query, full_feature_names=True)
    assert job.to_df()["v__i64"].tolist() == [2**53 + 1]
    assert job.to_arrow().schema.field("v__i64").type == pa.int64()


def test_what_is_missing_is_named(repos: Any, store: Any, tmp_path: Path) -> None:
    frame = repos.frame(["a"], [repos.second(1)])
    view = plan(i64="int64", created="")
    with pytest.raises(PlatformError, match="column 'driver' is missing"):
        point_in_time_join(view, tmp_path, frame.drop(columns="driver"))
    with pytest.raises(PlatformError, match="both in the data and in feature view v"):
        point_in_time_join(view, tmp_path, frame.assign(i64=1))
    (tmp_path / "v.parquet").unlink()
    with pytest.raises(PlatformError, match="feature history is missing"):
        point_in_time_join(view, tmp_path, frame)


@pytest.mark.parametrize("kind", ["ns", "us", "ms", "naive"])
def test_sources_may_have_moments_of_any_resolution(repos: Any, tmp_path: Path, kind: str) -> None:
    stamp = pa.timestamp("us") if kind == "naive" else pa.timestamp(kind, "UTC")
    event = pa.array([START.replace(tzinfo=None) if kind == "naive" else START], stamp)
    pq.write_table(pa.table({"driver": ["a"], "event": event, "x": [1]}), tmp_path / "v.parquet")
    asked = pd.DataFrame({"driver": ["a"], "event_timestamp": [START.replace(tzinfo=None)]})
    assert point_in_time_join(plan(created=""), tmp_path, asked)["x"].tolist() == [1]
    view, _ = repos.view_of("v", ["x"])
    second = timedelta(seconds=1)
    assert repos.materialise_view(repos.engine(tmp_path), view, START - second, START + second) == 1


def test_more_history_than_memory_spills_to_disk(tmp_path: Path) -> None:
    n, r = 400_000, np.random.default_rng(0)
    table = pa.table(
        {
            "driver": pa.array(r.integers(0, 5_000, n).astype(str)),
            "event": pa.array(r.integers(0, 10**12, n) + 1_700_000_000_000_000, pa.timestamp("us", "UTC")),
            "x": pa.array(r.integers(0, 100, n)),
        }
    )
    pq.write_table(table, tmp_path / "v.parquet")
    frame = table.slice(0, 10_000).to_pandas().rename(columns={"event": "event_timestamp"}).drop(columns="x")
    small = point_in_time_join(plan(created=""), tmp_path, frame, memory_limit="60MB")
    assert small["x"].tolist() == table["x"].slice(0, 10_000).to_pylist()


@pytest.mark.parametrize(
    ("memory", "limit"), [(1 << 30, "512.0 MiB"), (3 << 30, "1.1 GiB"), (16 << 30, "4.0 GiB"), (512 << 30, "128.0 GiB")]
)
def test_duckdb_has_a_share_of_the_memory_that_the_process_may_have(
    monkeypatch: pytest.MonkeyPatch, memory: int, limit: str
) -> None:
    monkeypatch.setattr(parquet_sources, "memory_here", lambda: memory)
    for unset in (Here.memory_limit, DuckDBOfflineStoreConfig().memory_limit):
        with connect(unset) as connection:
            assert connection.execute("SELECT current_setting('memory_limit')").fetchall() == [(limit,)]
    with connect("60MB") as connection:
        assert connection.execute("SELECT current_setting('memory_limit')").fetchall() == [("57.2 MiB",)]


def materialised(repos: Any, store: Any, driver: str = "a") -> Any:
    return repos.reader(store).read({"driver": [driver]}, repos.second(1000)).native("i64")[0]


def test_incremental_materialisation_is_exact_at_its_boundaries(
    repos: Any, make_repo: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from feature_repo.stores.online import PackedOnlineStore

    s, tick, written = repos.second, timedelta(microseconds=1), []
    events = zip("abcd", [s(0), s(10), s(10) + tick, s(20)], strict=True)
    rows = [{"driver": driver, "event": event, "i64": 1} for driver, event in events]
    repos.write_history(tmp_path, "v", rows)
    store = make_repo(views=[repos.view_of("v", ["i64"])])
    write = PackedOnlineStore.write_rows

    def spy(self: Any, config: Any, view: Any, layout: Any, keys: Any, rows: Any, latest: int) -> int:
        written.extend(key[-1:].decode() for key in keys)
        return write(self, config, view, layout, keys, rows, latest)

    monkeypatch.setattr(PackedOnlineStore, "write_rows", spy)
    for since, until in [(s(0), s(10)), (s(10), s(15)), (s(15), s(20)), (s(20), s(30))]:
        repos.materialise(store, until, since)
    assert sorted(written) == list("abcd")
    repos.materialise(store, s(10), s(9))
    assert sorted(written) == list("abbcd")


def test_the_last_created_row_of_a_moment_goes_online(
    repos: Any, make_repo: Callable[..., Any], tmp_path: Path
) -> None:
    s = repos.second
    rows = [
        {"driver": "a", "event": s(5), "made": s(7), "i64": 1},
        {"driver": "a", "event": s(5), "made": s(8), "i64": 2},
        {"driver": "a", "event": s(5), "made": None, "i64": 3},
        {"driver": "a", "event": s(4), "made": s(9), "i64": 4},
    ]
    repos.write_history(tmp_path, "v", rows, {"made": pa.timestamp("us", "UTC")})
    store = make_repo(views=[repos.view_of("v", ["i64"], created="made")])
    repos.materialise(store, s(10))
    assert materialised(repos, store) == 2
    made = store.get_historical_features(features=["v:i64"], entity_df=repos.frame(["a"], [s(6)])).to_df()
    assert made["i64"].tolist() == [2]


@pytest.mark.parametrize("folder", [False, True])
def test_pushed_rows_are_online_and_in_history(
    repos: Any, make_repo: Callable[..., Any], tmp_path: Path, folder: bool
) -> None:
    from feast import FeatureView, PushSource
    from feast.data_source import PushMode

    s = repos.second
    rows = [{"driver": "a", "event": s(0), "i64": 1}]
    if folder:
        (tmp_path / "v").mkdir()
        repos.write_history(tmp_path / "v", "v", rows)
    else:
        repos.write_history(tmp_path, "v", rows)
    view, entities = repos.view_of("v", ["i64"], path="v" if folder else "")
    pushed = FeatureView(
        name="v",
        entities=entities,
        schema=view.schema,
        source=PushSource(name="pushed", batch_source=view.batch_source),
    )
    store = make_repo(views=[(pushed, entities)])
    store.push("pushed", pd.DataFrame({"driver": ["a"], "event": [s(9)], "i64": [7]}), to=PushMode.ONLINE_AND_OFFLINE)
    assert materialised(repos, store) == 7
    frame = repos.frame(["a", "a"], [s(8), s(9)])
    assert store.get_historical_features(features=["v:i64"], entity_df=frame).to_df()["i64"].tolist() == [1, 7]


def test_a_value_that_does_not_fit_its_type_is_refused(
    repos: Any, make_repo: Callable[..., Any], tmp_path: Path
) -> None:
    repos.write_history(tmp_path, "v", [{"driver": "a", "event": repos.second(0), "i32": 2**40}], {"i32": pa.int64()})
    store = make_repo(views=[repos.view_of("v", ["i32"])])
    with pytest.raises(PlatformError, match="feature i32: the source has int64, which does not fit int32"):
        repos.materialise(store, repos.second(1))

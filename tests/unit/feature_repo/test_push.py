"""A push to two stores is one write: both take the same rows, or neither does."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.errors import PlatformError


@pytest.fixture
def pushed(repos: Any, make_repo: Callable[..., Any], tmp_path: Path) -> Any:
    """A store with view ``v`` and push source ``ps``: driver a has 1."""
    from feast import FeatureView, PushSource

    row = {"driver": "a", "event": repos.second(0), "i64": 1, "f64": 1.0}
    repos.write_history(tmp_path, "v", [row], {"event": pa.timestamp("us", "UTC")})
    view, entities = repos.view_of("v", ["i64", "f64"])
    source = PushSource(name="ps", batch_source=view.batch_source)
    view = FeatureView(name="v", entities=entities, schema=view.schema, source=source)
    return make_repo(views=[(view, entities)])


def push(store: Any, mode: str = "ONLINE_AND_OFFLINE", **values: Any) -> None:
    from feast.data_source import PushMode

    row = {"driver": ["a"], "event": ["2026-01-01 00:00:12"], "i64": [7], "f64": [7.0], **values}
    store.push("ps", pd.DataFrame(row), to=PushMode[mode])


def held(store: Any, folder: Path, driver: str = "a") -> tuple[Any, int]:
    """The value online, and how many rows there are offline."""
    online = store.get_online_features(features=["v:i64"], entity_rows=[{"driver": driver}]).to_dict()
    return online["i64"][0], pq.read_table(folder / "v.parquet").num_rows


@pytest.mark.parametrize(
    "event",
    [
        "2026-01-01 00:00:12",
        "2026-01-01T00:00:12Z",
        "2026-01-01T01:00:12+01:00",
        pd.Timestamp("2026-01-01 00:00:12"),
        pd.Timestamp("2026-01-01 00:00:12", tz="UTC"),
    ],
)
def test_a_time_of_any_writing_is_the_same_moment_in_both_stores(
    repos: Any, pushed: Any, tmp_path: Path, event: Any
) -> None:
    push(pushed, event=[event])
    assert held(pushed, tmp_path) == (7, 2)
    assert pq.read_table(tmp_path / "v.parquet")["event"].to_pylist()[1] == repos.second(12)
    assert repos.reader(pushed).read({"driver": ["a"]}, repos.second(13)).age_seconds["v"] == [1.0]


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("event", "soon", "row 0: column 'event'"),
        ("event", None, "row 0: column 'event'"),
        ("event", 1735689600, "row 0: column 'event'"),
        ("event", "2999-01-01", "row 0: column 'event'"),
        ("driver", None, "row 0: entity key 'driver'"),
        ("driver", 2.0**60, "row 0: entity key 'driver'"),
        ("driver", True, "row 0: entity key 'driver'"),
        ("i64", 1.5, "feature i64"),
        ("i64", "one", "feature i64"),
        ("f64", "one", "feature f64"),
        ("more", 1, "different columns"),
    ],
)
def test_what_one_store_would_refuse_is_written_to_none(
    pushed: Any, tmp_path: Path, column: str, value: Any, words: str
) -> None:
    before = held(pushed, tmp_path)
    change: Any = partial(push, pushed)
    with pytest.raises(PlatformError, match=words):
        change(**{column: [value]})
    assert held(pushed, tmp_path) == before
    if column != "more":
        for mode in ("ONLINE", "OFFLINE"):
            with pytest.raises(PlatformError, match=words):
                push(pushed, mode, **{column: [value]})
    assert held(pushed, tmp_path) == before


@pytest.mark.parametrize("driver", ["700593.0", " 7.00593e5", 700593, 700593.0, np.float32(700593), np.int64(700593)])
def test_a_key_of_any_writing_is_the_same_entity_in_both_stores(
    repos: Any, pushed: Any, tmp_path: Path, driver: Any
) -> None:
    push(pushed, driver=[driver])
    assert held(pushed, tmp_path, "700593") == (7, 2)
    assert pq.read_table(tmp_path / "v.parquet")["driver"].to_pylist() == ["a", "700593"]


def test_rows_of_several_types_and_whole_floats_go_to_both(pushed: Any, tmp_path: Path) -> None:
    push(
        pushed,
        driver=["a", 5, 6.0],
        event=["2026-01-01 00:00:12", pd.Timestamp("2026-01-01", tz="UTC"), "2026-01-01T00:00:01Z"],
        i64=[2.0, None, 2.0],
        f64=[None, None, None],
    )
    assert held(pushed, tmp_path, "5") == (None, 4)
    assert held(pushed, tmp_path, "6") == (2, 4)


def test_when_the_second_store_fails_the_error_says_what_is_where_and_its_fix_works(
    pushed: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(pq, "ParquetWriter", _full)
        with pytest.raises(PlatformError) as caught:
            push(pushed)
    assert caught.value.code == "push_failed"
    assert caught.value.context == {"written": "v online", "not_written": "v offline"}
    assert "No space left" in caught.value.detail
    assert "PushMode.OFFLINE;" in caught.value.fix
    assert held(pushed, tmp_path) == (7, 1)
    push(pushed, "OFFLINE")
    assert held(pushed, tmp_path) == (7, 2)


def _full(*_: Any, **__: Any) -> Any:
    raise OSError(28, "No space left on device")


def test_feasts_own_store_is_safe_too(repos: Any, pushed: Any, tmp_path: Path) -> None:
    from feast import FeatureStore

    plain = FeatureStore(config=pushed.config)
    push(plain)
    assert held(plain, tmp_path) == (7, 2)
    with pytest.raises(PlatformError, match="feature i64"):
        push(plain, i64=[1.5])
    assert held(plain, tmp_path) == (7, 2)


@pytest.mark.parametrize("feature", ["i64", "i32"])
def test_a_number_is_never_cut_to_fit(repos: Any, make_repo: Callable[..., Any], tmp_path: Path, feature: str) -> None:
    rows = [{"driver": key, "event": repos.second(0), feature: value} for key, value in (("a", 2.0), ("b", 1.5))]
    repos.write_history(tmp_path, "v", rows, {feature: pa.float64()})
    store = make_repo(views=[repos.view_of("v", [feature])])
    with pytest.raises(PlatformError, match=f"feature {feature}.*does not fit") as caught:
        repos.materialise(store, repos.second(1))
    assert "1.5" in caught.value.detail
    with pytest.raises(PlatformError, match=f"feature {feature}.*does not fit"):
        store.get_historical_features(repos.frame(["b"], [repos.second(1)]), features=[f"v:{feature}"]).to_df()
    made = store.get_historical_features(repos.frame(["a"], [repos.second(1)]), features=[f"v:{feature}"]).to_df()
    assert made[feature].tolist() == [2]


@pytest.mark.parametrize("value", [1.5, 2.0**40])
def test_a_message_of_another_type_is_never_cut_to_fit(repos: Any, value: float) -> None:
    from feast.protos.feast.types.Value_pb2 import Value

    from feature_repo.stores.feast_values import pack_messages
    from feature_repo.stores.packed_rows import Layout

    layout = Layout([{"name": "i32", "dtype": "int32"}])
    with pytest.raises(PlatformError, match="row 1: feature i32"):
        pack_messages(layout, [{"i32": Value(double_val=2.0)}, {"i32": Value(double_val=value)}], [0, 0], [0, 0])

"""What Feast's own stores get wrong and ours get right: each check is run against both, and must fail on theirs.

When a version of Feast mends one of these, its test says so, and the entry can go.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

Check = Callable[[Any, Any], bool]
CHECKS: dict[str, Check] = {}


def check(function: Check) -> Check:
    CHECKS[function.__name__] = function
    return function


def is_ours(store: Any) -> bool:
    return bool(store.config.online_store.type.endswith("PackedOnlineStore"))


def joined(repos: Any, store: Any, drivers: list[str], moments: list[datetime], **columns: Any) -> Any:
    frame = repos.frame(drivers, moments, **columns)
    return store.get_historical_features(features=["v:i64", "v:flag"], entity_df=frame).to_df()


@check
def rows_that_share_key_and_moment_are_all_kept(repos: Any, store: Any) -> bool:
    s = repos.second
    made = joined(repos, store, ["a", "a", "b"], [s(60), s(60), s(60)], label=[1, 2, 3])
    return sorted(made["label"]) == [1, 2, 3]


@check
def rows_whose_match_is_too_old_are_kept(repos: Any, store: Any) -> bool:
    made = joined(repos, store, ["a", "a"], [repos.second(60), repos.second(90_000)], label=[1, 2])
    return sorted(made["label"]) == [1, 2]


@check
def integers_stay_integers_beside_a_missing_one(repos: Any, store: Any) -> bool:
    made = joined(repos, store, ["a", "nobody"], [repos.second(60), repos.second(60)])
    return bool(pd.api.types.is_integer_dtype(made["i64"].dtype)) and 2**53 + 1 in made["i64"].tolist()


@check
def booleans_stay_booleans_beside_a_missing_one(repos: Any, store: Any) -> bool:
    made = joined(repos, store, ["a", "nobody"], [repos.second(60), repos.second(60)])
    return bool(pd.api.types.is_bool_dtype(made["flag"].dtype))


@check
def a_value_older_than_its_time_to_live_is_not_served(repos: Any, store: Any) -> bool:
    repos.materialise(store, repos.second(100))  # long ago
    answer = store.get_online_features(features=["v:i64"], entity_rows=[{"driver": "a"}])
    return answer.to_dict()["i64"] == [None]


@check
def an_older_row_never_replaces_a_newer_one(repos: Any, store: Any) -> bool:
    now = datetime.now(UTC)
    for event, value in ((now, 2), (now - timedelta(hours=1), 1)):
        frame = pd.DataFrame({"driver": ["a"], "event": [event], "i64": [value], "flag": [True]})
        store.write_to_online_store("v", df=frame)
    answer = store.get_online_features(features=["v:i64"], entity_rows=[{"driver": "a"}])
    return answer.to_dict()["i64"] == [2]


@check
def a_null_is_told_from_a_value(repos: Any, store: Any) -> bool:
    from feast.protos.feast.serving.ServingService_pb2 import FieldStatus

    frame = pd.DataFrame({"driver": ["a"], "event": [datetime.now(UTC)], "i64": [None], "flag": [True]})
    store.write_to_online_store("v", df=frame.astype({"i64": "Int64"}))
    answer = store.get_online_features(features=["v:i64"], entity_rows=[{"driver": "a"}]).proto
    names = list(answer.metadata.feature_names.val)
    return list(answer.results[names.index("i64")].statuses) == [FieldStatus.NULL_VALUE]


@check
def a_service_that_is_computed_beforehand_answers_to_short_names(repos: Any, store: Any) -> bool:
    from feast import FeatureService

    view = store.get_feature_view("v")
    store.apply([FeatureService(name="ready", features=[view], precompute_online=True)])
    frame = pd.DataFrame({"driver": ["a"], "event": [datetime.now(UTC)], "i64": [7], "flag": [True]})
    store.write_to_online_store("v", df=frame)
    service = store.get_feature_service("ready")
    try:
        answer = store.get_online_features(features=service, entity_rows=[{"driver": "a"}])
    except RuntimeError as err:
        return "precompute_online" not in str(err)
    return bool(answer.to_dict()["i64"] == [7])


@check
def a_registry_that_is_away_delays_nobody(repos: Any, store: Any) -> bool:
    """Feast's reads go through the registry whenever its cache is stale; a reader has compiled what it needs."""
    frame = pd.DataFrame({"driver": ["a"], "event": [datetime.now(UTC)], "i64": [7], "flag": [True]})
    store.write_to_online_store("v", df=frame)
    reader = repos.reader(store) if is_ours(store) else None
    Path(store.config.registry.path).unlink()
    store.registry.cached_registry_proto_ttl = timedelta(microseconds=1)
    if reader is not None:
        return bool(reader.read({"driver": ["a"]}).native("i64").tolist() == [7])
    try:
        return bool(store.get_online_features(features=["v:i64"], entity_rows=[{"driver": "a"}]).to_dict())
    except FileNotFoundError:
        return False


@check
def single_precision_stays_what_it_is(repos: Any, store: Any) -> bool:
    from feast import FeatureService

    view = repos.view_of("w", ["f32"])[0]
    store.apply([view, FeatureService(name="all", features=[view])])
    store.write_to_online_store("w", df=pd.DataFrame({"driver": ["a"], "event": [datetime.now(UTC)], "f32": [0.1]}))
    if is_ours(store):
        made = repos.reader(store).read({"driver": ["a"]}).native("f32")
    else:
        made = store.get_online_features(features=["w:f32"], entity_rows=[{"driver": "a"}]).to_df()["f32"]
    return bool(made.dtype == np.float32)


@pytest.mark.parametrize("name", CHECKS)
def test_feasts_own_stores_get_it_wrong_and_ours_right(name: str, repos: Any, tmp_path: Path) -> None:
    rows = [
        {"driver": "a", "event": repos.second(50), "i64": 2**53 + 1, "flag": True},
        {"driver": "b", "event": repos.second(50), "i64": 5, "flag": False},
    ]
    verdicts = {}
    for owner in ("feast", "ours"):
        folder = tmp_path / owner
        folder.mkdir()
        repos.write_history(folder, "v", rows)
        views = [repos.view_of("v", ["i64", "flag"], ttl=timedelta(days=1))]
        theirs = {
            "online": {"type": "sqlite", "path": str(folder / "online.db")},
            "offline_store": {"type": "file"},
            "batch_engine": {"type": "local"},
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            store = repos.make_store(folder, views, **(theirs if owner == "feast" else {}))
            verdicts[owner] = CHECKS[name](repos, store)
    assert verdicts == {"feast": False, "ours": True}


def test_services_are_answered_while_a_view_is_materialised(repos: Any, tmp_path: Path) -> None:
    """Feast marks the view in the registry, and who reads the registry refuses to serve it; the reader has a plan."""
    from feast.feature_view import FeatureViewState

    repos.write_history(tmp_path, "v", [{"driver": "a", "event": repos.second(0), "f64": 1.0}])
    store = repos.make_store(tmp_path, [repos.view_of("v", ["f64"])])
    repos.materialise(store, repos.second(1))
    reader = repos.reader(store)
    view = store.get_feature_view("v")
    view.state = FeatureViewState.MATERIALIZING
    store.registry.apply_feature_view(view, store.project)
    with pytest.raises(Exception, match="MATERIALIZING"):
        store.get_online_features(features=["v:f64"], entity_rows=[{"driver": "a"}])
    assert reader.read({"driver": ["a"]}, repos.second(2)).columns["f64"].tolist() == [1.0]


def test_a_duckdb_that_cannot_materialise_is_kept_out() -> None:
    """With DuckDB 2 and ibis 12, Feast's duckdb store fails on moments in nanoseconds; what it asks for admits both."""
    from importlib.metadata import requires

    from packaging.requirements import Requirement

    def admitted(owner: str) -> list[bool]:
        wanted = [Requirement(text) for text in requires(owner) or []]
        return [item.specifier.contains("2.0.0") for item in wanted if item.name == "duckdb"]

    assert admitted("feast") == []
    assert admitted("fairlead")
    assert not any(admitted("fairlead"))

"""What training joins for a moment is what serving gave at that moment."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.endpoints import Endpoints
from feature_repo.stores.join import point_in_time_join
from feature_repo.stores.plan import compile_view
from feature_repo.stores.reader import OnlineReader, apply_transforms

TTL = 40
moments = st.integers(0, 100)
values = st.none() | st.integers(-(2**63), 2**63 - 1)
events = st.lists(st.tuples(st.sampled_from(["a", "b", "客"]), moments, values, st.none() | st.text()), max_size=20)
asks = st.lists(st.tuples(st.sampled_from(["a", "b", "客", "nobody"]), moments), min_size=1, max_size=5)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events, asks)
def test_random_histories_are_served_as_they_are_joined(
    repos: Any, tmp_path_factory: pytest.TempPathFactory, events: list[Any], asks: list[Any]
) -> None:
    """The store is materialised up to each moment in turn and asked at that moment."""
    folder, s = tmp_path_factory.mktemp("parity"), repos.second
    rows = [{"driver": "z", "event": s(0), "i64": 1, "name": ""}]
    rows += [{"driver": who, "event": s(at), "i64": number, "name": word} for who, at, number, word in events]
    repos.write_history(folder, "v", rows)
    view, _ = repos.view_of("v", ["i64", "name"], ttl=timedelta(seconds=TTL))
    plan = {"project": "test", "timestamp": "event_timestamp", "views": [compile_view(view)]}
    reader, since, served = OnlineReader(plan, str(folder / "online.db")), datetime(1970, 1, 1, tzinfo=UTC), {}
    engine = repos.engine(folder)
    engine.online_store.backend(engine.repo_config).prepare("test", "v")
    for moment in sorted({at for _, at in asks}):
        repos.materialise_view(engine, view, since, s(moment))
        since = s(moment)
        for who, at in asks:
            if at == moment:
                read = reader.read({"driver": [who]}, s(at))
                number = read.native("i64")[0] if read.statuses("i64") == ["PRESENT"] else None
                served[who, at] = number, read.native("name")[0]
    joined = point_in_time_join(plan, folder, repos.frame([who for who, _ in asks], [s(at) for _, at in asks]))
    numbers = [None if value is pd.NA else value for value in joined["i64"]]
    assert list(zip(numbers, joined["name"], strict=True)) == [served[ask] for ask in asks]


@pytest.fixture(scope="module")
def fraud(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path, str, pd.DataFrame]:
    """Plan, history, online store and payments of the fraud task on a small simulation."""
    from pipelines.data.file_rows import FileRows
    from pipelines.steps.ingest import ingest
    from pipelines.steps.materialise import materialise
    from pipelines.steps.validate import validate
    from pipelines.task import dump_config
    from pipelines.tasks import get_task, recipe_config

    folder, task = tmp_path_factory.mktemp("fraud"), get_task("fraud")
    size = {"simulator.customers": 60, "simulator.terminals": 40, "simulator.days": 45}
    config = dump_config(recipe_config(task, None, size))
    ends = Endpoints(home=str(folder / "home")).resolved()
    version = ingest("fraud", config, "", ends.uri("data"), str(folder / "manifest.json"))
    validate("fraud", config, str(folder / "manifest.json"), str(folder / "clean"))
    out = folder / "features.json"
    materialise("fraud", config, str(folder / "clean"), version, ends.model_dump_json(), str(out))
    document = json.loads(out.read_text())
    return document["plan"], Path(document["path"]), ends.uri("online"), FileRows.of_folder(folder / "clean").frame()


def test_a_thousand_payments_have_identical_features_in_training_and_serving(fraud: Any) -> None:
    """As if each came in just after the data: the newest rows are online, and the join asks for that moment."""
    plan, folder, online, payments = fraud
    last = datetime.fromisoformat(plan["known_until"])
    r = np.random.default_rng(7)
    customers = np.append(payments["customer_id"].unique(), "nobody")
    terminals = np.append(payments["terminal_id"].unique(), "nowhere")
    frame = pd.DataFrame(
        {
            "customer_id": r.choice(customers, 1000),
            "terminal_id": r.choice(terminals, 1000),
            "amount": r.gamma(2, 40, 1000),
            "event_time": [last] * 1000,
        }
    )
    trained = derived(plan, point_in_time_join(plan, folder, frame))
    keys = {name: frame[name].tolist() for name in ("customer_id", "terminal_id")}
    served = dict(OnlineReader(plan, online).read(keys, last).columns)
    stamps = frame["event_time"].dt.tz_localize(None).to_numpy("M8[us]")
    given = {**served, "amount": frame["amount"].to_numpy(), "event_time": stamps}
    served |= apply_transforms(plan, given)
    names = [feature["name"] for view in plan["views"] for feature in view["features"]]
    names += [name for transform in plan["transforms"] for name in transform["outputs"]]
    assert len(names) > 40
    for name in names:
        np.testing.assert_array_equal(served[name], trained[name].to_numpy(np.float64, na_value=np.nan), name)
    missing = np.isnan(served["customer_mean_30d"]).mean()
    assert 0 < missing < 0.5


def derived(plan: dict[str, Any], joined: pd.DataFrame) -> pd.DataFrame:
    from pipelines.data.features import derive

    return derive(joined, plan)


def test_feasts_own_reading_of_the_fraud_service_agrees(fraud: Any) -> None:
    """On-demand features run the same code in Feast's SDK, offline."""
    import contextlib
    import io

    from feast import FeatureStore

    plan, folder, _, payments = fraud
    frame = payments.tail(50)[["customer_id", "terminal_id", "amount", "event_time"]].reset_index(drop=True)
    trained = derived(plan, point_in_time_join(plan, folder, frame))
    with contextlib.redirect_stdout(io.StringIO()):
        store = FeatureStore(repo_path=str(folder))
        asked = frame.assign(event_timestamp=frame["event_time"])
        theirs = store.get_historical_features(entity_df=asked, features=store.get_feature_service("fraud_v1")).to_df()
    for name in ("customer_mean_30d", "hour", "amount_to_mean_30d", "hours_since_payment", "terminal_risk_7d"):
        np.testing.assert_array_equal(
            theirs[name].to_numpy(np.float64, na_value=np.nan), trained[name].to_numpy(np.float64, na_value=np.nan)
        )


def test_a_transform_from_outside_is_refused() -> None:
    from contracts.errors import PlatformError

    with pytest.raises(PlatformError, match="transform refused: os:system"):
        apply_transforms({"transforms": [{"function": "os:system", "outputs": []}]}, {})

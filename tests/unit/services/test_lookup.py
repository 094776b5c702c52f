"""Requests by entity key: features come from the online store."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.errors import PlatformError
from feature_repo.stores.keys import serialise_keys
from services.errors import Problem
from services.tabular.lookup import FeatureLookup, open_lookup

WITH_FEATURES: dict[str, Any] = {
    "inputs": [
        {"name": "amount", "dtype": "float64"},
        {"name": "spent_7d", "dtype": "float64", "source": "online", "default": 5.0},
        {"name": "night", "dtype": "float64", "source": "on_demand"},
    ],
    "classes": ["genuine", "fraud"],
    "entities": ["customer_id"],
    "request": [{"name": "amount", "dtype": "float64"}],
    "timestamp": "event_time",
}
PLAN: dict[str, Any] = {"views": [{"name": "customer", "join_keys": [{"name": "customer_id", "dtype": "string"}]}]}
GOOD = {"customer_id": "C1", "amount": 500, "event_time": "2026-02-01T02:00:00Z"}
DIRECT = {"amount": 500, "spent_7d": 1, "night": 0}


@dataclass
class Read:
    columns: dict[str, Any]
    status: dict[str, list[str]]
    age_seconds: dict[str, Any]


class FakeReader:
    """Knows C1 and, as of long ago, C2."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.asked: list[tuple[dict[str, list[Any]], datetime | None]] = []

    def read(self, keys: dict[str, list[Any]], moment: datetime | None) -> Read:
        if self.error is not None:
            raise self.error
        self.asked.append((keys, moment))
        known = {"C1": (70.0, "PRESENT", 120.0), "C2": (np.nan, "OUTSIDE_MAX_AGE", 1e7)}
        rows = [known.get(key, (np.nan, "NOT_FOUND", np.nan)) for key in keys["customer_id"]]
        values, status, ages = zip(*rows, strict=True)
        return Read({"spent_7d": np.array(values)}, {"customer": list(status)}, {"customer": np.array(ages)})


def night(plan: Mapping[str, Any], columns: Mapping[str, Any]) -> dict[str, Any]:
    hours = columns["event_time"].astype("M8[h]").astype(int) % 24
    return {"night": (hours < 6).astype(float)}


@pytest.fixture
def reader() -> FakeReader:
    return FakeReader()


@pytest.fixture
def served(serve: Any, make_bundle: Any, reader: FakeReader) -> Any:
    golden = [({"amount": 250, "spent_7d": 1, "night": 0}, [0.75, 0.25])]
    bundle = make_bundle(WITH_FEATURES, golden)
    return serve(bundle, lambda bundle, _: FeatureLookup(PLAN, bundle.document.signature, reader, night))


def test_features_are_read_and_derived(served: Any) -> None:
    answer = served.predict(GOOD)
    assert answer.status_code == 200
    assert answer.json()["predictions"][0]["flags"] == []
    assert served.engine.seen[-1] == {"amount": [500.0], "spent_7d": [70.0], "night": [1.0]}


def test_an_unknown_entity_is_served_with_defaults_and_flagged(served: Any) -> None:
    answer = served.predict(GOOD | {"customer_id": "nobody"}, GOOD | {"customer_id": "C2"}, GOOD)
    assert answer.status_code == 200
    flags = [one["flags"] for one in answer.json()["predictions"]]
    assert flags == [["not_found:customer"], ["outside_max_age:customer"], []]
    assert served.engine.seen[-1]["spent_7d"] == [5.0, 5.0, 70.0]


def test_rows_keep_their_order_when_moments_differ(served: Any, reader: FakeReader) -> None:
    day, other = "2026-02-01T12:00:00Z", "2026-02-01T03:00:00Z"
    instances = [
        GOOD | {"event_time": day},
        GOOD | {"event_time": other, "customer_id": "nobody"},
        GOOD | {"event_time": day, "customer_id": "nobody"},
        GOOD | {"event_time": other},
    ]
    flags = [one["flags"] for one in served.predict(*instances).json()["predictions"]]
    assert flags == [[], ["not_found:customer"], ["not_found:customer"], []]
    assert served.engine.seen[-1]["spent_7d"] == [70.0, 5.0, 5.0, 70.0]
    assert served.engine.seen[-1]["night"] == [0.0, 1.0, 0.0, 1.0]
    assert {moment for _, moment in reader.asked} == {
        datetime(2026, 2, 1, 12, tzinfo=UTC),
        datetime(2026, 2, 1, 3, tzinfo=UTC),
    }


def test_the_moment_is_now_when_it_is_left_out(served: Any, reader: FakeReader) -> None:
    assert served.predict({"customer_id": "C1", "amount": 1}).status_code == 200
    moment = reader.asked[-1][1]
    assert moment is not None
    assert abs((datetime.now(UTC) - moment).total_seconds()) < 5


def test_all_inputs_may_be_given_instead(served: Any, reader: FakeReader) -> None:
    before = len(reader.asked)
    answer = served.predict(DIRECT)
    assert answer.status_code == 200
    assert len(reader.asked) == before
    assert served.engine.seen[-1] == {"amount": [500.0], "spent_7d": [1.0], "night": [0.0]}


@pytest.mark.parametrize(
    ("instance", "field"),
    [
        (GOOD | {"spent_7d": 1}, "instances[0].spent_7d"),
        ({"amount": 1}, "instances[0].customer_id"),
        (GOOD | {"customer_id": None}, "instances[0].customer_id"),
        (GOOD | {"customer_id": 1.5}, "instances[0].customer_id"),
        (GOOD | {"event_time": "soon"}, "instances[0].event_time"),
    ],
)
def test_a_wrong_request_names_the_field(served: Any, instance: dict[str, Any], field: str) -> None:
    answer = served.predict(instance)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == field


def test_a_key_of_a_string_entity_may_be_a_number(served: Any, reader: FakeReader) -> None:
    assert served.predict(GOOD | {"customer_id": 17}).status_code == 200
    assert reader.asked[-1][0] == {"customer_id": ["17"]}


@pytest.mark.parametrize("error", [sqlite3.OperationalError("locked"), PlatformError("gone"), OSError("io")])
def test_a_store_that_fails_gives_503_and_not_a_guess(served: Any, reader: FakeReader, error: Exception) -> None:
    reader.error = error
    answer = served.predict(GOOD)
    assert answer.status_code == 503
    assert answer.json()["type"].endswith("features-unavailable")
    assert served.predict(DIRECT).status_code == 200


def test_reads_are_counted_by_outcome_and_age(served: Any) -> None:
    served.predict(GOOD, GOOD | {"customer_id": "nobody"})
    view = {"model": "payments", "view": "customer"}
    assert served.metric("fairlead_feature_reads_total", **view, status="PRESENT") == 1
    assert served.metric("fairlead_feature_reads_total", **view, status="NOT_FOUND") == 1
    assert served.metric("fairlead_feature_reads_total", **view, status="OUTSIDE_MAX_AGE") == 0
    assert served.metric("fairlead_feature_age_seconds_count", **view) == 1
    assert served.metric("fairlead_feature_age_seconds_bucket", **view, le="3600.0") == 1


def test_entity_keys_are_announced_and_accepted_as_tensors(served: Any) -> None:
    body = served.client.get("/v2/models/payments").json()
    assert [tensor["name"] for tensor in body["inputs"]] == ["customer_id", "amount", "event_time"]
    assert [tensor["name"] for tensor in body["parameters"]["direct_inputs"]] == ["amount", "spent_7d", "night"]
    tensors = [
        {"name": "customer_id", "shape": [2], "datatype": "BYTES", "data": ["C1", "nobody"]},
        {"name": "amount", "shape": [2], "datatype": "FP64", "data": [1, 2]},
    ]
    outputs = served.client.post("/v2/models/payments/infer", json={"inputs": tensors}).json()["outputs"]
    assert next(one["data"] for one in outputs if one["name"] == "flags") == ["", "not_found:customer"]


def test_entity_keys_are_hashed_in_the_log(serve: Any, make_bundle: Any, reader: FakeReader, tmp_path: Any) -> None:
    golden = [({"amount": 250, "spent_7d": 1, "night": 0}, [0.75, 0.25])]
    served = serve(
        make_bundle(WITH_FEATURES, golden),
        lambda bundle, _: FeatureLookup(PLAN, bundle.document.signature, reader, night),
        predictions={"folder": str(tmp_path / "log"), "salt": "s"},
    )
    served.predict(GOOD, GOOD)
    served.runtime.log.close()
    text = next((tmp_path / "log").rglob("*.jsonl")).read_text()
    assert '"C1"' not in text
    first, second = text.splitlines()
    assert first.split('"entities"')[1][:60] == second.split('"entities"')[1][:60]


def test_a_plan_that_misses_an_input_is_refused_at_start(make_bundle: Any, reader: FakeReader) -> None:
    signature = make_bundle(WITH_FEATURES, [({"amount": 1}, [1, 0])]).document.signature
    with pytest.raises(PlatformError, match="does not give input 'night'"):
        FeatureLookup(PLAN, signature, reader, lambda plan, columns: {}).prove()
    FeatureLookup(PLAN, signature, reader, night).prove()


def test_integer_keys_may_be_written_as_text(make_bundle: Any, reader: FakeReader) -> None:
    signature = make_bundle(WITH_FEATURES, [({"amount": 1}, [1, 0])]).document.signature
    plan = {"views": [{"name": "customer", "join_keys": [{"name": "customer_id", "dtype": "int64"}]}]}
    lookup = FeatureLookup(plan, signature, reader, night)
    assert lookup._keys("customer_id", np.array(["7", 8], object)) == [7, 8]
    for wrong in ("C1", 2**63, "1.5"):
        with pytest.raises(Problem):
            lookup._keys("customer_id", np.array([wrong], object))


def test_the_store_of_the_settings_is_read(serve: Any, make_bundle: Any, tmp_path: Path) -> None:
    signature = WITH_FEATURES | {"inputs": WITH_FEATURES["inputs"][:2]}
    plan = PLAN | {"project": "p", "timestamp": "event_time"}
    features = [{"name": "spent_7d", "dtype": "float64"}]
    plan["views"] = [PLAN["views"][0] | {"features": features, "ttl_seconds": 3600}]
    store = tmp_path / "online.db"
    key = serialise_keys(PLAN["views"][0]["join_keys"], {"customer_id": ["C1"]})[0]
    with sqlite3.connect(store) as connection:
        connection.execute("CREATE TABLE p_customer (entity_key BLOB, feature_name TEXT, value BLOB, event_ts TEXT)")
        row = (key, "spent_7d", b"\x29" + struct.pack("<d", 70.0), "2026-02-01 01:30:00")
        connection.execute("INSERT INTO p_customer VALUES (?, ?, ?, ?)", row)
    bundle = make_bundle(signature, [({"amount": 250, "spent_7d": 1}, [0.75, 0.25])], plan)
    served = serve(bundle, open_lookup, online=str(store))
    late = GOOD | {"event_time": "2026-02-01T09:00:00Z"}
    flags = [one["flags"] for one in served.predict(GOOD, late).json()["predictions"]]
    assert flags == [[], ["outside_max_age:customer"]]
    assert served.engine.seen[-1]["spent_7d"] == [70.0, 5.0]


def test_a_store_that_does_not_exist_is_a_reason_not_to_be_ready(serve: Any, make_bundle: Any, tmp_path: Path) -> None:
    plan = PLAN | {"project": "p", "timestamp": "event_time"}
    plan["views"] = [PLAN["views"][0] | {"features": [{"name": "spent_7d", "dtype": "float64"}], "ttl_seconds": 0}]
    bundle = make_bundle(WITH_FEATURES, [(DIRECT, [0.5, 0.5])], plan)
    served = serve(bundle, open_lookup, online=str(tmp_path / "nowhere.db"))
    assert served.runtime.failure is not None
    assert served.runtime.failure.code == "not_materialised"


def test_without_a_store_all_inputs_come_in_the_request(serve: Any, make_bundle: Any) -> None:
    served = serve(make_bundle(WITH_FEATURES, [(DIRECT, [0.5, 0.5])], PLAN), open_lookup)
    assert served.predict(DIRECT).status_code == 200
    answer = served.predict(GOOD)
    assert answer.status_code == 422
    assert "accepted: amount, spent_7d, night" in answer.json()["errors"][0]["message"]


def test_a_bundle_that_takes_keys_needs_a_plan(serve: Any, make_bundle: Any) -> None:
    served = serve(make_bundle(WITH_FEATURES, [(DIRECT, [0.5, 0.5])]), open_lookup)
    assert served.runtime.failure is not None
    assert "features.json" in str(served.runtime.failure)

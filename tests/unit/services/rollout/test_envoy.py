"""What Envoy is told: weights, who keeps a version, copies, and what is sent twice."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.testclient import TestClient

from contracts.rollout_policy import RolloutPolicy
from services.rollout import envoy
from services.rollout.app import discovery_app, metrics_route
from services.rollout.envoy import Address, Routing
from services.rollout.state import new_rollout
from services.rollout.store import Served

BOTH = {"1": Address("127.0.0.1", 3001), "2": Address("127.0.0.1", 3002)}


def last_route(routing: Routing) -> Any:
    return envoy.routes(routing)["virtual_hosts"][0]["routes"][-1]["route"]


@given(weight=st.floats(0, 100))
def test_weights_are_whole_and_the_candidate_comes_first(weight: float) -> None:
    route = last_route(Routing(versions=BOTH, champion="1", candidate="2", weight=weight))
    parts = route["weighted_clusters"]["clusters"]
    assert [part["name"] for part in parts] == ["version-2-first", "version-1-first"]
    assert sum(part["weight"] for part in parts) == 10_000
    assert parts[0]["weight"] == pytest.approx(weight * 100, abs=1)
    assert route["hash_policy"] == [{"header": {"header_name": envoy.ENTITY_HEADER}}]


def test_a_shadow_gets_copies_and_no_weight() -> None:
    route = last_route(Routing(versions=BOTH, champion="1", candidate="2", mirrors=True))
    assert route["cluster"] == "version-1-first"
    assert [copy["cluster"] for copy in route["request_mirror_policies"]] == ["version-2"]


def test_each_version_falls_back_on_the_other_and_nothing_that_may_have_run_is_sent_again() -> None:
    made = {cluster["name"]: cluster for cluster in envoy.clusters(Routing(versions=BOTH, champion="1"))}
    assert made["version-2-first"]["cluster_type"]["typed_config"]["clusters"] == ["version-2", "version-1"]
    retried = last_route(Routing(versions=BOTH, champion="1"))["retry_policy"]["retry_on"]
    assert retried == "connect-failure,refused-stream,reset-before-request"


GRPC = {"1": Address("127.0.0.1", 4001), "2": Address("127.0.0.1", 4002)}


def test_predictions_over_grpc_are_split_as_those_over_http_and_fall_back_among_themselves() -> None:
    routing = Routing(versions=BOTH, grpc=GRPC, champion="1", candidate="2", weight=5)
    infer, rest = envoy.grpc_routes(routing)["virtual_hosts"][0]["routes"]
    assert infer["match"]["path"] == "/inference.GRPCInferenceService/ModelInfer"
    parts = infer["route"]["weighted_clusters"]["clusters"]
    assert [(part["name"], part["weight"]) for part in parts] == [
        ("grpc-version-2-first", 500),
        ("grpc-version-1-first", 9500),
    ]
    assert rest["route"]["cluster"] == "grpc-version-1-first"
    made = {cluster["name"]: cluster for cluster in envoy.clusters(routing)}
    assert made["grpc-version-2-first"]["cluster_type"]["typed_config"]["clusters"] == [
        "grpc-version-2",
        "grpc-version-1",
    ]
    (endpoint,) = made["grpc-version-2"]["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert endpoint["endpoint"]["health_check_config"] == {"port_value": 3002}
    assert endpoint["endpoint"]["address"]["socket_address"]["port_value"] == 4002


def test_a_router_of_grpc_asks_for_its_own_routes() -> None:
    client = TestClient(discovery_app(lambda: Routing(versions=BOTH, grpc=GRPC, champion="1")))
    for name in (envoy.NAME, envoy.GRPC):
        (table,) = client.post("/v3/discovery:routes", json={"resource_names": [name]}).json()["resources"]
        assert table["name"] == name
    assert client.post("/v3/discovery:listeners", json={}).status_code == 404


def test_the_configuration_is_served_once_and_metrics_tell_weights_and_phase() -> None:
    rollout = new_rollout("r", "model", "1", "2", "canary", RolloutPolicy(), 0.0)
    state = rollout.model_copy(update={"phase": "running", "step": 1})
    served = Served(model="model", version="1", rollout=state, outcomes={"rolled_back": 2})
    client = TestClient(discovery_app(lambda: Routing(versions=BOTH, champion="1")))
    for kind, count in (("routes", 1), ("clusters", 4)):
        answer = client.post(f"/v3/discovery:{kind}", json={"version_info": ""})
        assert len(answer.json()["resources"]) == count
        again = client.post(f"/v3/discovery:{kind}", json={"version_info": answer.json()["version_info"]})
        assert again.status_code == 304
    text = _metrics(served)
    assert 'fairlead_rollout_weight{model="model",version="2"} 5.0' in text
    assert 'fairlead_rollout_phase{model="model",phase="running"} 1.0' in text
    ended = served.model_copy(update={"rollout": state.model_copy(update={"phase": "promoted"})})
    after = _metrics(ended)
    assert 'fairlead_rollout_weight{model="model",version="2"} 100.0' in after
    assert 'version="1"' not in after
    assert 'fairlead_rollouts_total{model="model",outcome="rolled_back"} 2.0' in text


def _metrics(served: Served) -> str:
    return TestClient(Starlette(routes=[metrics_route(lambda: [served])])).get("/metrics").text


def test_a_keeper_that_knows_nothing_yet_changes_no_router() -> None:
    answer = TestClient(discovery_app(lambda: None)).post("/v3/discovery:routes", json={"version_info": "1"})
    assert answer.status_code == 503

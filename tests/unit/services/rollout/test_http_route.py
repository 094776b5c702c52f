"""The HTTPRoute by which a Gateway splits the traffic: what is written, and when a Gateway has taken it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.rollout_policy import RolloutPolicy
from services.rollout.envoy import Address, Json, Routing
from services.rollout.http_route import GatewayRoute, rules
from services.rollout.keeper import Keeper
from services.rollout.service import KeeperService
from services.rollout.settings import KeeperSettings
from services.rollout.store import Place, Request
from tests.kubernetes_stand_in import KubernetesStandIn

TWO = {"1": Address("toy-a", 3000), "2": Address("toy-b", 3000)}
POLICY = RolloutPolicy.model_validate({"weights": (5, 100), "step_samples": 1, "step_seconds": 0, "warm_seconds": 0})


def service_of(slot: str, **more: int) -> Json:
    return {"group": "", "kind": "Service", "name": f"toy-{slot}-route", "port": 3000, **more}


def below(path: str, **more: str) -> Json:
    return {"path": {"type": "PathPrefix", "value": path}, **more}


def test_predictions_are_split_and_everything_else_is_the_champions() -> None:
    made = rules(Routing(versions=TWO, champion="1", candidate="2", weight=5), "toy", "/")
    champion, feedback = [service_of("a", weight=1)], {"path": {"type": "Exact", "value": "/feedback"}}
    assert made == [
        {"matches": [below("/v2/models/toy/versions/1")], "backendRefs": champion},
        {"matches": [below("/v2/models/toy/versions/2")], "backendRefs": [service_of("b", weight=1)]},
        {"matches": [below("/", method="GET"), below("/", method="HEAD"), feedback], "backendRefs": champion},
        {"matches": [below("/")], "backendRefs": [service_of("b", weight=500), service_of("a", weight=9500)]},
    ]


def test_a_shadow_gets_a_copy_of_each_prediction_and_answers_none() -> None:
    (*_, split) = rules(Routing(versions=TWO, champion="1", candidate="2", mirrors=True), "toy", "/")
    copies = {"type": "RequestMirror", "requestMirror": {"backendRef": service_of("b")}}
    assert split["filters"] == [copies]
    assert split["backendRefs"] == [service_of("a", weight=1)]


def test_a_path_is_kept_to() -> None:
    routing = Routing(versions=TWO, champion="1")
    paths = [match["path"]["value"] for rule in rules(routing, "toy", "/predict") for match in rule["matches"]]
    assert set(paths) == {"/predict"}
    paths = [match["path"]["value"] for rule in rules(routing, "toy", "/v2/") for match in rule["matches"]]
    assert set(paths) == {"/v2/models/toy/versions/1", "/v2/models/toy/versions/2", "/v2/"}


@given(st.floats(0, 100))
def test_shares_are_the_weights_and_nobody_without_one_is_named(weight: float) -> None:
    (*_, split) = rules(Routing(versions=TWO, champion="1", candidate="2", weight=weight), "toy", "/")
    shares = {each["name"]: each["weight"] for each in split["backendRefs"]}
    assert sum(shares.values()) == 10_000
    assert all(shares.values())
    assert shares.get("toy-b-route", 0) == pytest.approx(weight * 100, abs=0.5)


def accepted(kubernetes: KubernetesStandIn, *gateways: str, **conditions: str) -> None:
    """Let Gateways say what they make of the route as it is now."""
    route = kubernetes.objects["httproutes", "toy-rollouts"]
    now = route["metadata"]["generation"]
    told = {"Accepted": "True", "ResolvedRefs": "True", **conditions}
    said = [{"type": kind, "status": status, "observedGeneration": now} for kind, status in told.items()]
    route["status"] = {"parents": [{"parentRef": {"name": name}, "conditions": said} for name in gateways]}


def test_a_version_takes_traffic_once_every_gateway_has_accepted_the_route_as_it_is_now() -> None:
    kubernetes = KubernetesStandIn("toy", gateways=("web", "inner"))
    route = GatewayRoute(kubernetes, "toy-rollouts", "toy", "toy", "/")
    assert route.seen() is None
    route.put(Routing(versions=TWO, champion="1", candidate="2", weight=5))
    assert route.seen() is None
    accepted(kubernetes, "web")
    assert route.seen() is None
    accepted(kubernetes, "web", "inner", Accepted="Unknown")
    assert route.seen() is None
    accepted(kubernetes, "web", "inner")
    assert route.seen() == {"1": (True, 0.0), "2": (True, 0.0)}
    accepted(kubernetes, "web", "inner", ResolvedRefs="False")
    assert route.seen() == {"1": (False, 0.0), "2": (False, 0.0)}
    accepted(kubernetes, "web", "inner")
    route.put(Routing(versions=TWO, champion="1", candidate="2", weight=25))
    assert route.seen() is None


def test_what_is_written_is_written_once_and_again_after_somebody_changed_it() -> None:
    kubernetes = KubernetesStandIn("toy", gateways=("web",))
    route = GatewayRoute(kubernetes, "toy-rollouts", "toy", "toy", "/")
    for _ in range(3):
        route.put(Routing(versions=TWO, champion="1"))
    written = [("httproutes", "toy-rollouts"), ("services", "toy")]
    assert kubernetes.patches == written
    assert kubernetes.objects["services", "toy"]["spec"]["selector"]["fairlead.io/slot"] == "a"
    kubernetes.objects["httproutes", "toy-rollouts"]["spec"]["rules"] = []
    kubernetes.objects["services", "toy"]["spec"]["selector"] = {}
    route.put(Routing(versions=TWO, champion="1"))
    assert kubernetes.patches == written * 2


class Kept:
    """A release whose keeper looks when it is told to, and whose pods count what `requests` says."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for version in ("1", "2"):
            (folder / version).mkdir()
            (folder / version / "bundle.json").write_text("{}")
        self.kubernetes, self.requests, self.now = KubernetesStandIn("toy", gateways=("web",)), 100, 0.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        told: dict[str, Any] = {"model": "toy", "namespace": "spaces", "name": "toy", "version": "1", "digest": "1f"}
        settings = KeeperSettings.model_validate({**told, "source": str(folder / "1"), "router": "httpRoute"})
        made = KeeperService(settings, self.kubernetes)
        assert isinstance(made._keeper, Keeper)
        self.keeper, self.store = made._keeper, made._store
        made._fleet._resolve, made._fleet._fetch = (lambda name: [name]), self._fetch

    def _fetch(self, urls: Any) -> dict[str, str]:
        found = {}
        for url in urls:
            version = self.kubernetes.held(url.split("/")[2].partition(":")[0])
            tags = f'model="toy",version="{version}",route="/predict",code="200"'
            found[url] = f"fairlead_requests_total{{{tags}}} {self.requests}"
        return found

    def look(self, *, accepts: bool = True) -> None:
        self.now += 1
        self.requests += 100
        self.keeper.tick(self.now)
        if accepts:
            accepted(self.kubernetes, "web")

    def start(self, folder: Path) -> None:
        place = Place(source=str(folder / "2"), digest="2f")
        told: dict[str, Any] = {"id": "r", "actor": "me", "candidate": "2", "strategy": "canary", "policy": POLICY}
        self.store._requests.put(Request(command="start", reason="", place=place, **told))

    @property
    def phase(self) -> str:
        assert self.keeper.served.rollout is not None
        return self.keeper.served.rollout.phase

    def shares(self) -> dict[str, int]:
        (*_, split) = self.kubernetes.objects["httproutes", "toy-rollouts"]["spec"]["rules"]
        return {each["name"]: each["weight"] for each in split["backendRefs"]}


def test_a_version_comes_by_the_weights_of_the_route_and_the_service_follows_the_champion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept(tmp_path, monkeypatch)
    kept.look()
    kept.look()
    assert kept.shares() == {"toy-a-route": 10_000}
    kept.start(tmp_path)
    kept.look(accepts=False)
    for _ in range(5):
        kept.look(accepts=False)
    assert (kept.phase, kept.shares()) == ("starting", {"toy-a-route": 10_000}), "no Gateway has taken the route"
    kept.look()
    kept.look()
    assert kept.shares() == {"toy-b-route": 500, "toy-a-route": 9_500}
    assert kept.kubernetes.objects["services", "toy"]["spec"]["selector"]["fairlead.io/slot"] == "a"
    for _ in range(300):
        kept.look()
    assert kept.phase == "promoted"
    assert kept.shares() == {"toy-b-route": 10_000}
    assert kept.kubernetes.objects["services", "toy"]["spec"]["selector"]["fairlead.io/slot"] == "b"
    assert (kept.kubernetes.replicas("toy-a"), kept.kubernetes.replicas("toy-b")) == (0, 1)


def test_a_route_that_a_gateway_refuses_takes_the_candidate_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept(tmp_path, monkeypatch)
    kept.look()
    kept.start(tmp_path)
    for _ in range(5):
        kept.look()
    assert kept.phase == "running"
    for _ in range(int(POLICY.unready_seconds) + 3):
        kept.look(accepts=False)
        accepted(kept.kubernetes, "web", Accepted="False")
    assert kept.phase == "rolled_back"
    assert kept.shares() == {"toy-a-route": 10_000}

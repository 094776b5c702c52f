"""A release whose traffic a Gateway splits: no Envoys, an HTTPRoute that Helm leaves to the keeper, and who gets in."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.settings import load
from services.rollout.settings import PREFIX, KeeperSettings
from tests.helm.chart import Object, containers, environment, named, of_kind, pods, refused, render
from tests.helm.edges import Network, Pod, selects
from tests.helm.program import CHARTS

MINIMAL = CHARTS / "model-service" / "ci" / "minimal-values.yaml"
GATEWAYS = [{"name": "web", "namespace": "gateways", "sectionName": "https"}]
ROUTE: dict[str, Any] = {"enabled": True, "parentRefs": GATEWAYS, "hostnames": ["toy.example.com"]}
SERVED: dict[str, Any] = {
    "model": {"source": "s3://models/fraud/1f", "digest": "2d" * 32, "version": "3"},
    "storage": {"endpoint": "http://fairlead-s3:9000", "existingSecret": "fairlead-s3"},
}


def release(route: dict[str, Any] | None = None, **values: Any) -> list[Object]:
    rollouts = {"enabled": True, "httpRoute": {**ROUTE, **(route or {})}}
    return render("model-service", {"rollouts": rollouts, **values}, files=(MINIMAL,), release="toy")


def test_there_is_no_envoy_and_nobody_who_waits_for_one() -> None:
    objects = release(replicaCount=2)
    assert {name for name, _ in pods(objects)} == {
        "Deployment/toy-a",
        "Deployment/toy-b",
        "Deployment/toy-rollouts",
        "Pod/toy-test",
    }
    (keeper,) = containers(dict(pods(objects))["Deployment/toy-rollouts"])
    assert [port["containerPort"] for port in keeper["ports"]] == [9110]
    assert [port["port"] for port in named(objects, "Service", "toy-rollouts")["spec"]["ports"]] == [9110]
    budgets = {each["metadata"]["name"] for each in of_kind(objects, "PodDisruptionBudget")}
    assert budgets == {"toy-a", "toy-b"}


def test_the_keeper_knows_what_splits_and_where() -> None:
    (keeper,) = containers(dict(pods(release({"path": "/v2"})))["Deployment/toy-rollouts"])
    told = {name: value for name, value in environment(keeper).items() if name.startswith(PREFIX)}
    settings = load(KeeperSettings, prefix=PREFIX, environ=told)
    assert (settings.router, settings.path) == ("httpRoute", "/v2")


def test_helm_says_neither_how_the_route_splits_nor_which_slot_the_service_selects() -> None:
    objects = release({"annotations": {"a": "b"}})
    (route,) = of_kind(objects, "HTTPRoute")
    assert (route["apiVersion"], route["metadata"]["name"]) == ("gateway.networking.k8s.io/v1", "toy-rollouts")
    assert route["metadata"]["annotations"] == {"a": "b"}
    assert route["spec"] == {"parentRefs": GATEWAYS, "hostnames": ["toy.example.com"]}
    assert "selector" not in named(objects, "Service", "toy")["spec"]


def test_a_gateway_sends_to_a_service_with_an_address_for_each_slot() -> None:
    objects = release()
    for slot in ("a", "b"):
        spec = named(objects, "Service", f"toy-{slot}-route")["spec"]
        assert "clusterIP" not in spec
        assert [port["port"] for port in spec["ports"]] == [3000]
        found = [name for name, pod in pods(objects) if selects({"matchLabels": spec["selector"]}, labels(pod))]
        assert found == [f"Deployment/toy-{slot}"]
        matched = named(objects, "Deployment", f"toy-{slot}")["spec"]["selector"]["matchLabels"]
        assert matched == spec["selector"], "the keeper lets the release's Service select the same"


def labels(pod: Object) -> dict[str, str]:
    found: dict[str, str] = pod["metadata"]["labels"]
    return found


def test_the_keeper_may_change_its_route_and_its_service_and_no_others() -> None:
    rules = named(release(), "Role", "toy-rollouts")["rules"]
    may = {
        (kind, verb): rule["resourceNames"] for rule in rules for kind in rule["resources"] for verb in rule["verbs"]
    }
    assert {right: names for right, names in may.items() if right[0] in ("httproutes", "services")} == {
        ("httproutes", "get"): ["toy-rollouts"],
        ("httproutes", "patch"): ["toy-rollouts"],
        ("services", "get"): ["toy"],
        ("services", "patch"): ["toy"],
    }
    (group,) = [rule["apiGroups"] for rule in rules if rule["resources"] == ["httproutes"]]
    assert group == ["gateway.networking.k8s.io"]
    envoys = render("model-service", {"rollouts": {"enabled": True}}, files=(MINIMAL,), release="toy")
    kinds = {kind for rule in named(envoys, "Role", "toy-rollouts")["rules"] for kind in rule["resources"]}
    assert not kinds & {"httproutes", "services"}


def test_the_gateway_gets_in_by_its_namespace_or_its_pods_and_others_do_not() -> None:
    data, other = Pod({"app": "data-plane"}, "gateways"), Pod({"app": "data-plane"}, "elsewhere")
    by_namespace, closed = release({"namespaces": ["gateways"]}), release()
    peers = [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "data-plane"}}}]
    by_pods = release(networkPolicy={"clients": peers})
    slot = Pod(labels(dict(pods(closed))["Deployment/toy-a"]), "spaces")

    def lets(objects: list[Object], source: Pod, target: Pod = slot, port: int = 3000) -> bool:
        return Network(of_kind(objects, "NetworkPolicy")).lets(source, target, port)

    assert [lets(each, data) for each in (by_namespace, by_pods, closed)] == [True, True, False]
    assert [lets(each, other) for each in (by_namespace, by_pods, closed)] == [False, True, False]
    keeper = Pod(labels(dict(pods(closed))["Deployment/toy-rollouts"]), "spaces")
    assert lets(closed, keeper)
    assert lets(closed, Pod({"fairlead.io/access-model": "true"}, "spaces"))
    assert lets(closed, Pod(labels(dict(pods(closed))["Pod/toy-test"]), "spaces"))
    assert not lets(by_namespace, data, keeper, 9110)
    assert not lets(closed, slot, keeper, 9110)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rollouts": {"httpRoute": ROUTE}}, "without rollouts"),
        ({"rollouts": {"enabled": True, "httpRoute": {"enabled": True}}}, "set rollouts.httpRoute.parentRefs"),
        ({"rollouts": {"enabled": True, "httpRoute": ROUTE}, "httpRoute": ROUTE}, "two routes to one model"),
        ({"rollouts": {"enabled": True, "httpRoute": {**ROUTE, "path": "v2"}}}, "path"),
    ],
    ids=["no rollouts", "no gateway", "two routes", "path"],
)
def test_what_cannot_be_split_by_a_gateway_is_said(values: dict[str, Any], said: str) -> None:
    assert said in refused("model-service", {**SERVED, **values})

"""Ingress and HTTPRoute, claims and Secrets of the user's own, by value."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helm.chart import Object, environment, named, of_kind, pods, refused, render
from tests.helm.program import CHARTS

MINIMAL = CHARTS / "model-service" / "ci" / "minimal-values.yaml"
WAYS = {
    "ingress": {
        "enabled": True,
        "className": "nginx",
        "annotations": {"cert-manager.io/cluster-issuer": "ca"},
        "hosts": ["a.example.com", "b.example.com"],
        "tls": [{"secretName": "a-tls", "hosts": ["a.example.com"]}],
        "namespaces": ["ingress-nginx"],
    },
    "httpRoute": {
        "enabled": True,
        "parentRefs": [{"name": "web", "namespace": "gateways"}],
        "hostnames": ["c.example.com"],
        "path": "/x",
        "namespaces": ["gateways"],
    },
}
OPENED = [
    ("model-service", lambda ways: ways, "fairlead", 80, 3000),
    ("platform", lambda ways: {"mlflow": ways}, "fairlead-mlflow", 5000, 5000),
    ("monitoring", lambda ways: {"prometheus": ways}, "fairlead-prometheus", 9090, 9090),
]
opened = pytest.mark.parametrize(("chart", "place", "name", "port", "target"), OPENED, ids=[each[0] for each in OPENED])


def made(chart: str, values: dict[str, Any]) -> list[Object]:
    return render(chart, values, files=(MINIMAL,) if chart == "model-service" else ())


@opened
def test_both_ways_lead_to_the_service(chart: str, place: Any, name: str, port: int, target: int) -> None:
    objects = made(chart, place(WAYS))
    ingress = named(objects, "Ingress", name)
    assert ingress["metadata"]["annotations"] == WAYS["ingress"]["annotations"]
    assert ingress["spec"]["ingressClassName"] == "nginx"
    assert ingress["spec"]["tls"] == WAYS["ingress"]["tls"]
    rules = ingress["spec"]["rules"]
    assert [rule["host"] for rule in rules] == WAYS["ingress"]["hosts"]
    for rule in rules:
        (path,) = rule["http"]["paths"]
        assert path["backend"]["service"] == {"name": name, "port": {"number": port}}
    route = named(objects, "HTTPRoute", name)["spec"]
    assert (route["parentRefs"], route["hostnames"]) == (WAYS["httpRoute"]["parentRefs"], ["c.example.com"])
    assert route["rules"][0]["backendRefs"] == [{"name": name, "port": port}]
    assert route["rules"][0]["matches"] == [{"path": {"type": "PathPrefix", "value": "/x"}}]
    assert port in [each["port"] for each in named(objects, "Service", name)["spec"]["ports"]]


@opened
def test_the_network_policy_lets_the_controllers_in(chart: str, place: Any, name: str, port: int, target: int) -> None:
    rules = named(made(chart, place(WAYS)), "NetworkPolicy", name)["spec"]["ingress"]
    (rule,) = [each for each in rules if each["from"][0].get("namespaceSelector") and len(each["from"]) == 1]
    assert rule["from"][0]["namespaceSelector"]["matchExpressions"][0]["values"] == ["ingress-nginx", "gateways"]
    assert rule["ports"] == [{"protocol": "TCP", "port": target}]


@opened
def test_there_is_no_way_in_unless_asked(chart: str, place: Any, name: str, port: int, target: int) -> None:
    assert not of_kind(made(chart, {}), "Ingress", "HTTPRoute")


@opened
def test_a_way_without_an_end_is_refused(chart: str, place: Any, name: str, port: int, target: int) -> None:
    model = {"model": {"source": "s3://m/a", "digest": "0" * 64}} if chart == "model-service" else {}
    assert "ingress.hosts" in refused(chart, {**model, **place({"ingress": {"enabled": True}})})
    assert "httpRoute.parentRefs" in refused(chart, {**model, **place({"httpRoute": {"enabled": True}})})


def test_mlflow_answers_to_the_names_it_is_reached_by() -> None:
    (container,) = named(made("platform", {"mlflow": WAYS}), "Deployment", "fairlead-mlflow")["spec"]["template"][
        "spec"
    ]["containers"]
    allowed = environment(container)["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    assert {"a.example.com", "a.example.com:*", "b.example.com", "c.example.com"} <= set(allowed)


@pytest.mark.parametrize(
    ("values", "pod"),
    [
        ({"mariadb": {"persistence": {"existingClaim": "mine"}}}, "StatefulSet/fairlead-mariadb"),
        ({"s3": {"persistence": {"existingClaim": "mine"}}}, "StatefulSet/fairlead-s3"),
        ({"feature-store": {"redis": {"persistence": {"existingClaim": "mine"}}}}, "StatefulSet/fairlead-redis"),
        ({"monitoring": {"prometheus": {"persistence": {"existingClaim": "mine"}}}}, "StatefulSet/fairlead-prometheus"),
    ],
)
def test_a_claim_of_ones_own_takes_the_place_of_the_charts(values: dict[str, Any], pod: str) -> None:
    objects = render("platform", values)
    assert pod.partition("/")[2] not in {each["metadata"]["name"] for each in of_kind(objects, "PersistentVolumeClaim")}
    (volume,) = [each for each in dict(pods(objects))[pod]["spec"]["volumes"] if each["name"] == "data"]
    assert volume["persistentVolumeClaim"] == {"claimName": "mine"}


def test_what_may_not_be_generated_is_named_until_all_is_there() -> None:
    values: dict[str, Any] = {"global": {"secrets": {"generate": False}}, "demo": {"secrets": {"keys": {}}}}
    asked = []
    for _ in range(6):
        said = refused("platform", values)
        parts = ("global.sql", "global.s3", "global.redis", "global.predictions", "console")
        (key,) = {f"{part}.existingSecret" for part in parts if f"{part}.existingSecret is empty" in said} or {
            "demo.secrets.keys.name"
        }
        assert f"{key} is empty" in said
        assert "global.secrets.generate is false" in said
        asked.append(key)
        if key.startswith("demo"):
            values["demo"]["secrets"]["keys"]["name"] = "mine"
        elif key.startswith("console"):
            values["console"] = {"existingSecret": "mine"}
        else:
            values["global"][key.split(".")[1]] = {"existingSecret": "mine"}
    assert len(set(asked)) == 6
    first = render("platform", values)
    assert not of_kind(first, "Secret")


def test_a_models_key_may_be_named_or_refused_too() -> None:
    values = {"global": {"secrets": {"generate": False}}, "model": {"source": "s3://m/a", "digest": "0" * 64}}
    assert "secrets.keys.name is empty" in refused("model-service", values)
    for keys in ({"name": "mine"}, {"generate": False}):
        assert not of_kind(render("model-service", {**values, "secrets": {"keys": keys}}), "Secret")


def test_addresses_of_ipv6_are_reached_too() -> None:
    config = {"online": "redis://[fd00::7]:6380/0"}
    egress = named(render("model-service", {"config": config}, files=(MINIMAL,)), "NetworkPolicy", "fairlead")["spec"][
        "egress"
    ]
    assert {"to": [{"ipBlock": {"cidr": "fd00::7/128"}}], "ports": [{"protocol": "TCP", "port": 6380}]} in egress
    for address, cidrs in (("0.0.0.0", {"0.0.0.0/0"}), ("::", {"0.0.0.0/0", "::/0"})):
        manifests = render("platform", {"global": {"pods": {"bindAddress": address}}})
        rules = named(manifests, "NetworkPolicy", "fairlead-ml-pipeline")["spec"]["egress"]
        everywhere = [rule for rule in rules if "ipBlock" in rule.get("to", [{}])[0]]
        assert {peer["ipBlock"]["cidr"] for peer in everywhere[0]["to"]} == cidrs

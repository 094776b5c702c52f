"""The router of models in the platform's chart: its settings, where keys come from, and where it may connect to."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from services.router.settings import RouterSettings
from tests.helm.chart import containers, environment, named, of_kind, refused, render

CONFIG = {
    "backends": {
        "chat": {"url": "http://chat/v1"},
        "provider": {"url": "https://api.example.com/v1", "outside": True, "key": "PROVIDER_KEY"},
    },
    "routes": {"assistant": {"targets": [{"backend": "chat", "model": "chat"}]}},
}
ON = {
    "enabled": True,
    "config": CONFIG,
    "providerKeys": [{"variable": "PROVIDER_KEY", "secret": "provider", "key": "token"}],
    "keys": {"name": "clients"},
    "redis": {"name": "shared"},
}
NAME = "fairlead-model-router"


def rendered(**more: Any) -> list[Any]:
    return render("platform", {"modelRouter": ON | more})


def test_it_is_off_by_itself() -> None:
    assert not [one for one in render("platform") if "model-router" in one["metadata"]["name"]]


def test_its_file_is_read_by_its_settings_and_has_no_secret() -> None:
    file = named(rendered(), "ConfigMap", NAME)["data"]["router.yaml"]
    settings = RouterSettings.model_validate(yaml.safe_load(file))
    assert settings.backends["provider"].key == "PROVIDER_KEY"
    (container,) = containers(named(rendered(), "Deployment", NAME)["spec"]["template"])
    assert container["command"][:5] == ["python", "-m", "services.router", "--file", "/etc/fairlead/router.yaml"]
    told = {one["name"]: one.get("valueFrom", {}).get("secretKeyRef") for one in container["env"]}
    assert told["PROVIDER_KEY"] == {"name": "provider", "key": "token"}
    assert told["FAIRLEAD_ROUTER_REDIS"] == {"name": "shared", "key": "url"}
    assert environment(container)["FAIRLEAD_ROUTER_KEYS_FILE"] == "/etc/fairlead-keys/keys"


def test_only_outside_backends_open_the_way_out() -> None:
    def world(**more: Any) -> list[Any]:
        policy = named(rendered(**more), "NetworkPolicy", NAME)["spec"]["egress"]
        return [rule["ports"] for rule in policy if {"ipBlock": {"cidr": "0.0.0.0/0"}} in rule.get("to", [])]

    assert world() == [[{"protocol": "TCP", "port": 443}]]
    inside = {**CONFIG, "backends": {"chat": {"url": "http://chat/v1"}}}
    assert world(config=inside) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"config": {}}, "set modelRouter.config.backends"),
        ({"config": CONFIG | {"redis": "redis://here"}}, "use modelRouter.keys.name"),
        ({"config": CONFIG | {"budgets": {"default": {}}}, "replicas": 2, "redis": {}}, "set modelRouter.redis.name"),
        ({"providerKeys": []}, "add it to modelRouter.providerKeys"),
    ],
)
def test_what_cannot_work_is_refused(wrong: dict[str, Any], said: str) -> None:
    assert said in refused("platform", {"modelRouter": ON | wrong})


def test_several_pods_have_a_budget_of_disruptions() -> None:
    budgets = of_kind(rendered(replicas=2), "PodDisruptionBudget")
    assert NAME in [one["metadata"]["name"] for one in budgets]

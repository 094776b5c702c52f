"""How alerts reach people: Alertmanagers of one's own, and the chart's, with addresses and passwords from Secrets."""

from __future__ import annotations

from typing import Any

import yaml

from tests.helm.chart import Object, containers, named, of_kind, pods, render

ACCESS = {"scheme": "https", "existingSecret": "am"}
OWN = {"alertmanager": {"enabled": True, "existingSecret": "receivers"}}


def told(objects: list[Object]) -> list[Any]:
    """Alertmanagers in the configuration of Prometheus."""
    text = named(objects, "ConfigMap", "fairlead-prometheus")["data"]["prometheus.yml"]
    found: list[Any] = yaml.safe_load(text).get("alerting", {}).get("alertmanagers", [])
    return found


def mounted(objects: list[Object], pod: str) -> dict[str, str]:
    """Secrets of a pod, by the folder where its container sees them."""
    template = dict(pods(objects))[f"StatefulSet/fairlead-{pod}"]
    secrets = {each["name"]: each["secret"]["secretName"] for each in template["spec"]["volumes"] if "secret" in each}
    (container,) = containers(template)
    return {each["mountPath"]: secrets[each["name"]] for each in container["volumeMounts"] if each["name"] in secrets}


def test_nobody_is_told_unless_asked() -> None:
    objects = render("monitoring")
    assert told(objects) == []
    assert not [each for each in objects if each["metadata"]["name"] == "fairlead-alertmanager"]
    assert mounted(objects, "prometheus") == {}


def test_a_list_of_addresses_is_all_that_earlier_values_have() -> None:
    (one,) = told(render("monitoring", {"alertmanagers": ["a:9093", "b:9093"]}))
    assert one["static_configs"] == [{"targets": ["a:9093", "b:9093"]}]
    assert (one["scheme"], one["path_prefix"]) == ("http", "/")
    assert not {"basic_auth", "tls_config"} & set(one)


def test_prometheus_reads_only_what_it_is_told_that_the_secret_has() -> None:
    values = {"alertmanagers": ["a:9093"], "alertmanagersAccess": {**ACCESS, "basicAuth": True, "ca": True}}
    objects = render("monitoring", values)
    (one,) = told(objects)
    (folder,) = mounted(objects, "prometheus")
    assert mounted(objects, "prometheus") == {folder: "am"}
    assert one["basic_auth"] == {"username_file": f"{folder}/username", "password_file": f"{folder}/password"}
    assert one["tls_config"] == {"ca_file": f"{folder}/ca.crt", "min_version": "TLS12"}
    (one,) = told(render("monitoring", {"alertmanagers": ["a:9093"], "alertmanagersAccess": ACCESS}))
    assert one["tls_config"] == {"min_version": "TLS12"}, "the authorities that the image knows"


def test_the_charts_own_is_told_beside_others_and_finds_its_receivers_in_the_secret() -> None:
    objects = render("monitoring", {"alertmanagers": ["a:9093"], **OWN})
    assert [each["static_configs"][0]["targets"] for each in told(objects)] == [
        ["fairlead-alertmanager:9093"],
        ["a:9093"],
    ]
    assert named(objects, "Service", "fairlead-alertmanager")["spec"]["ports"][0]["port"] == 9093
    config = yaml.safe_load(named(objects, "ConfigMap", "fairlead-alertmanager")["data"]["alertmanager.yml"])
    (receiver,) = config["receivers"]
    (folder,) = mounted(objects, "alertmanager")
    assert receiver["webhook_configs"] == [{"url_file": f"{folder}/url"}]
    routes = [config["route"], *config["route"]["routes"]]
    assert {each["receiver"] for each in routes} == {receiver["name"]}


def test_receivers_of_ones_own_replace_the_example() -> None:
    mail = {"name": "people", "email_configs": [{"to": "a@example.com", "auth_password_file": "/x"}]}
    values = {"alertmanager": {"enabled": True, "config": {"receivers": [mail]}}}
    objects = render("monitoring", values)
    config = yaml.safe_load(named(objects, "ConfigMap", "fairlead-alertmanager")["data"]["alertmanager.yml"])
    assert config["receivers"] == [mail]
    assert mounted(objects, "alertmanager") == {}
    assert len(of_kind(objects, "PersistentVolumeClaim")) == 2

"""The chart of a model: what each value becomes, and what cannot work is refused with its cure."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from contracts import metric_names
from contracts.settings import load
from deploy.values.model_service import ChartValues
from services.settings import PREFIX, ServiceSettings
from tests.helm.program import CHARTS, helm
from tests.helm.promql import complaints, metrics

CHART = CHARTS / "model-service"
DIGEST = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
MINIMAL = {
    "model": {"source": "s3://models/fraud/2d711642b726", "digest": DIGEST},
    "storage": {"endpoint": "http://s3:9000", "existingSecret": "s3"},
}
CI = sorted(CHART.glob("ci/*-values.yaml"))
OPERATOR = ("monitoring.coreos.com/v1/PodMonitor", "monitoring.coreos.com/v1/PrometheusRule")
CUSTOM_METRICS = "custom.metrics.k8s.io/v1beta1"


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in over.items():
        out[key] = merged(out.get(key, {}), value) if isinstance(value, dict) else value
    return out


@lru_cache(maxsize=64)
def _rendered(values: str, release: str, apis: tuple[str, ...]) -> str:
    options = [part for api in apis for part in ("--api-versions", api)]
    done = helm("template", release, str(CHART), "--namespace", "models", "-f", "-", *options, given=values)
    assert done.returncode == 0, done.stderr
    return done.stdout


def render(values: dict[str, Any] | None = None, *, release: str = "fraud", apis: tuple[str, ...] = ()) -> list[Any]:
    """The objects of MINIMAL with `values` over it, or of values that name their own model."""
    base = {} if "source" in (values or {}).get("model", {}) else MINIMAL
    text = _rendered(json.dumps(merged(base, values or {})), release, apis)
    return [document for document in yaml.load_all(text, yaml.CSafeLoader) if document]


def refused(values: dict[str, Any], *, release: str = "fraud") -> str:
    """What Helm says when it refuses `values`."""
    text = json.dumps(merged(MINIMAL, values))
    done = helm("template", release, str(CHART), "-f", "-", given=text)
    assert done.returncode != 0, "these values were accepted"
    return done.stderr


def one(objects: list[Any], kind: str, suffix: str = "") -> Any:
    (found,) = [item for item in objects if item["kind"] == kind and item["metadata"]["name"].endswith(suffix)]
    return found


def pod(objects: list[Any]) -> Any:
    return one(objects, "Deployment")["spec"]["template"]["spec"]


def server(objects: list[Any]) -> Any:
    return pod(objects)["containers"][0]


# What values become.


def test_the_bundle_is_fetched_by_digest_and_served_read_only() -> None:
    spec = pod(render())
    (fetch,) = spec["initContainers"]
    assert fetch["command"][-3:] == [
        "--source=s3://models/fraud/2d711642b726",
        f"--to=/bundles/{DIGEST[:16]}",
        f"--digest={DIGEST}",
    ]
    env = {item["name"]: item for item in fetch["env"]}
    assert env["AWS_ENDPOINT_URL"]["value"] == "http://s3:9000"
    assert env["AWS_SECRET_ACCESS_KEY"]["valueFrom"]["secretKeyRef"] == {"name": "s3", "key": "secret-key"}
    mounts = {item["name"]: item for item in server(render())["volumeMounts"]}
    assert mounts["bundles"]["readOnly"] is True
    assert not any(item["name"].startswith("AWS_") for item in server(render())["env"])


@pytest.mark.parametrize("file", CI, ids=lambda file: file.stem)
def test_the_configuration_that_is_rendered_is_one_the_service_accepts(file: Path) -> None:
    values = yaml.safe_load(file.read_text())
    objects = render(values)
    data = next(
        item["data"]
        for item in objects
        if item["kind"] == "ConfigMap" and item["metadata"]["name"] == one(objects, "Deployment")["metadata"]["name"]
    )
    environ = {**data, **{item["name"]: item["value"] for item in server(objects)["env"] if "value" in item}}
    settings = load(ServiceSettings, prefix=PREFIX, environ=environ)
    assert settings.bundle == f"/bundles/{values['model'].get('digest', 'unpinned')[:16]}"
    for key, value in values.get("config", {}).items():
        got = getattr(settings, key)
        assert (got.model_dump(exclude_unset=True) if isinstance(value, dict) else got) == value


def test_a_changed_setting_starts_new_pods() -> None:
    first, second = (
        one(render(values), "Deployment")["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
        for values in ({}, {"config": {"threads": 2}})
    )
    assert first != second


def test_the_autoscaler_owns_the_number_of_pods() -> None:
    objects = render({"autoscaling": {"enabled": True}}, apis=(CUSTOM_METRICS,))
    assert "replicas" not in one(objects, "Deployment")["spec"]
    first = one(objects, "HorizontalPodAutoscaler")["spec"]["metrics"][0]
    assert first["pods"]["metric"]["name"] == metric_names.INFLIGHT


def test_it_scales_on_the_wait_for_the_model_when_asked_to() -> None:
    scaling = {"enabled": True, "metric": "queue", "queueTarget": 0.02}
    spec = one(render({"autoscaling": scaling}), "HorizontalPodAutoscaler")["spec"]
    first, second = spec["metrics"]
    assert first["pods"]["metric"]["name"] == metric_names.QUEUE_WAIT
    assert first["pods"]["target"] == {"type": "AverageValue", "averageValue": "0.02"}
    assert second["type"] == "ContainerResource"


def test_without_custom_metrics_it_scales_on_cpu() -> None:
    spec = one(render({"autoscaling": {"enabled": True}}), "HorizontalPodAutoscaler")["spec"]
    assert [item["type"] for item in spec["metrics"]] == ["ContainerResource"]


@pytest.mark.parametrize(("replicas", "budgets"), [(1, 0), (2, 1)])
def test_a_disruption_budget_needs_more_than_one_pod(replicas: int, budgets: int) -> None:
    found = [item for item in render({"replicaCount": replicas}) if item["kind"] == "PodDisruptionBudget"]
    assert len(found) == budgets


def test_a_gpu_brings_its_limit_toleration_class_memory_and_image() -> None:
    spec = pod(render({"gpu": {"count": 1, "runtimeClassName": "nvidia"}}))
    assert spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "nvidia.com/gpu" not in spec["initContainers"][0]["resources"]["limits"]
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]
    assert spec["runtimeClassName"] == "nvidia"
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}} in spec["volumes"]
    assert spec["containers"][0]["image"].endswith("-gpu")


def test_a_pod_may_end_later_than_its_service() -> None:
    spec = pod(render({"config": {"drain_seconds": 12.5, "graceful_seconds": 60}}))
    assert spec["terminationGracePeriodSeconds"] == 83


def test_start_readiness_and_life_are_asked_for_differently() -> None:
    container = server(render())
    paths = {name: container[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert paths == {"startupProbe": "/startupz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}


def test_the_registry_of_every_image_is_replaced_at_once() -> None:
    text = json.dumps(render({"global": {"imageRegistry": "registry.example.com"}}))
    assert set(re.findall(r'"image": "([^/]+)/', text)) == {"registry.example.com"}


def test_a_digest_pins_the_image() -> None:
    digest = "sha256:" + DIGEST
    assert server(render({"image": {"digest": digest}}))["image"] == f"ghcr.io/fairlead/service:0.1.0@{digest}"


def test_a_shared_cache_is_one_claim() -> None:
    objects = render({"cache": {"type": "claim", "storageClass": "nfs"}})
    claim = one(objects, "PersistentVolumeClaim")
    volume = next(item for item in pod(objects)["volumes"] if item["name"] == "bundles")
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert claim["spec"]["storageClassName"] == "nfs"


# Who may talk to it.


def policy(objects: list[Any]) -> Any:
    return one(objects, "NetworkPolicy", "fraud")["spec"]


def test_only_the_named_may_call_and_only_the_needed_is_called() -> None:
    spec = policy(render({"networkPolicy": {"clients": [{"podSelector": {"matchLabels": {"app": "shop"}}}]}}))
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    peers = [json.dumps(peer) for rule in spec["ingress"] for peer in rule["from"]]
    assert len(peers) == 4
    assert any("fairlead.io/access-model" in peer for peer in peers)
    assert any("shop" in peer for peer in peers)
    ports = [port["port"] for rule in spec["egress"] for port in rule["ports"]]
    assert ports == [53, 53, 9000]
    assert "0.0.0.0/0" not in json.dumps(spec)


@pytest.mark.parametrize(
    ("endpoint", "peer"),
    [
        ("http://s3:9000", {"podSelector": {}}),
        ("http://s3.data.svc:9000", {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "data"}}}),
        ("https://10.1.2.3", {"ipBlock": {"cidr": "10.1.2.3/32"}}),
        ("https://minio.example.com", {"ipBlock": {"cidr": "0.0.0.0/0"}}),
    ],
)
def test_the_way_to_storage_is_derived_from_its_address(endpoint: str, peer: dict[str, Any]) -> None:
    spec = policy(render({"storage": {"endpoint": endpoint}}))
    assert spec["egress"][-1]["to"] == [peer]


def test_features_online_open_the_way_to_redis() -> None:
    spec = policy(render({"config": {"online": "redis://redis.data.svc.cluster.local:6380/0"}}))
    assert spec["egress"][-1]["ports"] == [{"protocol": "TCP", "port": 6380}]


def test_answers_reach_the_chat_model_that_writes_them_and_the_database_of_their_vectors() -> None:
    where = {"writer": {"url": "http://chat.models:3000/v1"}, "vector_store": "postgresql://vectors/passages"}
    chat, vectors = policy(render({"config": where}))["egress"][-2:]
    assert chat["to"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "models"}}}]
    assert (vectors["to"], vectors["ports"]) == ([{"podSelector": {}}], [{"protocol": "TCP", "port": 5432}])
    assert [port["port"] for port in chat["ports"]] == [3000]
    objects = render({"config": {"vector_store": "redis://vectors.stores"}})
    vectors = policy(objects)["egress"][-1]
    assert vectors["to"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "stores"}}}]
    assert vectors["ports"] == [{"protocol": "TCP", "port": 6379}]
    labels = one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert [name for name in labels if "redis" in name], "the Redis of a platform lets it in"


def test_behind_sentinels_the_primary_is_reached_too() -> None:
    rule = policy(render({"config": {"online": "redis://one.stores:26379,two.stores:26379/0?sentinel=main"}}))[
        "egress"
    ][-1]
    assert rule["to"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "stores"}}}]
    assert [port["port"] for port in rule["ports"]] == [26379, 6379]


# What monitoring gets.


def test_prometheus_finds_the_pods_by_what_the_cluster_has() -> None:
    assert one(render(apis=OPERATOR), "PodMonitor")["spec"]["podMetricsEndpoints"][0]["port"] == "http"
    plain = one(render(), "Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert (plain["prometheus.io/scrape"], plain["prometheus.io/port"]) == ("true", "3000")
    assert [item["kind"] for item in render(apis=OPERATOR)].count("PrometheusRule") == 1


def test_rules_and_dashboard_ask_for_this_model_and_for_metrics_that_exist() -> None:
    objects = render()
    (text,) = one(objects, "ConfigMap", "-dashboard")["data"].values()
    dashboard = json.loads(text)
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert complaints(queries, ()) == []
    answers = {metric_names.PREDICTIONS, f"{metric_names.SCORE}_bucket", f"{metric_names.VALUE}_bucket"}
    assert answers <= {name for query in queries for name in metrics(query)}, "each kind of answer has a panel"
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert len(dashboard["uid"]) <= 40
    (text,) = one(objects, "ConfigMap", "-rules")["data"].values()
    queries += [rule["expr"] for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
    named = [query for query in queries if metrics(query)]
    assert len(named) >= len(queries) - 1, "only the objective is a number"
    for query in named:
        of_all = query.count("fairlead_rollout_weight")
        assert query.count('namespace="models", model="fraud"') == query.count("fairlead_") - of_all, query


def test_an_objective_lies_on_an_edge_of_the_histogram() -> None:
    (text,) = one(render(), "ConfigMap", "-rules")["data"].values()
    assert 'le="0.25"' in text
    assert "latencySeconds" in refused({"monitoring": {"rules": {"latencySeconds": 0.3}}})


# What is refused.

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"replicaCuont": 2}, r"replicaCuont"),
    "unknown key of the service": ({"config": {"thread": 2}}, r"config.*thread"),
    "wrong type": ({"replicaCount": "two"}, r"replicaCount"),
    "no model": ({"model": {"source": ""}}, r"set model.source and model.digest"),
    "an alias": ({"model": "fraud@champion"}, r"model"),
    "no digest": ({"model": {"digest": ""}}, r"model.digest is empty"),
    "half a digest": ({"model": {"digest": "2d71"}}, r"model.*digest"),
    "no modality": ({"model": {"modality": "--help"}}, r"modality"),
    "tag without a version": ({"image": {"tag": "latest"}}, r"names no version"),
    "bundle in config": ({"config": {"bundle": "/x"}}, r"config.bundle is set by the chart. Fix: use model.source"),
    "secret in values": ({"config": {"predictions": {"salt": "x"}}}, r"set secrets.salt.name"),
    "log on a read-only root": ({"config": {"predictions": {"folder": "/logs"}}}, r"extraVolumeMounts"),
    "key of the test without keys": ({"secrets": {"test": {"name": "x"}}}, r"set secrets.keys.name too"),
    "killed while draining": ({"terminationGracePeriodSeconds": 20}, r"would kill requests in flight"),
    "fewest above most": ({"autoscaling": {"enabled": True, "minReplicas": 9}}, r"raise autoscaling.maxReplicas"),
    "cpu without request": (
        {"autoscaling": {"enabled": True}, "resources": {"requests": {"cpu": None}}},
        r"set resources.requests.cpu",
    ),
    "two budgets": ({"podDisruptionBudget": {"minAvailable": 1}}, r'maxUnavailable to ""'),
    "no budget": ({"podDisruptionBudget": {"maxUnavailable": ""}}, r"set maxUnavailable or minAvailable"),
    "a node is never emptied": (
        {"replicaCount": 2, "podDisruptionBudget": {"maxUnavailable": "", "minAvailable": 2}},
        r"keeps every node from being emptied",
    ),
    "storage without credentials": ({"storage": {"existingSecret": ""}}, r"set storage.existingSecret"),
    "two storages": ({"storage": {"embedded": True}}, r"both set"),
    "claim that is not used": ({"cache": {"existingClaim": "x"}}, r"set cache.type to claim"),
    "claim for one pod": ({"cache": {"type": "claim", "accessModes": ["ReadWriteOncePod"]}}, r"use ReadWriteMany"),
    "name beginning with a digit": ({"fullnameOverride": "1fraud"}, r"fullnameOverride"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_work_is_refused_with_its_cure(case: str) -> None:
    values, message = BAD[case]
    assert re.search(message, refused(values)), refused(values)


@pytest.mark.parametrize(("old", "new"), sorted(ChartValues.removed.items()))
def test_a_removed_key_names_the_new_one(old: str, new: str) -> None:
    assert f"{old} is not a key of this chart. Fix: use {new}" in refused({old: "x"})


# Names, and upgrades of what is there.


def test_a_name_of_63_characters_is_used_and_longer_ones_do_not_collide() -> None:
    name = "m" + "x" * 62
    objects = render({"fullnameOverride": name})
    assert one(objects, "Service")["metadata"]["name"] == name
    names = [item["metadata"]["name"] for item in objects]
    assert max(map(len, names)) == 63
    assert len({(item["kind"], item["metadata"]["name"]) for item in objects}) == len(objects)


def test_two_releases_in_one_namespace_share_no_name_and_no_pod() -> None:
    first, second = render(release="fraud"), render(release="fraud-b")
    names = [{(item["kind"], item["metadata"]["name"]) for item in objects} for objects in (first, second)]
    assert names[0].isdisjoint(names[1])
    selectors = [one(objects, "Service")["spec"]["selector"] for objects in (first, second)]
    assert selectors[0] != selectors[1]


@pytest.mark.parametrize("file", CI, ids=lambda file: file.stem)
def test_no_value_touches_what_kubernetes_does_not_let_change(file: Path) -> None:
    before, after = render(), render(yaml.safe_load(file.read_text()) | {"commonLabels": {"app.kubernetes.io/x": "y"}})
    for kind, field in (("Deployment", "selector"), ("Service", "selector")):
        assert one(before, kind)["spec"][field] == one(after, kind)["spec"][field]


@pytest.mark.parametrize("change", [{"size": "9Gi"}, {"storageClass": "b"}, {"accessModes": ["ReadWriteOnce"]}])
def test_a_changed_claim_is_a_new_one(change: dict[str, Any]) -> None:
    claims = [
        one(render({"cache": {"type": "claim", "storageClass": "a", **values}}), "PersistentVolumeClaim")
        for values in ({}, change)
    ]
    assert claims[0]["metadata"]["name"] != claims[1]["metadata"]["name"]


@pytest.mark.parametrize("file", CI, ids=lambda file: file.stem)
def test_the_schema_agrees_with_the_class(file: Path) -> None:
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    values = merged(defaults, yaml.safe_load(file.read_text()))
    ChartValues.model_validate(values)
    values.pop("terminationGracePeriodSeconds")
    jsonschema.validate(values, json.loads((CHART / "values.schema.json").read_text()))
    assert helm("lint", "--strict", str(CHART), "-f", str(file)).returncode == 0

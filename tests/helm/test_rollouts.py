"""A release with rollouts: two slots that Helm leaves alone, a router that clients ask, a keeper with few rights."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.settings import load
from services.rollout.bootstrap import DRAIN_SECONDS, LISTENS, TELLS
from services.rollout.pod_counters import at
from services.rollout.settings import PREFIX, KeeperSettings
from tests.helm.chart import OPERATOR, Object, containers, environment, named, of_kind, pods, refused, render
from tests.helm.program import CHARTS

MINIMAL = CHARTS / "model-service" / "ci" / "minimal-values.yaml"
PRODUCTION = CHARTS / "model-service" / "ci" / "production-values.yaml"
ON: dict[str, Any] = {"rollouts": {"enabled": True}}
SERVED: dict[str, Any] = {
    "model": {"source": "s3://models/fraud/1f", "digest": "2d" * 32, "version": "3"},
    "storage": {"endpoint": "http://fairlead-s3:9000", "existingSecret": "fairlead-s3"},
}


def release(values: dict[str, Any] | None = None, **options: Any) -> list[Object]:
    return render("model-service", {**ON, **(values or {})}, files=(MINIMAL,), release="toy", **options)


def test_a_release_without_rollouts_has_nothing_of_them() -> None:
    objects = render("model-service", files=(MINIMAL,), release="toy")
    assert of_kind(objects, "Role", "RoleBinding") == []
    assert [each["metadata"]["name"] for each in of_kind(objects, "Deployment", "Service")] == ["toy", "toy"]


def test_clients_find_the_router_where_the_model_was() -> None:
    objects = release()
    selector = named(objects, "Service", "toy")["spec"]["selector"]
    found = [name for name, pod in pods(objects) if selector.items() <= pod["metadata"]["labels"].items()]
    assert found == ["Deployment/toy-router"]
    assert named(objects, "Service", "toy")["metadata"]["labels"]["app.kubernetes.io/component"] == "server"
    assert "toy" not in [each["metadata"]["name"] for each in of_kind(objects, "Deployment")]


def test_helm_says_neither_how_many_pods_a_slot_has_nor_what_it_serves() -> None:
    objects = release()
    for slot in ("toy-a", "toy-b"):
        deployment = named(objects, "Deployment", slot)
        assert "replicas" not in deployment["spec"]
        assert "data" not in named(objects, "ConfigMap", slot)
        fetch, server = containers(deployment["spec"]["template"])
        for container, name in ((fetch, "MODEL_SOURCE"), (fetch, "MODEL_DIGEST"), (server, "MODEL_VERSION")):
            assert environment(container)[name]["configMapKeyRef"]["name"] == slot
        assert "--digest=$(MODEL_DIGEST)" in fetch["command"]
        assert environment(server)["FAIRLEAD_SERVICE_BUNDLE"] == '"/bundles/$(MODEL_DIGEST)"'
        names = [each["name"] for each in server["env"]]
        assert names.index("MODEL_DIGEST") < names.index("FAIRLEAD_SERVICE_BUNDLE"), "it is read in this order"
    assert "data" not in named(objects, "ConfigMap", "toy-rollouts")
    one, two = (named(objects, "Deployment", slot)["spec"]["selector"]["matchLabels"] for slot in ("toy-a", "toy-b"))
    assert one != two


def test_the_keeper_may_read_and_change_its_release_and_nothing_else() -> None:
    objects = release()
    role = named(objects, "Role", "toy-rollouts")["rules"]
    assert all(rule["resourceNames"] for rule in role)
    may = {(kind, verb): rule["resourceNames"] for rule in role for kind in rule["resources"] for verb in rule["verbs"]}
    assert may == {
        ("configmaps", "get"): ["toy-a", "toy-b", "toy-rollouts"],
        ("configmaps", "patch"): ["toy-a", "toy-b", "toy-rollouts"],
        ("deployments", "get"): ["toy-a", "toy-b"],
        ("deployments/scale", "patch"): ["toy-a", "toy-b"],
    }
    with_token = [name for name, pod in pods(objects) if pod["spec"]["automountServiceAccountToken"]]
    assert with_token == ["Deployment/toy-rollouts"]
    assert dict(pods(objects))["Deployment/toy-rollouts"]["spec"]["serviceAccountName"] == "toy-rollouts"
    assert named(objects, "Deployment", "toy-rollouts")["spec"]["strategy"] == {"type": "Recreate"}


def test_the_keeper_understands_its_settings() -> None:
    values = {"rollouts": {"enabled": True, "artifacts": "s3://models", "tracking": "http://mlflow:5000"}}
    values["config"] = {"predictions": {"folder": "s3://models/log"}}
    objects = release(values)
    (keeper,) = containers(dict(pods(objects))["Deployment/toy-rollouts"])
    told = {name: value for name, value in environment(keeper).items() if name.startswith(PREFIX)}
    settings = load(KeeperSettings, prefix=PREFIX, environ=told)
    assert (settings.name, settings.namespace, settings.source) == ("toy", "spaces", "s3://models/fraud/1f2e3d4c5b6a")
    assert (settings.artifacts, settings.predictions) == ("s3://models", "s3://models/log")
    assert settings.slots == ("toy-a", "toy-b")
    assert {port["containerPort"] for port in keeper["ports"]} == {settings.port, settings.xds_port}


def test_a_router_says_it_is_ready_through_a_model_and_drains_before_it_ends() -> None:
    objects = release()
    pod = dict(pods(objects))["Deployment/toy-router"]
    configure, envoy = containers(pod)
    keeper = next(word for word in configure["command"] if word.startswith("--keeper="))
    name, port = keeper.removeprefix("--keeper=").split(":")
    assert int(port) in [each["port"] for each in named(objects, "Service", name)["spec"]["ports"]]
    assert {each["containerPort"] for each in envoy["ports"]} == {LISTENS, TELLS}
    assert envoy["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert envoy["lifecycle"]["preStop"]["httpGet"] == {"path": "/drain", "port": "told"}
    assert pod["spec"]["terminationGracePeriodSeconds"] > DRAIN_SECONDS
    assert at("10.0.0.1", TELLS, "/ready") == "http://10.0.0.1:9902/ready"
    budget = named(objects, "PodDisruptionBudget", "toy-router")["spec"]
    assert budget["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert render_router(1) == []


def render_router(replicas: int) -> list[Object]:
    return of_kind(release({"rollouts": {"enabled": True, "router": {"replicas": replicas}}}), "PodDisruptionBudget")


def test_each_slot_has_an_autoscaler_and_a_budget_where_the_release_had_them() -> None:
    objects = render("model-service", ON, files=(PRODUCTION,), release="toy", apis=OPERATOR)
    scaled = [each["spec"]["scaleTargetRef"]["name"] for each in of_kind(objects, "HorizontalPodAutoscaler")]
    assert scaled == ["toy-a", "toy-b"]
    names = {each["metadata"]["name"] for each in of_kind(objects, "PodDisruptionBudget")}
    assert names == {"toy-a", "toy-b", "toy-router"}
    (monitor,) = of_kind(objects, "PodMonitor")
    (parts,) = monitor["spec"]["selector"]["matchExpressions"]
    assert parts["values"] == ["slot", "rollout"]
    for name in ("toy-a", "toy-rollouts"):
        ports = containers(dict(pods(objects))[f"Deployment/{name}"])[-1]["ports"]
        assert monitor["spec"]["podMetricsEndpoints"][0]["port"] in [port["name"] for port in ports]


def test_grpc_passes_the_router_where_the_model_takes_it() -> None:
    objects = release({"config": {"grpc_port": 3001}})
    (service,) = [each for each in of_kind(objects, "Service") if each["metadata"]["name"] == "toy"]
    assert {"name": "grpc", "port": 3001, "targetPort": "grpc", "appProtocol": "grpc"} in service["spec"]["ports"]
    router = dict(pods(objects))["Deployment/toy-router"]
    assert {"name": "grpc", "containerPort": 3001} in containers(router)[-1]["ports"]
    assert "--grpc-port=3001" in router["spec"]["initContainers"][0]["command"]
    keeper = environment(containers(dict(pods(objects))["Deployment/toy-rollouts"])[-1])
    assert keeper["FAIRLEAD_ROLLOUT_GRPC_PORT"] == "3001"
    slots = named(objects, "NetworkPolicy", "toy-slots")["spec"]["ingress"]
    open_to = [
        rule["from"][0]["podSelector"]["matchLabels"]
        for rule in slots
        if {"port": 3001, "protocol": "TCP"} in rule["ports"]
    ]
    assert [labels["app.kubernetes.io/component"] for labels in open_to] == ["router"]


@pytest.mark.parametrize("drafts", [False, True])
def test_slots_reach_each_other_only_where_versions_draft_lists_together(drafts: bool) -> None:
    policy = named(release({"config": {"drafts": drafts}}), "NetworkPolicy", "toy-slots")["spec"]
    for way, side in (("ingress", "from"), ("egress", "to")):
        peers = [peer.get("podSelector", {}) for rule in policy[way] for peer in rule.get(side, [])]
        parts = [peer.get("matchLabels", {}).get("app.kubernetes.io/component") for peer in peers]
        assert ("slot" in parts) == drafts


def test_helm_test_asks_for_what_the_champion_says() -> None:
    (pod,) = of_kind(release(), "Pod")
    fetch, golden = containers(pod)
    for container in (fetch, golden):
        assert environment(container)["MODEL_DIGEST"]["configMapKeyRef"]["name"] == "toy-rollouts"
    assert "--bundle=/bundles/$(MODEL_DIGEST)" in golden["command"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {
                "config": {"grpc_port": 3001},
                "rollouts": {"enabled": True, "httpRoute": {"enabled": True, "parentRefs": [{"name": "gate"}]}},
            },
            "an HTTPRoute splits HTTP only",
        ),
        ({"replicaCount": 0}, "has nobody to answer"),
        ({"model": {**SERVED["model"], "version": "a.b"}}, "is a part of names"),
        ({"model": {**SERVED["model"], "digest": "", "waitSeconds": 5}}, "needs an immutable first version"),
    ],
    ids=["grpc", "no pods", "version", "digest"],
)
def test_what_cannot_have_rollouts_is_said(values: dict[str, Any], said: str) -> None:
    assert said in refused("model-service", {**SERVED, **ON, **values})


def test_the_audit_log_is_where_all_can_read_it() -> None:
    text = refused("model-service", {**SERVED, "rollouts": {"enabled": True, "artifacts": "/tmp/x"}})
    assert "artifacts" in text

"""Who reaches whom in a real cluster: every edge of the charts' table from a pod with the right labels, and no other.

Images of Kubeflow Pipelines, Argo and Alertmanager are listeners on the same ports; stores, MLflow, Prometheus, Envoy
and ML Metadata are the real ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.cluster import CHART, SERVICE, Platform
from tests.e2e.spaces import apply, need_image, space
from tests.helm.chart import containers, of_kind, pods, render
from tests.helm.edges import STEP, table

pytestmark = pytest.mark.e2e
_LOST = {"persistence": {"enabled": False}}
_LISTENER = {"registry": "ghcr.io", "repository": "kubeflow/kfp-frontend", "tag": "2.17.0"}
VALUES: dict[str, Any] = {
    # The Job that uploads workflows ends in an error at once: an install does not wait for it, nor does it fail.
    "pipelines": {"replicas": 1, "ui": {"enabled": True}, "publish": {"image": _LISTENER}, "crds": {"keep": False}},
    "monitoring": {
        "mode": "prometheus",
        "interval": "5s",
        "prometheus": _LOST,
        "alertmanager": {"enabled": True, "image": _LISTENER, "config": {"receivers": [{"name": "people"}]}, **_LOST},
    },
    "feature-store": {"redis": _LOST},
    "mariadb": _LOST,
    "s3": _LOST,
    "demo": {"enabled": False},
}
MODEL = CHART.parent / "model-service" / "ci" / "minimal-values.yaml"
# Their policies are only there while they run: as a hook, and with the demo; or say what a release's values name.
# They need brokers, partners and backends: test_feature_streams, test_federation and test_modalities have them.
OFF = {"stream", "federation", "model-router"}
ELSEWHERE = {"check", "demo-training", "server", "test", "slot", "rollout", "workbench", *OFF}
SHARED = {"slot": (3000,), "router": (3000, 9902), "rollout": (9110, 9111)}  # of a release whose versions share traffic


@pytest.fixture(scope="module")
def labels() -> dict[str, dict[str, str]]:
    """Labels of the pods of each component, as the chart renders them."""
    made = render("platform", VALUES) + render("model-service", files=(MODEL,), release="toy") + _shared()
    found = {
        pod["metadata"]["labels"]["app.kubernetes.io/component"]: pod["metadata"]["labels"] for _, pod in pods(made)
    }
    return found | {"steps": STEP}


@pytest.fixture(scope="module")
def platform(labels: Mapping[str, dict[str, str]]) -> Iterator[Platform]:
    with space("edges", storage=False) as namespace:
        installed = [pod for name, pod in pods(render("platform", VALUES)) if not name.startswith("Pod/")]
        for image in {container["image"] for pod in installed for container in containers(pod)} | {SERVICE}:
            need_image(image)
        made = Platform(namespace)
        made.install(VALUES)
        _model(made, labels)
        yield made
        made.helm("uninstall", "fairlead", "--timeout", "120s")


def _shared() -> list[dict[str, Any]]:
    values = {"rollouts": {"enabled": True}}
    made = render("model-service", values, files=(MODEL,), release="shared")
    return [each for each in made if each["kind"] != "Pod"]  # helm's test stands in the other release


def _model(platform: Platform, labels: Mapping[str, dict[str, str]]) -> None:
    """Pods and policies of two releases of models of their own, one with rollouts; their servers are listeners."""
    policies = of_kind(render("model-service", files=(MODEL,), release="toy") + _shared(), "NetworkPolicy")
    for policy in policies:
        policy["metadata"]["namespace"] = platform.namespace
    notes = {"prometheus.io/scrape": "true", "prometheus.io/port": "3000"}
    parts = [_listener(f"shared-{name}", labels[name], ports, {}) for name, ports in SHARED.items()]
    apply(platform.namespace, *policies, _listener("toy", labels["server"], (3000,), notes), *parts)
    names = ["pod/toy", *(f"pod/shared-{name}" for name in SHARED)]
    platform.kubectl("wait", "--for=condition=Ready", *names, "--timeout=60s")


def _listener(name: str, labels: Mapping[str, str], ports: tuple[int, ...], notes: dict[str, str]) -> dict[str, Any]:
    closed = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    image = f"{_LISTENER['registry']}/{_LISTENER['repository']}:{_LISTENER['tag']}"
    command = ["listener", *map(str, ports)]
    main = {"name": "server", "image": image, "command": command, "securityContext": closed}
    secure = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"containers": [main], "securityContext": secure, "terminationGracePeriodSeconds": 0}
    metadata = {"name": name, "labels": dict(labels), "annotations": notes}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def test_an_install_waits_for_servers_and_not_for_uploads(platform: Platform) -> None:
    (job,) = platform.get("jobs", "-l", "app.kubernetes.io/component=publish")
    assert not job["status"].get("succeeded")
    assert json.loads(platform.helm("status", "fairlead", "-o", "json").stdout)["info"]["status"] == "deployed"


def test_helm_test_tries_the_edges_from_the_right_pods(platform: Platform) -> None:
    done = platform.helm("test", "fairlead", "--timeout", "200s", "--logs")
    assert done.returncode == 0, done.stdout + done.stderr
    tried = re.findall(r"^([-a-z]+) -> (\S+):(\d+): (\w+)", done.stdout, re.MULTILINE)
    assert {said for *_, said in tried} == {"ok"}
    by_part = {part: {int(port) for name, _, port, _ in tried if name == part} for part, *_ in tried}
    assert by_part["persistenceagent"] == {8888, 8887, 443}
    assert by_part["scheduledworkflow"] == {8887, 443}
    assert by_part["steps"] == {9000, 5000, 6379, 8888, 8887, 8080, 443}
    assert by_part["keeper"] == {9000, 8888, 443}
    assert by_part["monitor"] == {9000}
    assert by_part["loop"] == {9000, 5000, 8888, 9090, 9110, 443}
    assert by_part["ui"] == {8888, 9090, 9000, 443}, "the metadata store answered through its proxy"
    assert by_part["check"] >= {3306, 9000, 6379, 5000, 9090, 8888, 8887, 8080}
    checks = dict(re.findall(r"^([A-Z0-9]+): (ok|FAILED)", done.stdout, re.MULTILINE))
    assert set(checks) == {"SQL", "S3", "REDIS", "MLFLOW", "PROMETHEUS", "WORKFLOWS"}


def _servers(platform: Platform) -> dict[tuple[str, int], str]:
    """Address of each port of each server's pod, the gRPC port and the port of metrics too, which no Service has."""
    found = {}
    for component, ports in table().servers.values():
        if component in OFF:
            continue
        selector = f"app.kubernetes.io/component={component},app.kubernetes.io/part-of=fairlead"
        (pod,) = [each for each in platform.get("pods", "-l", selector) if each["status"]["phase"] == "Running"]
        found |= {(component, port): f"{pod['status']['podIP']}:{port}" for port in ports}
    return found


def test_every_pod_reaches_what_the_table_says_and_nothing_else(
    platform: Platform, labels: Mapping[str, dict[str, str]]
) -> None:
    servers = _servers(platform)
    clients = {name: (labels[name], table().edges(name)) for name in set(table().clients) - ELSEWHERE}
    clients["nobody"] = ({"app": "foreign"}, set())
    clients["mariadb"] = (labels["mariadb"], set())
    for server in ("pipelines", "metadata", "sql", "model"):  # people's own clients
        open_to = table().open_to(server)
        if server == "model":  # where versions share the traffic, clients come to the router
            open_to |= {("router", 3000)}
        clients[f"access-{server}"] = ({f"fairlead.io/access-{server}": "true"}, open_to)

    def reached(item: tuple[dict[str, str], set[tuple[str, int]]]) -> tuple[dict[str, bool], dict[str, bool]]:
        wanted = {address: edge in item[1] for edge, address in servers.items()}
        return platform.reach(item[0], wanted), wanted

    with ThreadPoolExecutor(8) as pool:
        answers = dict(zip(clients, pool.map(reached, clients.values()), strict=True))
    names = {address: f"{component}:{port}" for (component, port), address in servers.items()}
    wrong = [
        f"{name} -> {names[address]}: {'open' if found[address] else 'closed'}"
        for name, (found, wanted) in answers.items()
        for address in wanted
        if found[address] is not wanted[address]
    ]
    assert wrong == []


def test_prometheus_reads_the_backend_alertmanager_the_model_and_who_watches_it(platform: Platform) -> None:
    up = {each["metric"]["component"]: each["value"][1] for each in platform.query('up{job="pods"}')}
    assert up == dict.fromkeys(["ml-pipeline", "workflow-controller", "server", "alertmanager", "monitor", "loop"], "1")

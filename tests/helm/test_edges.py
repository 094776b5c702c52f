"""Who connects to whom: network policies, labels, ports and addresses are those of the one table, and no others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pytest
import yaml

from pipelines.data_engines.pods_engine import COMPONENT
from pipelines.data_engines.pods_engine import manifests as manifests_of
from pipelines.io.pods import PodSettings
from tests.helm.chart import Object, containers, environment, named, of_kind, pods, render
from tests.helm.edges import STEP, Network, Pod, table
from tests.helm.program import CHARTS

MINIMAL = CHARTS / "model-service" / "ci" / "minimal-values.yaml"
ALERTS = {"enabled": True, "existingSecret": "receivers"}
EVERYTHING = {
    "pipelines": {"ui": {"enabled": True}},
    "monitoring": {"mode": "prometheus", "alertmanager": ALERTS},
    "workbench": {"users": ["ada"]},
    "modelRouter": {
        "enabled": True,
        "redis": {"name": "router-redis"},
        "config": {
            "backends": {"chat": {"url": "http://chat/v1"}},
            "routes": {"assistant": {"targets": [{"backend": "chat", "model": "chat"}]}},
        },
    },
    "feature-store": {"stream": {"enabled": True, "config": {"brokers": "kafka:9092", "topics": [{"topic": "t"}]}}},
    "federation": {"enabled": True, "sites": ["bank-a"], "existingSecret": "keys", "cidr": "198.51.100.0/24"},
}
# Kubelets ask there, whom no policy stops; kubectl port-forward comes by them.
HEALTH = {("workflow-controller", 6060), ("workbench", 8888)}
FROM_OUTSIDE = {("federation", 8443)}
"""Sites of partners, which are let in by their addresses."""
BY_VALUES = ("server", "test", "slot", "router", "rollout")
"""Components of models' releases: which of their edges they have depends on their values."""
OWN = ("server", "slot", "router", "rollout")
"""Those that parts of the same release reach; others reach them by the label of the model, or of its rollouts."""
BY_LABEL = {
    "model": {("server", 3000), ("router", 3000)},
    "rollouts": {("rollout", 9110)},
    "slot": set(),
    "router": set(),
}
"""What a label of a release opens to who is no part of it."""


@lru_cache(maxsize=1)
def manifests() -> list[Object]:
    """The platform with everything on, and in its namespace the release of a model, and one with rollouts."""
    rollouts = {"rollouts": {"enabled": True, "tracking": "http://fairlead-mlflow:5000"}}
    served = render("model-service", files=(MINIMAL,), release="toy")
    return render("platform", EVERYTHING) + served + render("model-service", rollouts, files=(MINIMAL,), release="two")


def network(objects: list[Object]) -> Network:
    return Network(of_kind(objects, "NetworkPolicy"))


def running(objects: list[Object]) -> list[Pod]:
    """Every pod that the charts start, and a step of a workflow."""
    found = [Pod(pod["metadata"]["labels"], "spaces") for _, pod in pods(objects)]
    return [*found, Pod({**STEP, "app.kubernetes.io/component": "steps"}, "spaces")]


def listening(objects: list[Object]) -> set[tuple[str, int]]:
    """Component and port of whatever a container of the charts says that it listens on."""
    return {
        (pod["metadata"]["labels"]["app.kubernetes.io/component"], port["containerPort"])
        for _, pod in pods(objects)
        for container in containers(pod)
        for port in container.get("ports", [])
    }


def expected(source: Pod, target: Pod, port: int) -> bool:
    """Whether the table has this edge, for a pod of a model's release if its values ask for it."""
    if (target.component, port) not in table().edges(source.component):
        return False
    if source.component not in BY_VALUES:
        return True
    if target.component in OWN:
        return source.labels["app.kubernetes.io/instance"] == target.labels["app.kubernetes.io/instance"] and (
            source.labels["app.kubernetes.io/name"] == target.labels["app.kubernetes.io/name"]
        )
    (server,) = [name for name, (component, _) in table().servers.items() if component == target.component]
    return f"fairlead.io/access-{server}" in source.labels


def test_policies_let_through_every_edge_of_the_table_and_nothing_else() -> None:
    objects = manifests()
    rules, all_pods = network(objects), running(objects)
    ports = sorted({port for _, ports in table().servers.values() for port in ports} | {1, 80, 6060, 9901})
    wrong = [
        f"{source.component} -> {target.component}:{port}: {'closed' if wanted else 'open'}"
        for source in all_pods
        for target in all_pods
        for port in ports
        if source is not target and rules.lets(source, target, port) is not (wanted := expected(source, target, port))
    ]
    assert wrong == []


def test_workers_of_a_data_engine_reach_what_steps_reach_and_are_reached_where_a_run_says_it() -> None:
    objects = manifests()
    rules, part = network(objects), {"app.kubernetes.io/part-of": "fairlead"}
    worker = Pod({**part, "app.kubernetes.io/component": COMPONENT, "job-name": "data-1"}, "spaces")
    step = next(pod for pod in running(objects) if pod.component == "steps")
    (s3,) = [pod for pod in running(objects) if pod.component == "s3"]
    (redis,) = [pod for pod in running(objects) if pod.component == "redis"]
    assert rules.lets(worker, step, 34567), "the head of Ray, on whatever port"
    assert not rules.lets(step, worker, 34567), "before the run's own policy"
    policy, _ = manifests_of(PodSettings(image="i", namespace="spaces"), "data-1", 2, "2Gi", "s3://l/h", run_of(step))
    rules = network([*objects, policy])
    other = Pod({**worker.labels, "job-name": "data-2"}, "spaces")
    assert rules.lets(step, worker, 34567)
    assert rules.lets(worker, worker, 34567)
    assert not rules.lets(other, worker, 34567), "of another run"
    assert not rules.lets(s3, worker, 34567)
    assert not rules.lets(worker, redis, 6379), "its label is missing"


def run_of(step: Pod) -> dict[str, Any]:
    return {"metadata": {"name": "step", "uid": "u", "labels": step.labels}}


def test_every_part_of_the_table_is_one_of_the_charts_and_listens_there() -> None:
    objects = manifests()
    components = {pod.component for pod in running(objects)}
    assert set(table().clients) <= components
    said = {(component, port) for component, ports in table().servers.values() for port in ports}
    assert said == listening(objects) - HEALTH - FROM_OUTSIDE
    used = {edge for component in table().clients for edge in table().edges(component)}
    assert said == used, "a server that nobody connects to is not one"


def test_what_the_charts_start_is_in_the_table() -> None:
    """A part with a policy of its own that is not there reaches nothing and answers nobody."""
    known = set(table().clients) | {component for component, _ in table().servers.values()}
    assert {pod.component for pod in running(manifests())} <= known


def people() -> Iterator[tuple[str, set[tuple[str, int]]]]:
    for server in table().servers:
        yield server, table().open_to(server)


@pytest.mark.parametrize(("server", "ports"), people(), ids=list(table().servers))
def test_a_pod_with_an_access_label_reaches_that_server_only(server: str, ports: set[tuple[str, int]]) -> None:
    objects = manifests()
    client = Pod({f"fairlead.io/access-{server}": "true"}, "spaces")
    reached = {
        (target.component, port)
        for target in running(objects)
        for port in {port for _, ports in table().servers.values() for port in ports}
        if network(objects).lets(client, target, port)
    }
    assert reached == BY_LABEL.get(server, ports)
    for_parts = ("controller", "slot", "router", "monitor", "loop", "stream")
    assert server in for_parts or reached, "people can ask for nothing of it"


def test_clients_of_other_namespaces_come_in_by_their_labels_where_they_are_named() -> None:
    given = {"global": {"networkPolicy": {"clientNamespaces": ["models"]}}, **EVERYTHING}
    rules = network(render("platform", given))
    (server,) = [pod for pod in running(render("platform", given)) if pod.component == "ml-pipeline"]
    labels = {"fairlead.io/access-pipelines": "true"}
    assert rules.lets(Pod(labels, "models"), server, 8888)
    assert not rules.lets(Pod({}, "models"), server, 8888)
    assert not rules.lets(Pod(labels, "elsewhere"), server, 8888)
    assert not rules.lets(Pod(STEP, "models"), server, 8887), "steps run where the backend is"


def test_prometheus_reads_what_says_that_it_has_metrics() -> None:
    said = set()
    for _, pod in pods(manifests()):
        notes = pod["metadata"].get("annotations") or {}
        if notes.get("prometheus.io/scrape") == "true":
            said.add((pod["metadata"]["labels"]["app.kubernetes.io/component"], int(notes["prometheus.io/port"])))
    assert said == {(table().servers[server][0], port) for server, port in table().scrapes}


def test_the_metrics_of_another_prometheus_are_let_through_by_value() -> None:
    peer = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}},
    }
    theirs = Pod({"app.kubernetes.io/name": "prometheus"}, "monitoring")
    for metrics, may in (([], False), ([peer], True)):
        objects = render("platform", {"global": {"networkPolicy": {"metrics": metrics}}, **EVERYTHING})
        rules = network(objects)
        for target in running(objects):
            for component, port in (("ml-pipeline", 8888), ("workflow-controller", 9090)):
                if target.component == component:
                    assert rules.lets(theirs, target, port) is may
                    assert not rules.lets(Pod({}, "monitoring"), target, port)


def test_what_is_not_installed_is_not_opened() -> None:
    objects = render("platform", {"feature-store": {"enabled": False}, "pipelines": {"enabled": False}})
    # Steps of another release's backend come to the stores, and its metrics are read.
    others = ("fairlead-mlflow", "fairlead-s3", "fairlead-prometheus")
    for policy in of_kind(objects, "NetworkPolicy"):
        if policy["metadata"]["name"] not in others:
            text = json.dumps(policy["spec"])
            found = [word for word in ("redis", "ml-pipeline", "metadata-grpc", "argoproj") if word in text]
            assert found == [], policy["metadata"]["name"]


def test_searches_open_the_sql_server_to_steps_and_say_where_trials_are() -> None:
    objects = render("platform", {"global": {"search": {"enabled": True}}, **EVERYTHING})
    policies = {each["metadata"]["name"]: json.dumps(each["spec"]) for each in of_kind(objects, "NetworkPolicy")}
    without = render("platform", EVERYTHING)
    closed = {each["metadata"]["name"]: json.dumps(each["spec"]) for each in of_kind(without, "NetworkPolicy")}
    assert {name for name in policies if policies[name] != closed[name]} == {"fairlead-steps", "fairlead-mariadb"}
    assert policies["fairlead-steps"].count("3306") == 1
    assert "3306" not in closed["fairlead-steps"]
    profiles = [text for each in of_kind(objects, "ConfigMap") for text in each["data"].values() if "kfp:" in text]
    for text in profiles:
        profile = yaml.safe_load(text)
        assert profile["studies"] == "mysql+pymysql://search@fairlead-mariadb:3306/search"
        assert profile["cluster"]["search"] == {"name": "fairlead-sql", "password_key": "search-password"}
    (secret,) = [each for each in of_kind(objects, "Secret") if each["metadata"]["name"] == "fairlead-sql"]
    assert "search-password" in secret["data"]


def test_a_mongodb_of_ones_own_is_open_to_steps_and_to_who_moves_annotations_and_they_get_its_credentials() -> None:
    theirs = {"host": "db.example", "port": 27018, "existingSecret": "documents", "cidr": "10.8.0.0/16"}
    theirs |= {"documents": "fairlead"}
    objects = render("platform", {"global": {"mongodb": theirs}, **EVERYTHING})
    rule = {"to": [{"ipBlock": {"cidr": "10.8.0.0/16"}}], "ports": [{"protocol": "TCP", "port": 27018}]}

    def opened(objects: list[Object]) -> list[str]:
        policies = of_kind(objects, "NetworkPolicy")
        return [each["metadata"]["name"] for each in policies if rule in each["spec"].get("egress", [])]

    assert sorted(opened(objects)) == ["fairlead-monitor", "fairlead-steps"]
    no_documents = render("platform", {"global": {"mongodb": {**theirs, "documents": ""}}, **EVERYTHING})
    assert opened(no_documents) == ["fairlead-steps"], "a monitor that moves nothing reaches no MongoDB"
    settings = yaml.safe_load(named(objects, "ConfigMap", "fairlead-monitor")["data"]["monitor.yaml"])
    assert settings["documents"] == "mongodb://db.example:27018/fairlead"
    (moves,) = containers(dict(pods(objects))["Deployment/fairlead-monitor"])
    keys = {each["name"]: each["valueFrom"]["secretKeyRef"] for each in moves["env"] if "MONGODB" in each["name"]}
    assert keys == {
        "FAIRLEAD_MONGODB_USERNAME": {"name": "documents", "key": "username"},
        "FAIRLEAD_MONGODB_PASSWORD": {"name": "documents", "key": "password"},
    }
    profiles = [text for each in of_kind(objects, "ConfigMap") for text in each["data"].values() if "kfp:" in text]
    said = [yaml.safe_load(text)["cluster"].get("mongodb") for text in profiles]
    assert said
    assert all("documents: mongodb://db.example:27018/fairlead\n" in text for text in profiles)
    assert all(each == {"name": "documents", "user_key": "username", "password_key": "password"} for each in said)
    without = json.dumps(render("platform", EVERYTHING))
    assert "27017" not in without
    assert "user_key: username" not in without
    assert "documents: mongodb" not in without


def test_nothing_is_closed_when_policies_are_off() -> None:
    off = {"global": {"networkPolicy": {"enabled": False}}, **EVERYTHING}
    assert of_kind(render("platform", off), "NetworkPolicy") == []


def api_server(objects: list[Object]) -> Any:
    return environment(containers(dict(pods(objects))["Deployment/fairlead-ml-pipeline"])[0])


def test_workflows_are_told_the_name_of_the_metadata_store() -> None:
    """The API server writes METADATA_SERVICE_NAME.NAMESPACE.svc:8080 into each workflow."""
    objects = manifests()
    service = named(objects, "Service", api_server(objects)["METADATA_SERVICE_NAME"])["spec"]
    (target,) = [pod for _, pod in pods(objects) if service["selector"].items() <= pod["metadata"]["labels"].items()]
    assert target["metadata"]["labels"]["app.kubernetes.io/component"] == "metadata-grpc"
    assert service["ports"][0]["port"] == 8080


def test_a_metadata_store_elsewhere_gets_the_name_that_workflows_know() -> None:
    place = {"host": "mlmd.example.internal", "cidr": "10.7.0.0/16"}
    objects = render("platform", {"global": {"metadata": place}, **EVERYTHING})
    service = named(objects, "Service", api_server(objects)["METADATA_SERVICE_NAME"])["spec"]
    assert (service["type"], service["externalName"]) == ("ExternalName", "mlmd.example.internal")
    assert "selector" not in service
    assert "Deployment/fairlead-metadata-grpc" not in dict(pods(objects))
    for name in ("fairlead-steps", "fairlead-metadata-envoy", "fairlead-check"):
        rules = named(objects, "NetworkPolicy", name)["spec"]["egress"]
        assert {"to": [{"ipBlock": {"cidr": "10.7.0.0/16"}}], "ports": [{"protocol": "TCP", "port": 8080}]} in rules
    envoy = yaml.safe_load(named(objects, "ConfigMap", "fairlead-metadata-envoy")["data"]["envoy.yaml"])
    assert "mlmd.example.internal" in json.dumps(envoy["static_resources"]["clusters"])


def test_a_run_of_many_tasks_can_be_read_again() -> None:
    """At any other place the API server does not see it, and cuts the tasks of a run off after 1024 bytes."""
    config = json.loads(named(manifests(), "ConfigMap", "fairlead-ml-pipeline")["data"]["config.json"])
    assert int(config["DBConfig"]["MySQLConfig"]["GroupConcatMaxLen"]) == 4 << 20
    assert "GroupConcatMaxLen" not in config["DBConfig"]


def test_the_web_page_is_told_where_everything_is() -> None:
    objects = manifests()
    given = environment(containers(dict(pods(objects))["Deployment/fairlead-ui"])[0])
    for host, port in (
        ("ML_PIPELINE_SERVICE_HOST", "ML_PIPELINE_SERVICE_PORT"),
        ("METADATA_ENVOY_SERVICE_SERVICE_HOST", "METADATA_ENVOY_SERVICE_SERVICE_PORT"),
        ("MINIO_HOST", "MINIO_PORT"),
    ):
        service = named(objects, "Service", given[host])["spec"]
        assert int(given[port]) in [each["port"] for each in service["ports"]]
    envoy = yaml.safe_load(named(objects, "ConfigMap", "fairlead-metadata-envoy")["data"]["envoy.yaml"])
    (cluster,) = envoy["static_resources"]["clusters"]
    (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    address = endpoint["endpoint"]["address"]["socket_address"]
    assert named(objects, "Service", address["address"])["spec"]["ports"][0]["port"] == address["port_value"]


def test_the_page_finds_logs_where_argo_puts_them_and_the_command_line_looks_for_them() -> None:
    objects = manifests()
    config = named(objects, "ConfigMap", "workflow-controller-configmap")["data"]
    repository = yaml.safe_load(config["artifactRepository"])
    assert (repository["archiveLogs"], repository["s3"]["keyFormat"]) == (
        True,
        "kfp/logs/{{workflow.name}}/{{pod.name}}",
    )
    given = environment(containers(dict(pods(objects))["Deployment/fairlead-ui"])[0])
    assert given["ARGO_KEYFORMAT"] == repository["s3"]["keyFormat"]
    assert (given["ARGO_ARCHIVE_LOGS"], given["ARGO_ARCHIVE_BUCKETNAME"]) == ("true", repository["s3"]["bucket"])


def test_old_workflows_go_even_where_their_end_is_never_recorded() -> None:
    for keep in (60, 86400):
        objects = render("platform", {"pipelines": {"keepFinishedSeconds": keep}})
        config = named(objects, "ConfigMap", "workflow-controller-configmap")["data"]
        spec = yaml.safe_load(config["workflowDefaults"])["spec"]
        assert spec["ttlStrategy"] == {"secondsAfterCompletion": keep + 86400}
        agent = containers(dict(pods(objects))["Deployment/fairlead-persistenceagent"])[0]
        assert environment(agent)["TTL_SECONDS_AFTER_WORKFLOW_FINISH"] == str(keep)


def test_the_web_page_reads_pods_their_logs_and_one_secret() -> None:
    objects = manifests()
    rules = named(objects, "Role", "fairlead-ui")["rules"]
    rights = {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}
    assert rights == {
        ("pods", "get"),
        ("pods/log", "get"),
        ("events", "list"),
        ("secrets", "get"),
        ("workflows", "get"),
    }
    (secrets,) = [rule for rule in rules if "secrets" in rule["resources"]]
    assert secrets["resourceNames"] == ["fairlead-s3"]
    assert not [each for each in of_kind(objects, "Role") if each["metadata"]["name"] == "fairlead-metadata-envoy"]

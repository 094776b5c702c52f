"""The umbrella chart and its parts: what each value becomes, and what cannot work is refused with its cure."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from deploy.values.platform import ChartValues
from tests.helm.chart import environment, images, named, of_kind, pods, refused, render
from tests.helm.program import CHARTS, helm

FULL = CHARTS / "platform" / "ci" / "full-values.yaml"
PRODUCTION = CHARTS / "platform" / "values-production.yaml"
MINIMAL = CHARTS / "platform" / "values-minimal.yaml"
_WITH_A_PASSWORD = {"enabled": True, "existingSecret": "a", "config": {"global": {"smtp_auth_password": "x"}}}
LONG = "a-release-with-the-longest-name-that-helm-takes-of-53"


def main_container(made: list[Any], name: str) -> Any:
    (pod,) = [pod for found, pod in pods(made) if found.split("/")[1] == name]
    return pod["spec"]["containers"][0]


def test_a_full_install_stays_small() -> None:
    made = render("platform", {"pipelines": {"ui": {"enabled": True}}})
    assert len(made) <= 150
    assert len(of_kind(made, "CustomResourceDefinition")) <= 10
    assert len(images(made)) <= 20
    running = [pod for name, pod in pods(made) if not name.startswith(("Pod/", "Job/"))]
    requested = sum(
        _millicores(c["resources"]["requests"]["cpu"]) for pod in running for c in pod["spec"]["containers"]
    )
    assert requested <= 1000


def _millicores(quantity: str) -> int:
    return int(quantity[:-1]) if quantity.endswith("m") else int(quantity) * 1000


def test_one_registry_replaces_that_of_every_image() -> None:
    for image in images(render("platform", files=(FULL,))):
        assert image.startswith("registry.example.internal:5000/mirror/"), image


def test_a_digest_is_pulled_beside_the_tag() -> None:
    digest = "sha256:" + "ab" * 32
    made = render("platform", {"image": {"digest": digest}})
    assert main_container(made, "fairlead-mlflow")["image"] == f"ghcr.io/fairlead/pipelines:0.1.0@{digest}"


def test_user_labels_and_versions_never_reach_a_selector() -> None:
    plain, full = render("platform"), render("platform", files=(FULL,))
    workloads = of_kind(plain, "Deployment", "StatefulSet")
    for each in workloads:
        other = named(full, each["kind"], each["metadata"]["name"])
        assert other["spec"]["selector"] == each["spec"]["selector"]
        assert other["spec"].get("serviceName") == each["spec"].get("serviceName")
    assert len(workloads) >= 10


def test_more_of_everything_reaches_every_part() -> None:
    for name, pod in pods(render("platform", files=(FULL,))):
        if name.startswith(("Pod/", "Job/")) or "demo" in name:
            continue
        assert pod["metadata"]["labels"]["team"] == "ml", name
        assert pod["metadata"]["annotations"]["note"] == "a", name
        spec = pod["spec"]
        assert (spec["nodeSelector"], spec["runtimeClassName"]) == ({"pool": "platform"}, "sandboxed"), name
        assert spec["priorityClassName"] == "important"
        assert spec["tolerations"][0]["key"] == "dedicated", name
        container = spec["containers"][0]
        assert environment(container)["TZ"] == "UTC", name
        assert container["envFrom"] == [{"secretRef": {"name": "more"}}], name
        assert {"name": "more", "mountPath": "/more"} in container["volumeMounts"], name


def test_external_stores_replace_the_embedded_ones_by_value_only() -> None:
    made = render("platform", files=(PRODUCTION,))
    names = {each["metadata"]["name"] for each in of_kind(made, "StatefulSet")}
    assert names == {"fairlead-prometheus"}
    assert not of_kind(made, "Secret")
    env = environment(main_container(made, "fairlead-mlflow"))
    assert "@mysql.example.internal:3306/mlflow" in env["MLFLOW_BACKEND_STORE_URI"]
    assert env["SQL_PASSWORD"]["secretKeyRef"] == {"name": "fairlead-sql", "key": "mlflow-password"}
    assert env["AWS_ENDPOINT_URL"] == "https://s3.eu-central-1.amazonaws.com:443"
    api = environment(main_container(made, "fairlead-ml-pipeline"))
    assert (api["OBJECTSTORECONFIG_SECURE"], api["OBJECTSTORECONFIG_PORT"]) == ("true", "443")
    assert api["DBCONFIG_MYSQLCONFIG_HOST"] == "mysql.example.internal"
    store = yaml.safe_load(named(made, "ConfigMap", "fairlead-feature-store")["data"]["feature_store.yaml"])
    assert store["online_store"]["address"] == "redis://redis.example.internal:6379/0"
    policy = named(made, "NetworkPolicy", "fairlead-mlflow")["spec"]["egress"]
    sql = next(rule for rule in policy if rule["ports"][0]["port"] == 3306)
    assert sql["to"] == [{"ipBlock": {"cidr": "10.0.0.0/8"}}]


def test_production_survives_the_loss_of_a_node() -> None:
    made = render("platform", files=(PRODUCTION,))
    budgets = {each["metadata"]["name"] for each in of_kind(made, "PodDisruptionBudget")}
    assert {"fairlead-mlflow", "fairlead-ml-pipeline", "fairlead-metadata-grpc"} <= budgets
    for name in budgets:
        (pod,) = [pod for found, pod in pods(made) if found == f"Deployment/{name}"]
        keys = [each["topologyKey"] for each in pod["spec"]["topologySpreadConstraints"]]
        assert keys == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    assert of_kind(made, "HorizontalPodAutoscaler")


def test_the_minimal_profile_asks_for_little() -> None:
    made = render("platform", files=(MINIMAL,))
    assert len(made) <= 42
    assert {name for name, _ in pods(made)} >= {"Deployment/fairlead-mlflow", "StatefulSet/fairlead-mariadb"}
    assert not any("ml-pipeline" in name for name, _ in pods(made))


def test_every_part_has_a_database_and_a_user_of_its_own() -> None:
    made = render("platform")
    script = named(made, "ConfigMap", "fairlead-mariadb")["data"]["users.sh"]
    grants = re.findall(r"GRANT ALL ON `(\w+)`\.\* TO `(\w+)`", script)
    assert grants == [("mlflow", "mlflow"), ("feast", "feast"), ("mlpipeline", "pipelines"), ("metadb", "pipelines")]
    assert script.count("CHARACTER SET utf8mb4") == len(grants)
    keys = set(named(made, "Secret", "fairlead-sql")["data"])
    assert keys == {"root-password", "mlflow-password", "feast-password", "pipelines-password"}


def test_only_what_needs_a_store_may_reach_it() -> None:
    made = render("platform")
    may = {
        re.sub(r"-[0-9a-f]{6}$", "", each["metadata"]["name"]): [
            key.removeprefix("fairlead.io/access-")
            for key in each["spec"]["template"]["metadata"]["labels"]
            if key.startswith("fairlead.io/access-")
        ]
        for each in of_kind(made, "Deployment", "StatefulSet", "Job")
    }
    assert may["fairlead-redis"] == may["fairlead-mariadb"] == may["fairlead-s3"] == []
    assert may["fairlead-mlflow"] == ["sql", "s3"]
    assert sorted(name for name, parts in may.items() if "sql" in parts) == [
        "fairlead-definitions", "fairlead-metadata-grpc", "fairlead-ml-pipeline", "fairlead-mlflow"
    ]  # fmt: skip
    (rule,) = named(made, "NetworkPolicy", "fairlead-mariadb")["spec"]["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": {"fairlead.io/access-sql": "true"}}}]


def test_pipelines_are_wired_to_the_names_that_their_clients_know() -> None:
    made = render("platform")
    assert named(made, "Service", "ml-pipeline")["spec"]["ports"][0]["port"] == 8888
    launcher = named(made, "ConfigMap", "kfp-launcher")["data"]
    assert launcher["defaultPipelineRoot"] == "s3://fairlead/kfp/artifacts"
    provider = yaml.safe_load(launcher["providers"])["s3"]["default"]
    assert (provider["endpoint"], provider["disableSSL"]) == ("http://fairlead-s3:9000", True)
    secret = provider["credentials"]["secretRef"]
    assert {secret["accessKeyKey"], secret["secretKeyKey"]} == set(named(made, "Secret", secret["secretName"])["data"])
    grpc = named(made, "ConfigMap", "metadata-grpc-configmap")["data"]
    assert named(made, "Service", grpc["METADATA_GRPC_SERVICE_HOST"])["spec"]["ports"][0]["port"] == 8080
    controller = named(made, "ConfigMap", "workflow-controller-configmap")["data"]
    assert yaml.safe_load(controller["artifactRepository"])["s3"]["bucket"] == "fairlead"
    assert yaml.safe_load(controller["executor"])["securityContext"]["readOnlyRootFilesystem"] is True
    api = environment(main_container(made, "fairlead-ml-pipeline"))
    assert {"ML_PIPELINE_VISUALIZATIONSERVER_SERVICE_HOST", "ML_PIPELINE_VISUALIZATIONSERVER_SERVICE_PORT"} <= set(api)
    json.loads(named(made, "ConfigMap", "fairlead-ml-pipeline")["data"]["config.json"])


def test_steps_may_do_what_a_run_was_seen_to_do_and_no_more() -> None:
    values = {"pipelines": {"steps": {"jobs": False, "volumes": False}}}
    rules = named(render("platform", values), "Role", "pipeline-runner")["rules"]
    rights = {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}
    assert rights == {
        ("secrets", "get"), ("configmaps", "get"), ("pods", "get"), ("pods", "list"), ("pods/log", "get"),
        *(("workflows", verb) for verb in ("get", "list", "watch", "update", "patch")),
        ("workflowtaskresults", "create"), ("workflowtaskresults", "patch"),
    }  # fmt: skip


def test_a_changed_configuration_restarts_its_pod() -> None:
    def checksum(**values: Any) -> Any:
        made = render("platform", {"monitoring": values})
        (pod,) = [pod for name, pod in pods(made) if name == "StatefulSet/fairlead-prometheus"]
        return pod["metadata"]["annotations"]["checksum/config"]

    assert checksum(interval="15s") != checksum(interval="30s")


def test_the_demos_job_is_a_new_one_when_it_changes() -> None:
    def job(**values: Any) -> str:
        made = of_kind(render("platform", values), "Job")
        return next(each["metadata"]["name"] for each in made if "demo" in each["metadata"]["name"])

    assert job() == job()
    assert job() != job(demoTraining={"recipe": "lightgbm"})


def test_the_longest_release_name_gives_lawful_and_different_names() -> None:
    assert len(LONG) == 53
    made = render("platform", {"pipelines": {"ui": {"enabled": True}}}, release=LONG)
    names = [(each["kind"], each["metadata"]["name"]) for each in made]
    assert all(len(name) <= 63 or kind == "CustomResourceDefinition" for kind, name in names)
    assert len(set(names)) == len(names)
    other = render("platform", release=LONG[:-1] + "4")
    ours = {name for kind, name in names if kind == "Service"} - {"ml-pipeline"}
    assert not ours & {each["metadata"]["name"] for each in of_kind(other, "Service")}


def test_two_releases_in_one_namespace_share_no_name() -> None:
    one = {(each["kind"], each["metadata"]["name"]) for each in render("platform")}
    two = {(e["kind"], e["metadata"]["name"])
           for e in render("platform", {"pipelines": {"enabled": False}}, release="second")}  # fmt: skip
    assert not one & two


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"nope": 1}, ["additional properties 'nope' not allowed"]),
        ({"global": {"s3": {"buket": "a"}}}, ["additional properties 'buket' not allowed"]),
        ({"pipelines": {"images": {"apiServer": {"tga": "1"}}}}, ["'tga' not allowed"]),
        ({"mariadb": {"persistence": {"size": "big"}}}, ["/mariadb/persistence/size"]),
        ({"mlflow": {"replicas": "many"}}, ["/mlflow/replicas"]),
        ({"global": {"sql": {"host": "db"}}}, ["global.sql.existingSecret", "pipelines-password"]),
        ({"global": {"s3": {"endpoint": "https://s3.example"}}}, ["global.s3.existingSecret", "access-key"]),
        ({"global": {"redis": {"host": "redis"}}}, ["global.redis.existingSecret", "password"]),
        ({"global": {"mongodb": {"host": "db"}}}, ["global.mongodb.existingSecret", "username, password"]),
        ({"global": {"mongodb": {"existingSecret": "db"}}}, ["set global.mongodb.host"]),
        ({"global": {"mongodb": {"documents": "shop"}}}, ["a database of no server", "set global.mongodb.host"]),
        ({"pipelines": {"replicas": 3}}, ["pipelines.replicas is 3", "global.sql.host"]),
        ({"monitoring": {"mode": "operator"}}, ["monitoring.mode is operator", "mode to auto"]),
        ({"monitoring": {"objectives": {"latencySeconds": 0.3}}}, ["latencySeconds': value must be one of"]),
        ({"monitoring": {"alertmanager": {"enabled": True}}}, ["alertmanager.existingSecret is empty", "literal=url="]),
        (
            {"monitoring": {"alertmanager": _WITH_A_PASSWORD}},
            ["monitoring.alertmanager.config has a password", "ends in _file"],
        ),
        ({"monitoring": {"alertmanagersAccess": {"basicAuth": True}}}, ["username, password", "name a Secret"]),
        (
            {"monitoring": {"alertmanagersAccess": {"ca": True, "existingSecret": "a"}}},
            ["scheme is http", "scheme to https"],
        ),
        ({"monitoring": {"namespaces": ["spaces"]}}, ["remove it from the list"]),
        ({"mlflow": {"autoscaling": {"enabled": True, "minReplicas": 9}}}, ["minReplicas is 9", "raise maxReplicas"]),
        ({"global": {"s3": {"bucket": "other"}}}, ["demo.model.source=s3://other/demo/fraud"]),
        ({"demo": {"model": {"digest": "a" * 64}}}, ["leave demo.model.digest empty"]),
        ({"image": {"tag": "latest"}}, ['tag "latest" names no version']),
    ],
)
def test_what_cannot_work_is_refused_with_its_cure(values: dict[str, Any], words: list[str]) -> None:
    said = refused("platform", values)
    for word in words:
        assert word in said


@pytest.mark.parametrize(("key", "new"), ChartValues.removed.items())
def test_a_key_of_another_chart_is_answered_with_ours(key: str, new: str) -> None:
    said = refused("platform", {key: {"enabled": True}})
    assert f"the key {key} is not one of this chart" in said
    assert new in said


@pytest.mark.parametrize("chart", ["platform", "pipelines", "feature-store", "monitoring"])
def test_helm_finds_nothing_to_complain_about(chart: str) -> None:
    values = ["-f", str(CHARTS / "pipelines" / "ci" / "default-values.yaml")] if chart == "pipelines" else []
    done = helm("lint", "--strict", str(CHARTS / chart), *values)
    assert done.returncode == 0, done.stdout + done.stderr


def test_everything_a_container_writes_to_is_a_volume_with_a_limit() -> None:
    for name, pod in pods(render("platform")):
        for volume in pod["spec"].get("volumes", []):
            if not name.startswith("Pod/") and "emptyDir" in volume:
                assert volume["emptyDir"].get("sizeLimit"), f"{name}: {volume['name']}"

"""What `global.pods` says holds for every pod of every chart: Deployments, Jobs, helm tests and steps of pipelines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm.chart import Object, containers, environment, named, of_kind, pods, refused, render
from tests.helm.program import CHARTS

FILES = sorted(CHARTS.glob("*/ci/*-values.yaml"))
every_chart = pytest.mark.parametrize(
    "file", FILES, ids=lambda file: f"{file.parts[-3]}-{file.stem.removesuffix('-values')}"
)
IDS = ("runAsUser", "runAsGroup", "fsGroup")
TAINT = {"key": "team", "operator": "Equal", "value": "ml", "effect": "NoSchedule"}
VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")
AFFINITY = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {}}]}}


def made(file: Path, **settings: Any) -> list[Object]:
    return render(file.parts[-3], {"global": {"pods": settings}}, files=(file,))


@every_chart
def test_openshift_gives_the_ids_and_the_rest_of_the_standard_stays(file: Path) -> None:
    for name, pod in pods(made(file, openshift=True, runAsUser=7)):
        closed = pod["spec"]["securityContext"]
        assert closed == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}, name
        for container in containers(pod):
            own = container["securityContext"]
            assert not set(IDS) & set(own), name
            assert own["runAsNonRoot"] is True, name
            assert own["capabilities"] == {"drop": ["ALL"]}, name
            assert own["allowPrivilegeEscalation"] is own["privileged"] is False, name


@every_chart
def test_ids_are_those_that_are_asked_for(file: Path) -> None:
    for name, pod in pods(made(file, runAsUser=2_000_650_000, runAsGroup=0, fsGroup=3000)):
        assert [pod["spec"]["securityContext"][key] for key in IDS] == [2_000_650_000, 0, 3000], name


@every_chart
def test_pods_go_where_all_may_go_and_where_their_part_may(file: Path) -> None:
    plain = dict(pods(render(file.parts[-3], files=(file,))))
    placed = made(file, nodeSelector={"pool": "ml"}, tolerations=[TAINT], affinity=AFFINITY, priorityClassName="ml")
    # The name of a Job follows its content.
    before = {name.rsplit("-", 1)[0] if name.startswith("Job/") else name: pod["spec"] for name, pod in plain.items()}
    for name, pod in pods(placed):
        own, spec = before[name.rsplit("-", 1)[0] if name.startswith("Job/") else name], pod["spec"]
        assert spec["nodeSelector"] == {"pool": "ml", **own.get("nodeSelector", {})}, name
        assert spec["tolerations"] == [*own.get("tolerations", []), TAINT], name
        assert spec["affinity"] == own.get("affinity", AFFINITY), name
        assert spec["priorityClassName"] == own.get("priorityClassName", "ml"), name


@every_chart
@pytest.mark.parametrize("kind", ["configMap", "secret"])
def test_every_container_trusts_the_given_authority(file: Path, kind: str) -> None:
    for name, pod in pods(made(file, ca={kind: "company", "key": "bundle.pem"})):
        (volume,) = [each for each in pod["spec"]["volumes"] if each["name"] == "ca"]
        source = volume[kind]
        assert source.get("name", source.get("secretName")) == "company", name
        assert source["items"] == [{"key": "bundle.pem", "path": "ca.crt"}], name
        for container in containers(pod):
            mounted = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
            for variable in VARIABLES:
                assert environment(container)[variable] == f"{mounted['ca']}/ca.crt", (name, container["name"])


def test_steps_of_pipelines_get_it_from_argo_and_kubeflow() -> None:
    (file,) = (each for each in FILES if each.parts[-3] == "pipelines")
    objects = made(
        file,
        runAsUser=5000,
        runAsGroup=0,
        fsGroup=3000,
        nodeSelector={"pool": "ml"},
        tolerations=[TAINT],
        priorityClassName="ml",
        ca={"secret": "company"},
    )
    config = named(objects, "ConfigMap", "workflow-controller-configmap")["data"]
    spec = yaml.safe_load(config["workflowDefaults"])["spec"]
    assert (spec["nodeSelector"], spec["tolerations"], spec["podPriorityClassName"]) == ({"pool": "ml"}, [TAINT], "ml")
    assert spec["securityContext"] == {"fsGroup": 3000}
    assert spec["volumes"][0]["secret"]["secretName"] == "company"
    patched = json.loads(spec["podSpecPatch"])["containers"]
    assert [each["name"] for each in patched] == ["main", "wait"]
    assert all({each["name"] for each in container["env"]} == set(VARIABLES) for container in patched)
    (server,) = named(objects, "Deployment", "fairlead-ml-pipeline")["spec"]["template"]["spec"]["containers"]
    given = environment(server)
    assert (given["CABUNDLE_SECRET_NAME"], given["CABUNDLE_KEY_NAME"]) == ("company", "ca.crt")
    assert given["DEFAULT_SECURITY_CONTEXT_RUN_AS_USER"] == "5000"
    assert given["DEFAULT_SECURITY_CONTEXT_RUN_AS_GROUP"] == "0"
    free = environment(
        containers(dict(pods(made(file, openshift=True, runAsUser=5000)))["Deployment/fairlead-ml-pipeline"])[0]
    )
    assert "DEFAULT_SECURITY_CONTEXT_RUN_AS_USER" not in free


@every_chart
def test_servers_listen_where_the_cluster_has_addresses(file: Path) -> None:
    for name, pod in pods(made(file, bindAddress="::")):
        for container in containers(pod):
            words = json.dumps([container.get("command"), container.get("args"), container.get("env")])
            assert "0.0.0.0" not in words.replace(":: -0.0.0.0", ""), name  # Redis: where there is IPv4 as well


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_grpc_is_reached_from_other_pods_too(address: str) -> None:
    minimal = CHARTS / "model-service" / "ci" / "minimal-values.yaml"
    values = {"config": {"grpc_port": 3001}, "global": {"pods": {"bindAddress": address}}}
    pod = dict(pods(render("model-service", values, files=(minimal,))))["Deployment/fairlead"]
    (server,) = pod["spec"]["containers"]
    assert environment(server)["FAIRLEAD_SERVICE_GRPC_HOST"] == json.dumps(address)
    assert f"--host={address}" in server["command"]


def test_a_bundle_comes_from_one_place() -> None:
    said = refused("platform", {"global": {"pods": {"ca": {"configMap": "a", "secret": "b"}}}})
    assert "global.pods.ca names a ConfigMap and a Secret" in said


@pytest.mark.parametrize(
    ("release", "rule"), [("fair.lead", "have no dot"), ("1fraud", "begin with a letter"), ("a.b.c", "have no dot")]
)
@every_chart
def test_names_that_no_service_can_have_are_refused(file: Path, release: str, rule: str) -> None:
    with pytest.raises(AssertionError, match=f"a Service cannot be called .*{release}.*must {rule}. Fix: "):
        render(file.parts[-3], files=(file,), release=release)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("fraud.v2", "have no dot"),
        ("1fraud", "begin with a letter"),
        ("fr_aud", "be of small letters"),
        ("fraud-", "end"),
    ],
)
def test_names_of_models_are_refused_as_those_of_releases(name: str, rule: str) -> None:
    minimal = CHARTS / "model-service" / "ci" / "minimal-values.yaml"
    with pytest.raises(AssertionError, match=f"must {rule}.*Fix: set fullnameOverride to another name"):
        render("model-service", {"fullnameOverride": name}, files=(minimal,))
    assert render("model-service", {"fullnameOverride": "fraud"}, files=(minimal,), release="fraud.v2")


@every_chart
def test_the_longest_release_name_gives_names_that_fit(file: Path) -> None:
    objects = render(file.parts[-3], files=(file,), release="f" * 53)
    for each in of_kind(objects, "Service", "Deployment", "Job", "Pod", "StatefulSet", "Ingress", "HTTPRoute"):
        assert len(each["metadata"]["name"]) <= (52 if each["kind"] == "StatefulSet" else 63), each["metadata"]["name"]

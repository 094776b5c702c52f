"""What the doctor finds about Kubeflow Pipelines of a profile that has a cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.cli.cluster.cluster_settings import Cluster, Profile
from deploy.cli.pipelines.publish import publish
from deploy.cli.project.checks.finding import Finding
from deploy.cli.project.checks.kubeflow import check_pipelines
from tests.kfp_stand_in import StandIn, kfp_stand_in
from tests.kubectl_stand_in import node

IMAGE, DRIVER = "registry/pipelines:2", "ghcr.io/kubeflow/kfp-driver:2.17.0"
PARTS = ("fairlead-ml-pipeline", "fairlead-workflow-controller", "fairlead-persistenceagent", "fairlead-metadata-grpc")
ALL = (*PARTS, "fairlead-scheduledworkflow", "fairlead-keeper", "fairlead-monitor", "fairlead-loop")


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with kfp_stand_in() as made:
        made.put_on_path(tmp_path, monkeypatch)
        made.kubectl.answers["create"] = allow()
        has_parts(made, *ALL)
        yield made


@pytest.fixture
def profile(cluster: StandIn) -> Profile:
    places = {name: f"s3://lake/{name}" for name in ("data", "artifacts", "features")}
    return Profile(**places, tracking="http://mlflow:5000", cluster=Cluster(kfp=cluster.url, image=IMAGE))


def has_parts(cluster: StandIn, *names: str, down: tuple[str, ...] = ()) -> None:
    env = [{"name": "V2_DRIVER_IMAGE", "value": DRIVER}]
    spec = {"template": {"spec": {"containers": [{"name": "main", "env": env}]}}}
    cluster.kubectl.objects = [node(cpu="8", memory="32Gi", **{})]
    for name in names:
        status = {"readyReplicas": 0 if name in down else 1}
        shown = spec if name == "fairlead-ml-pipeline" else {"template": {"spec": {"containers": [{"name": "main"}]}}}
        cluster.kubectl.objects.append(
            {"kind": "Deployment", "metadata": {"name": name}, "spec": shown, "status": status}
        )


def allow(denied: tuple[str, ...] = (), runner_denied: tuple[str, ...] = ()) -> Any:
    def answer(argv: list[str], given: str) -> str:
        asked = json.loads(given)
        assert asked["kind"] == "SelfSubjectAccessReview"
        assert argv[argv.index("--raw") + 1] == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        wanted = asked["spec"]["resourceAttributes"]
        right = " ".join(filter(None, [wanted["verb"], wanted["resource"], wanted["subresource"]]))
        of_steps = any("system:serviceaccount:fairlead:pipeline-runner" in word for word in argv)
        return json.dumps({"status": {"allowed": right not in (runner_denied if of_steps else denied)}})

    return answer


def found(profile: Profile) -> dict[str, Finding]:
    return {finding.check: finding for finding in check_pipelines(profile)}


def one(profile: Profile, check: str) -> Finding:
    """What one check finds; those after it are not made."""
    return next(finding for finding in check_pipelines(profile) if finding.check == check)


def test_a_cluster_that_takes_runs_is_well(cluster: StandIn, profile: Profile) -> None:
    publish(profile)
    made = found(profile)
    assert {finding.level for finding in made.values()} == {"ok"}, made
    assert made["published pipelines"].found == "4 of this release"
    assert made["images of steps"].found == f"not known before its first pod: {IMAGE}, {DRIVER}"


def test_a_server_that_does_not_answer_fails_and_the_rest_is_still_looked_at(
    cluster: StandIn, profile: Profile
) -> None:
    assert profile.cluster is not None
    gone = profile.model_copy(update={"cluster": profile.cluster.model_copy(update={"kfp": "http://127.0.0.1:9"})})
    made = found(gone)
    assert (made["Kubeflow API"].level, made["published pipelines"].level) == ("fail", "warn")
    assert "does not answer: http://127.0.0.1:9" in made["Kubeflow API"].found
    assert made["Kubeflow parts"].level == "ok"


@pytest.mark.parametrize(
    ("part", "level", "said"),
    [
        ("fairlead-persistenceagent", "fail", "persistenceagent is not ready: runs stay 'running' for ever"),
        ("fairlead-metadata-grpc", "fail", "metadata-grpc is not ready: every run fails at its first pod"),
        ("fairlead-workflow-controller", "fail", "workflow-controller is not ready: no run starts"),
        (
            "fairlead-keeper",
            "warn",
            "keeper is not ready: a run that nobody follows is not started again after its pods are lost",
        ),
        ("fairlead-scheduledworkflow", "warn", "scheduledworkflow is not ready: schedules start nothing"),
    ],
)
def test_each_part_that_is_not_ready_or_not_there_is_named(
    cluster: StandIn, profile: Profile, part: str, level: str, said: str
) -> None:
    has_parts(cluster, *ALL, down=(part,))
    made = one(profile, "Kubeflow parts")
    assert (made.level, made.found) == (level, said)
    has_parts(cluster, *(name for name in ALL if name != part))
    assert one(profile, "Kubeflow parts").found == said.replace("not ready", "not there")


def test_images_are_on_a_node_or_could_not_be_pulled(cluster: StandIn, profile: Profile) -> None:
    where = cluster.kubectl.objects[0]
    where["status"] = {**where["status"], "images": [{"names": [f"docker.io/{IMAGE}", DRIVER]}]}
    assert one(profile, "images of steps").found == "2 are on a node"
    state = {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}
    status = {"containerStatuses": [{"name": "main", "image": IMAGE, "imageID": "", "state": state}]}
    spec = {"containers": [{"name": "main"}]}
    cluster.kubectl.objects.append({"kind": "Pod", "metadata": {"name": "step"}, "spec": spec, "status": status})
    made = one(profile, "images of steps")
    assert (made.level, made.found) == ("fail", f"{IMAGE}: ImagePullBackOff")


def test_rights_that_are_missing_are_named_for_people_and_for_steps(cluster: StandIn, profile: Profile) -> None:
    cluster.kubectl.answers["create"] = allow(("get pods log",), ("create workflowtaskresults",))
    made = found(profile)
    assert (made["your rights"].level, made["your rights"].found) == ("warn", "may not get pods/log")
    steps = made["rights of steps"]
    assert (steps.level, steps.found) == ("fail", "may not create workflowtaskresults.argoproj.io")
    assert "pipeline-runner" in steps.fix


def test_nodes_that_are_too_small_are_told_with_the_numbers(cluster: StandIn, profile: Profile) -> None:
    cluster.kubectl.objects[0] = node(cpu="2", memory="512Mi")
    made = one(profile, "room for a run")
    assert made.level == "fail"
    assert "the largest node has" in made.found


def test_workflows_of_another_release_are_named(cluster: StandIn, profile: Profile) -> None:
    assert profile.cluster is not None
    publish(profile)
    newer = profile.model_copy(update={"cluster": profile.cluster.model_copy(update={"image": "registry/pipelines:3"})})
    made = one(newer, "published pipelines")
    assert (made.level, made.fix) == ("warn", "fairlead pipelines publish")
    assert "fairlead-full" in made.found


def test_the_doctor_of_a_clusters_profile_looks_at_it(
    cluster: StandIn, profile: Profile, fairlead: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "a")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    file = tmp_path / "cluster.yaml"
    file.write_text(profile.model_copy(update={"tracking": "http://127.0.0.1:9"}).model_dump_json())
    said = fairlead("doctor", "--profile", str(file), "--json").json
    checks = [each["check"] for each in said["checks"]]
    assert checks[-7:] == [finding.check for finding in check_pipelines(profile)]
    assert "python" in " ".join(checks).lower()

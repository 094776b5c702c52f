"""Manifests of a training over several pods."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from pipelines.io.pods import like
from pipelines.training.pods import JOBSET, PORT, DistributedJob, job, train_job
from tests.unit.training.known import parts_of, train_job_schema, wrong

JOB = DistributedJob(
    nodes=3,
    processes=2,
    gpus=2,
    image="registry/pipelines:1-gpu",
    namespace="fairlead",
    place="s3://lake/jobs",
    environment={"AWS_ENDPOINT_URL": "http://s3:9000"},
    secrets={"AWS_ACCESS_KEY_ID": ("fairlead-s3", "access-key")},
    labels={"fairlead.io/access-s3": "true"},
)


CHOSEN = JOB.model_copy(
    update={
        "node_selector": {"pool": "gpu"},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {"nodeAffinity": {}},
        "pull_secrets": ["registry"],
        "priority_class": "high",
    }
)
RELEASES = {
    "2.0": ("podSpecOverrides", "labels", "suspend"),
    "2.1": ("podTemplateOverrides", "suspend"),
    "2.2": ("runtimePatches", "activeDeadlineSeconds", "suspend"),
}


def made() -> dict[str, Any]:
    return {document["kind"]: document for document in job(JOB, "train-1", "news", "s3://lake/jobs/train-1")}


def test_pods_of_the_job_find_the_first_one_by_its_service() -> None:
    spec = made()["Job"]["spec"]
    assert (spec["completions"], spec["parallelism"], spec["completionMode"]) == (3, 3, "Indexed")
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    line = " ".join([*container["command"], *container["args"]])
    assert f"--master-addr=train-1-0.train-1 --master-port={PORT}" in line
    assert "--nnodes=3 --nproc-per-node=2 --node-rank=$(JOB_COMPLETION_INDEX)" in line
    assert "--dataset s3://lake/jobs/train-1/dataset" in line
    assert "--checkpoints s3://lake/jobs/train-1/checkpoints" in line, "they outlive the pod"
    assert pod["subdomain"] == made()["Service"]["metadata"]["name"]
    assert made()["Service"]["spec"]["publishNotReadyAddresses"] is True


def test_pods_of_the_job_are_restricted_and_closed_to_others() -> None:
    pod = made()["Job"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["automountServiceAccountToken"] is False
    policy = made()["NetworkPolicy"]["spec"]
    assert policy["ingress"] == [{"from": [{"podSelector": policy["podSelector"]}]}]


@pytest.mark.parametrize("where", ["job", "trainjob"])
def test_gpus_and_secrets_reach_the_pods_and_no_secret_is_written_out(where: str) -> None:
    if where == "job":
        (container,) = made()["Job"]["spec"]["template"]["spec"]["containers"]
        resources, environment = container["resources"], container["env"]
        assert {"name": "shm", "mountPath": "/dev/shm"} in container["volumeMounts"]
    else:
        trainer = train_job(JOB, "train-1", "news", "s3://lake/jobs/train-1")[1]["spec"]["trainer"]
        resources, environment = trainer["resourcesPerNode"], trainer["env"]
        assert (trainer["numNodes"], trainer["numProcPerNode"]) == (3, 2)
        assert trainer["command"][:3] == ["torchrun", "-m", "pipelines.steps.train_worker"]
    assert resources["limits"]["nvidia.com/gpu"] == 2
    assert {"name": "AWS_ENDPOINT_URL", "value": "http://s3:9000"} in environment
    secret = {"secretKeyRef": {"name": "fairlead-s3", "key": "access-key"}}
    assert {"name": "AWS_ACCESS_KEY_ID", "valueFrom": secret} in environment


@pytest.mark.parametrize("wanted", [JOB, CHOSEN], ids=["plain", "placed"])
def test_what_is_created_is_what_kubernetes_knows(wanted: DistributedJob) -> None:
    documents = job(wanted, "train-1", "news", "s3://lake/jobs/train-1")
    assert [document["kind"] for document in documents] == ["Service", "NetworkPolicy", "Job"]
    for document in documents:
        assert wrong(document, f"V1{document['kind']}") == []


@pytest.mark.parametrize("wanted", [JOB, CHOSEN], ids=["plain", "placed"])
@pytest.mark.parametrize("release", RELEASES)
def test_a_train_job_is_what_each_release_of_the_trainer_knows(release: str, wanted: DistributedJob) -> None:
    policy, document = train_job(wanted, "train-1", "news", "s3://lake/jobs/train-1", RELEASES[release])
    assert wrong(policy, "V1NetworkPolicy") == []
    assert policy["spec"]["podSelector"] == {"matchLabels": {JOBSET: "train-1"}}
    schema = train_job_schema(release)
    assert [str(error.message) for error in Draft202012Validator(schema).iter_errors(document)] == []
    assert [error for path, kind, value in parts_of(document) for error in wrong(value, kind, path)] == []


@pytest.mark.parametrize("release", RELEASES)
def test_the_pods_of_a_train_job_may_talk_to_s3_and_write_to_tmp(release: str) -> None:
    document = train_job(CHOSEN, "train-1", "news", "s3://lake/jobs/train-1", RELEASES[release])[1]
    found = {path.rpartition(".")[2]: value for path, _, value in parts_of(document)}
    assert found["labels"]["fairlead.io/access-s3"] == "true"
    assert {"name": "tmp", "emptyDir": {}} in found["volumes"]
    assert {"name": "tmp", "mountPath": "/tmp"} in found["volumeMounts"]
    assert found["tolerations"] == CHOSEN.tolerations


@pytest.mark.parametrize("release", RELEASES)
def test_a_train_job_of_another_release_is_refused_by_the_schema(release: str) -> None:
    for other in set(RELEASES) - {release}:
        document = train_job(JOB, "train-1", "news", "s3://lake/jobs/train-1", RELEASES[other])[1]
        assert list(Draft202012Validator(train_job_schema(release)).iter_errors(document))


def test_the_checks_find_what_is_wrong() -> None:
    *_, document = job(JOB, "train-1", "news", "s3://lake/jobs/train-1")
    document["spec"]["template"]["spec"]["containers"][0]["resource"] = {}
    document["spec"]["completions"] = "3"
    del document["spec"]["template"]["spec"]["containers"][0]["name"]
    errors = "\n".join(wrong(document, "V1Job"))
    assert "containers[0].resource: unknown" in errors
    assert "completions: 'int'" in errors
    assert "`name`, must not be `None`" in errors


def test_pods_get_what_the_platform_gives_to_every_step() -> None:
    pod = {
        "spec": {
            "nodeSelector": {"pool": "steps", "zone": "a"},
            "tolerations": [
                {"key": "team", "operator": "Exists"},
                {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "tolerationSeconds": 300},
            ],
            "priorityClassName": "usual",
            "imagePullSecrets": [{"name": "registry"}],
            "affinity": {"nodeAffinity": {}},
        }
    }
    found = like(JOB.model_copy(update={"node_selector": {"pool": "gpu"}}), pod)
    assert found.node_selector == {"pool": "gpu", "zone": "a"}
    assert found.tolerations == [{"key": "team", "operator": "Exists"}]
    assert (found.priority_class, found.pull_secrets) == ("usual", ["registry"])
    assert like(CHOSEN, pod).priority_class == "high"
    assert like(CHOSEN, {}) == CHOSEN
    *_, document = job(found, "train-1", "news", "s3://lake/jobs/train-1")
    assert wrong(document, "V1Job") == []

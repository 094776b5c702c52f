"""Manifests of a training over several pods."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.training.spread import PORT, Spread, job, train_job

SPREAD = Spread(
    nodes=3,
    processes=2,
    gpus=2,
    image="registry/pipelines:1-gpu",
    namespace="fairlead",
    place="s3://lake/spread",
    environment={"AWS_ENDPOINT_URL": "http://s3:9000"},
    secrets={"AWS_ACCESS_KEY_ID": ("fairlead-s3", "access-key")},
    labels={"fairlead.io/access-s3": "true"},
)


def made() -> dict[str, Any]:
    return {document["kind"]: document for document in job(SPREAD, "train-1", "news", "s3://lake/spread/train-1")}


def test_pods_of_the_job_find_the_first_one_by_its_service() -> None:
    spec = made()["Job"]["spec"]
    assert (spec["completions"], spec["parallelism"], spec["completionMode"]) == (3, 3, "Indexed")
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    line = " ".join([*container["command"], *container["args"]])
    assert f"--master-addr=train-1-0.train-1 --master-port={PORT}" in line
    assert "--nnodes=3 --nproc-per-node=2 --node-rank=$(JOB_COMPLETION_INDEX)" in line
    assert "--dataset s3://lake/spread/train-1/dataset" in line
    assert "--checkpoints s3://lake/spread/train-1/checkpoints" in line, "they outlive the pod"
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
        trainer = train_job(SPREAD, "train-1", "news", "s3://lake/spread/train-1")["spec"]["trainer"]
        resources, environment = trainer["resourcesPerNode"], trainer["env"]
        assert (trainer["numNodes"], trainer["numProcPerNode"]) == (3, 2)
        assert trainer["command"][:3] == ["torchrun", "-m", "pipelines.training.distributed"]
    assert resources["limits"]["nvidia.com/gpu"] == 2
    assert {"name": "AWS_ENDPOINT_URL", "value": "http://s3:9000"} in environment
    secret = {"secretKeyRef": {"name": "fairlead-s3", "key": "access-key"}}
    assert {"name": "AWS_ACCESS_KEY_ID", "valueFrom": secret} in environment

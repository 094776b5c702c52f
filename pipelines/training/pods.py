"""What is created for a training over several pods: a Job with its Service, or a TrainJob of Kubeflow Trainer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import Field

from contracts import storage
from contracts.settings import Settings

PORT = 29500
GROUP = "trainer.kubeflow.org"
JOBSET = "jobset.sigs.k8s.io/jobset-name"  # label of the pods of a TrainJob
NEWEST = ("activeDeadlineSeconds", "runtimePatches")
"""Fields of a TrainJob that differ between releases: 2.2 has these, 2.1 podTemplateOverrides, 2.0 podSpecOverrides."""
_NODE = "node"  # what the runtime torch-distributed calls its only job, and the container in it


class DistributedJob(Settings):
    """The pods that a training wants. `environment` and `secrets` are what its pods need to reach S3."""

    nodes: int = Field(2, ge=2, description="pods")
    processes: int = Field(1, ge=1, description="processes in each pod; with GPUs, one per GPU")
    gpus: int = Field(0, ge=0, description="GPUs of each pod")
    accelerator: str = "nvidia.com/gpu"
    cpu: str = "1"
    memory: str = "2Gi"
    node_selector: dict[str, str] = Field({}, description="labels of the nodes that may take the pods")
    tolerations: list[dict[str, Any]] = Field([], description="taints of nodes that the pods bear, as in a pod")
    priority_class: str = ""
    affinity: dict[str, Any] = Field({}, description="as in a pod")
    pull_secrets: list[str] = Field([], description="Secrets by which the image is pulled")
    image: str
    namespace: str
    service_account: str = "default"
    place: str = Field(description="s3:// folder for what passes between the step and the pods")
    environment: dict[str, str] = Field({}, description="variables of the pods")
    secrets: dict[str, tuple[str, str]] = Field({}, description="variable -> (Secret, key)")
    labels: dict[str, str] = Field({}, description="labels that network policies admit")
    timeout: int = Field(6 * 3600, description="seconds after which it has failed")


def like(wanted: DistributedJob, pod: Mapping[str, Any]) -> DistributedJob:
    """`wanted` with what the platform gives to every pod of a step, as `pod`, which is one, has it.

    What was asked for the training itself comes first.
    """
    spec = pod.get("spec", {})
    own = [item for item in spec.get("tolerations") or [] if not item.get("key", "").startswith("node.kubernetes.io/")]
    return wanted.model_copy(
        update={
            "node_selector": {**(spec.get("nodeSelector") or {}), **wanted.node_selector},
            "tolerations": [*wanted.tolerations, *(item for item in own if item not in wanted.tolerations)],
            "affinity": wanted.affinity or spec.get("affinity") or {},
            "priority_class": wanted.priority_class or spec.get("priorityClassName") or "",
            "pull_secrets": wanted.pull_secrets or [item["name"] for item in spec.get("imagePullSecrets") or []],
        }
    )


def command(wanted: DistributedJob, task: str, place: str) -> list[str]:
    """What each process runs."""
    given = {"task": task, "config": storage.join(place, "config.json"), "dataset": storage.join(place, "dataset")}
    given |= {"checkpoints": storage.join(place, "checkpoints"), "out": storage.join(place, "out")}
    return ["-m", "pipelines.steps.train_worker", *(part for k, v in given.items() for part in (f"--{k}", v))]


def job(wanted: DistributedJob, name: str, task: str, place: str) -> list[dict[str, Any]]:
    """A headless Service by which the pods find the first one, a policy that closes them to all others, and the Job."""
    labels = {"app.kubernetes.io/part-of": "fairlead", "app.kubernetes.io/component": "training", **wanted.labels}
    meta = {"name": name, "namespace": wanted.namespace, "labels": labels}
    selector = {"job-name": name}
    torchrun = ["torchrun", f"--nnodes={wanted.nodes}", f"--nproc-per-node={wanted.processes}"]
    torchrun += ["--node-rank=$(JOB_COMPLETION_INDEX)", f"--master-addr={name}-0.{name}", f"--master-port={PORT}"]
    pod = {
        **_pod(wanted),
        "subdomain": name,
        "restartPolicy": "Never",
        "containers": [_container(wanted, [*torchrun, *command(wanted, task, place)])],
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            # A pod is found before it is ready: it becomes ready by finding the others.
            "spec": {"clusterIP": "None", "selector": selector, "publishNotReadyAddresses": True},
        },
        _policy(meta, selector),
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": meta,
            "spec": {
                "completionMode": "Indexed",
                "completions": wanted.nodes,
                "parallelism": wanted.nodes,
                "backoffLimit": wanted.nodes,  # one lost pod ends the others too: enough for one new start of all
                "activeDeadlineSeconds": wanted.timeout,
                "ttlSecondsAfterFinished": 86400,
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
    ]


def train_job(
    wanted: DistributedJob, name: str, task: str, place: str, served: Collection[str] = NEWEST
) -> list[dict[str, Any]]:
    """The same for Kubeflow Trainer v2, whose runtime gives torchrun its addresses, by PET_* variables.

    served: fields of a TrainJob's spec that the cluster knows; what the pods need beyond the trainer is said by one of
    them, for a runtime gives its pods neither our labels nor a place to write.
    """
    container = _container(wanted, [])
    labels = {"app.kubernetes.io/part-of": "fairlead", "app.kubernetes.io/component": "training", **wanted.labels}
    meta = {"name": name, "namespace": wanted.namespace, "labels": labels}
    spec = {
        "runtimeRef": {"name": "torch-distributed"},
        "trainer": {
            "image": wanted.image,
            "command": ["torchrun", *command(wanted, task, place)],
            "numNodes": wanted.nodes,
            "numProcPerNode": wanted.processes,
            "resourcesPerNode": container["resources"],
            "env": container["env"],
        },
        **_patched(wanted, labels, served),
    }
    if "activeDeadlineSeconds" in served:
        spec["activeDeadlineSeconds"] = wanted.timeout
    document = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "TrainJob", "metadata": meta, "spec": spec}
    return [_policy(meta, {JOBSET: name}), document]


def _patched(wanted: DistributedJob, labels: dict[str, str], served: Collection[str]) -> dict[str, Any]:
    """What is changed of the runtime's pods, in the words of the release that is installed."""
    pod, container = _pod(wanted), _container(wanted, [])
    mounts = {"name": _NODE, "volumeMounts": container["volumeMounts"]}
    spec = {"serviceAccountName": wanted.service_account, "volumes": pod["volumes"], **_place(wanted)}
    spec.pop("priorityClassName", None)  # there is no field for it
    if "runtimePatches" in served:
        spec["securityContext"] = pod["securityContext"]
        spec["containers"] = [{**mounts, "securityContext": container["securityContext"]}]
        template = {"spec": {"template": {"metadata": {"labels": labels}, "spec": spec}}}
        jobs = {"spec": {"replicatedJobs": [{"name": _NODE, "template": template}]}}
        return {"runtimePatches": [{"manager": "fairlead.io/train", "trainingRuntimeSpec": {"template": jobs}}]}
    spec["containers"] = [mounts]
    target = {"targetJobs": [{"name": _NODE}]}
    if "podTemplateOverrides" in served:
        return {"podTemplateOverrides": [{**target, "metadata": {"labels": labels}, "spec": spec}]}
    oldest = {key: value for key, value in spec.items() if key not in ("affinity", "imagePullSecrets")}
    return {"labels": labels, "podSpecOverrides": [{**target, **oldest}]}


def _policy(meta: dict[str, Any], selector: dict[str, str]) -> dict[str, Any]:
    """The pods talk to each other, and nobody else to them."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": meta,
        "spec": {
            "podSelector": {"matchLabels": selector},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": selector}}]}],
        },
    }


def _pod(wanted: DistributedJob) -> dict[str, Any]:
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {}}]
    if wanted.gpus:
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}})
    return {
        "serviceAccountName": wanted.service_account,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": volumes,
        **_place(wanted),
    }


def _place(wanted: DistributedJob) -> dict[str, Any]:
    place = {
        "nodeSelector": wanted.node_selector,
        "tolerations": wanted.tolerations,
        "affinity": wanted.affinity,
        "priorityClassName": wanted.priority_class,
        "imagePullSecrets": [{"name": name} for name in wanted.pull_secrets],
    }
    return {key: value for key, value in place.items() if value}


def _container(wanted: DistributedJob, run: list[str]) -> dict[str, Any]:
    secret = {name: {"secretKeyRef": {"name": ref, "key": key}} for name, (ref, key) in wanted.secrets.items()}
    mounts = [{"name": "tmp", "mountPath": "/tmp"}]
    limits: dict[str, Any] = {"memory": wanted.memory}
    if wanted.gpus:
        limits[wanted.accelerator] = wanted.gpus
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})
    return {
        "name": "train",
        "image": wanted.image,
        "imagePullPolicy": "IfNotPresent",
        "command": run[:1],
        "args": run[1:],
        "env": [
            *({"name": name, "value": value} for name, value in wanted.environment.items()),
            *({"name": name, "valueFrom": source} for name, source in secret.items()),
        ],
        "resources": {"requests": {"cpu": wanted.cpu, **limits}, "limits": limits},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }

"""A training over several pods: a TrainJob where Kubeflow Trainer is installed, an indexed Job with torchrun otherwise.

Data goes to the pods and the model comes back through S3, so they share no disk. Process 0 keeps its checkpoints there
too: when a pod is lost, the Job starts its pods again, and they go on from the last epoch.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field

from contracts import objects
from contracts.errors import PlatformError
from contracts.settings import Settings

PORT = 29500
_GROUP = "trainer.kubeflow.org"
_POLL = 3.0


class Spread(Settings):
    """How a training is spread. `environment` and `secrets` are what its pods need to reach S3."""

    nodes: int = Field(2, ge=2, description="pods")
    processes: int = Field(1, ge=1, description="processes in each pod; with GPUs, one per GPU")
    gpus: int = Field(0, ge=0, description="GPUs of each pod")
    accelerator: str = "nvidia.com/gpu"
    cpu: str = "1"
    memory: str = "2Gi"
    node_selector: dict[str, str] = Field({}, description="labels of the nodes that may take the pods")
    tolerations: list[dict[str, str]] = Field([], description="taints of nodes that the pods bear, as in a pod")
    priority_class: str = ""
    image: str
    namespace: str
    service_account: str = "default"
    place: str = Field(description="s3:// folder for what passes between the step and the pods")
    environment: dict[str, str] = Field({}, description="variables of the pods")
    secrets: dict[str, tuple[str, str]] = Field({}, description="variable -> (Secret, key)")
    labels: dict[str, str] = Field({}, description="labels that network policies admit")
    timeout: int = Field(6 * 3600, description="seconds after which it has failed")


def train_spread(spread: Spread, task: str, config: str, dataset: Path, out: Path, tell: Callable[..., None]) -> None:
    """Train on `dataset` (local) by the pods of `spread`; `out` (local) gets ``model/`` and ``train.json``.

    Raises:
        PlatformError: ``code="spread_failed"``, with what the failing pod said last.
    """
    name = "train-" + hashlib.sha256(f"{task}{config}{time.time_ns()}".encode()).hexdigest()[:10]
    place = objects.join(spread.place, name)
    objects.upload(dataset, objects.join(place, "dataset"), last="dataset.json")
    objects.write_bytes(objects.join(place, "config.json"), config.encode())
    kube = _Kube(spread.namespace)
    operator = kube.has_group(_GROUP)
    documents = [train_job(spread, name, task, place)] if operator else job(spread, name, task, place)
    try:
        for document in documents:
            kube.create(document)
        tell(0, None, pods=spread.nodes, by="TrainJob" if operator else "Job")
        kube.wait(name, operator, spread.timeout)
        objects.download(objects.join(place, "out"), out, last="train.json")
    finally:
        for document in documents:
            kube.delete(document)


def command(spread: Spread, task: str, place: str) -> list[str]:
    """What each process runs."""
    given = {"task": task, "config": objects.join(place, "config.json"), "dataset": objects.join(place, "dataset")}
    given |= {"checkpoints": objects.join(place, "checkpoints"), "out": objects.join(place, "out")}
    return ["-m", "pipelines.training.distributed", *(part for k, v in given.items() for part in (f"--{k}", v))]


def job(spread: Spread, name: str, task: str, place: str) -> list[dict[str, Any]]:
    """A headless Service by which the pods find the first one, a policy that closes them to all others, and the Job."""
    labels = {"app.kubernetes.io/part-of": "fairlead", "app.kubernetes.io/component": "training", **spread.labels}
    meta = {"name": name, "namespace": spread.namespace, "labels": labels}
    selector = {"job-name": name}
    torchrun = ["torchrun", f"--nnodes={spread.nodes}", f"--nproc-per-node={spread.processes}"]
    torchrun += ["--node-rank=$(JOB_COMPLETION_INDEX)", f"--master-addr={name}-0.{name}", f"--master-port={PORT}"]
    pod = {
        **_pod(spread),
        "subdomain": name,
        "restartPolicy": "Never",
        "containers": [_container(spread, [*torchrun, *command(spread, task, place)])],
    }
    peers = [{"podSelector": {"matchLabels": selector}}]
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            # A pod is found before it is ready: it becomes ready by finding the others.
            "spec": {"clusterIP": "None", "selector": selector, "publishNotReadyAddresses": True},
        },
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": meta,
            "spec": {
                "podSelector": {"matchLabels": selector},
                "policyTypes": ["Ingress"],
                "ingress": [{"from": peers}],
            },
        },
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": meta,
            "spec": {
                "completionMode": "Indexed",
                "completions": spread.nodes,
                "parallelism": spread.nodes,
                "backoffLimit": spread.nodes,  # one lost pod ends the others too: enough for one new start of all
                "activeDeadlineSeconds": spread.timeout,
                "ttlSecondsAfterFinished": 86400,
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
    ]


def train_job(spread: Spread, name: str, task: str, place: str) -> dict[str, Any]:
    """The same for Kubeflow Trainer v2: its runtime gives torchrun its addresses, by PET_* variables."""
    container = _container(spread, [])
    return {
        "apiVersion": f"{_GROUP}/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": name, "namespace": spread.namespace, "labels": spread.labels},
        "spec": {
            "runtimeRef": {"name": "torch-distributed"},
            "activeDeadlineSeconds": spread.timeout,
            "trainer": {
                "image": spread.image,
                "command": ["torchrun", *command(spread, task, place)],
                "numNodes": spread.nodes,
                "numProcPerNode": spread.processes,
                "resourcesPerNode": container["resources"],
                "env": container["env"],
            },
        },
    }


def _pod(spread: Spread) -> dict[str, Any]:
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {}}]
    if spread.gpus:
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}})
    return {
        "serviceAccountName": spread.service_account,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": volumes,
        **_place(spread),
    }


def _place(spread: Spread) -> dict[str, Any]:
    place = {
        "nodeSelector": spread.node_selector,
        "tolerations": spread.tolerations,
        "priorityClassName": spread.priority_class,
    }
    return {key: value for key, value in place.items() if value}


def _container(spread: Spread, run: list[str]) -> dict[str, Any]:
    secret = {name: {"secretKeyRef": {"name": ref, "key": key}} for name, (ref, key) in spread.secrets.items()}
    mounts = [{"name": "tmp", "mountPath": "/tmp"}]
    limits: dict[str, Any] = {"memory": spread.memory}
    if spread.gpus:
        limits[spread.accelerator] = spread.gpus
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})
    return {
        "name": "train",
        "image": spread.image,
        "imagePullPolicy": "IfNotPresent",
        "command": run[:1],
        "args": run[1:],
        "env": [
            *({"name": name, "value": value} for name, value in spread.environment.items()),
            *({"name": name, "valueFrom": source} for name, source in secret.items()),
        ],
        "resources": {"requests": {"cpu": spread.cpu, **limits}, "limits": limits},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }


class _Kube:
    """The few calls that are needed, by the pod's own identity or the caller's kubeconfig."""

    def __init__(self, namespace: str) -> None:
        from kubernetes import client, config

        try:
            config.load_incluster_config()
        except config.ConfigException:
            config.load_kube_config()
        self.namespace, self._api, self._client = namespace, client.ApiClient(), client

    def has_group(self, group: str) -> bool:
        """Whether an API group is served, that is, an operator is installed."""
        return any(item.name == group for item in self._client.ApisApi(self._api).get_api_versions().groups)

    def create(self, document: dict[str, Any]) -> None:
        from kubernetes.client import ApiException

        try:
            self._call("POST", self._path(document), document)
        except ApiException as err:
            if err.status == 403 and document["kind"] == "NetworkPolicy":
                return  # hardening that this identity may not do; the training itself needs none
            raise PlatformError(
                f"may not create the {document['kind']} of a distributed training",
                detail=str(err.body or err.reason)[:500],
                fix="give the steps' ServiceAccount that right: pipelines.steps.jobs: true in the values",
                code="no_access",
            ) from err

    def delete(self, document: dict[str, Any]) -> None:
        from kubernetes.client import ApiException

        try:
            path = f"{self._path(document)}/{document['metadata']['name']}"
            self._call("DELETE", path, {"propagationPolicy": "Background"})
        except ApiException as err:
            if err.status not in (403, 404):
                raise

    def wait(self, name: str, operator: bool, timeout: int) -> None:
        """Until it has succeeded."""
        path = f"/apis/{_GROUP}/v1alpha1" if operator else "/apis/batch/v1"
        path += f"/namespaces/{self.namespace}/{'trainjobs' if operator else 'jobs'}/{name}"
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            conditions = self._call("GET", path, None).get("status", {}).get("conditions", [])
            found = {c["type"]: c for c in conditions if c["status"] == "True"}
            if "Complete" in found:
                return
            if "Failed" in found:
                raise self._failed(name, str(found["Failed"].get("message", "")))
            time.sleep(_POLL)
        raise self._failed(name, f"not finished within {timeout} s")

    def _failed(self, name: str, why: str) -> PlatformError:
        core = self._client.CoreV1Api(self._api)
        said = ""
        for pod in core.list_namespaced_pod(self.namespace, label_selector=f"job-name={name}").items:
            if pod.status.phase == "Failed":
                said = core.read_namespaced_pod_log(pod.metadata.name, self.namespace, tail_lines=12)
                break
        return PlatformError(
            "the distributed training failed",
            detail=f"{why}\n{said}".strip(),
            fix="see the pods' events: fairlead diagnose",
            code="spread_failed",
        )

    def _path(self, document: dict[str, Any]) -> str:
        version = document["apiVersion"]
        plural = document["kind"].lower().removesuffix("y") + ("ies" if document["kind"].endswith("y") else "s")
        root = "/api/v1" if version == "v1" else f"/apis/{version}"
        return f"{root}/namespaces/{self.namespace}/{plural}"

    def _call(self, method: str, path: str, body: Any) -> Any:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        answer = self._api.call_api(
            path, method, body=body, header_params=headers, response_type="object", auth_settings=["BearerToken"],
            _return_http_data_only=True,
        )  # fmt: skip
        return json.loads(json.dumps(answer))

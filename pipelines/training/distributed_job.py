"""A training over several pods: a TrainJob where Kubeflow Trainer is installed, an indexed Job with torchrun otherwise.

Data goes to the pods and the model comes back through S3, so they share no disk. Process 0 keeps its checkpoints there
too: when a pod is lost, the Job starts its pods again, and they go on from the last epoch.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contracts import storage
from contracts.errors import PlatformError
from pipelines.io.record import POD
from pipelines.training.pods import GROUP, JOBSET, NEWEST, DistributedJob, job, like, train_job

_POLL = 3.0


def train_by_job(
    wanted: DistributedJob, task: str, config: str, dataset: Path, out: Path, tell: Callable[..., None]
) -> None:
    """Train on `dataset` (local) by the pods of `wanted`; `out` (local) gets ``model/`` and ``train.json``.

    Raises:
        PlatformError: ``code="distributed_job_failed"``, with what the failing pod said last.
    """
    name = "train-" + hashlib.sha256(f"{task}{config}{time.time_ns()}".encode()).hexdigest()[:10]
    place = storage.join(wanted.place, name)
    storage.upload(dataset, storage.join(place, "dataset"), last="dataset.json")
    storage.write_bytes(storage.join(place, "config.json"), config.encode())
    kube = _Kube(wanted.namespace)
    # A TrainJob has no field for a priority.
    operator = not wanted.priority_class and kube.has_group(GROUP)
    if own := os.environ.get(POD):
        wanted = like(wanted, kube.pod(own))
    if operator:
        documents = train_job(wanted, name, task, place, kube.fields_of_train_jobs())
    else:
        documents = job(wanted, name, task, place)
    try:
        for document in documents:
            kube.create(document)
        tell(0, None, pods=wanted.nodes, by="TrainJob" if operator else "Job")
        kube.wait(name, operator, wanted.timeout)
        storage.download(storage.join(place, "out"), out, last="train.json")
    finally:
        for document in documents:
            kube.delete(document)


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

    def pod(self, name: str) -> dict[str, Any]:
        """A pod as Kubernetes describes it; empty when this identity may not see it."""
        from kubernetes.client import ApiException

        try:
            return dict(self._call("GET", f"/api/v1/namespaces/{self.namespace}/pods/{name}", None))
        except ApiException:
            return {}

    def fields_of_train_jobs(self) -> tuple[str, ...]:
        """What the installed release knows in a TrainJob's spec; the newest where that cannot be asked."""
        from kubernetes.client import ApiException

        try:
            schemas = self._call("GET", f"/openapi/v3/apis/{GROUP}/v1alpha1", None)["components"]["schemas"]
            (found,) = [schema for name, schema in schemas.items() if name.endswith(".TrainJob")]
            return tuple(found["properties"]["spec"]["properties"])
        except (ApiException, KeyError, ValueError):
            return NEWEST

    def create(self, document: dict[str, Any]) -> None:
        from kubernetes.client import ApiException

        try:
            self._call("POST", self._path(document), document)
        except ApiException as err:
            if err.status == 403 and document["kind"] == "NetworkPolicy":
                return  # hardening that this identity may not do; the training itself needs none
            detail = str(err.body or err.reason)[:500]
            if err.status == 403:
                raise PlatformError(
                    f"may not create the {document['kind']} of a distributed training",
                    detail=detail,
                    fix="give the steps' ServiceAccount that right: pipelines.steps.jobs: true in the values",
                    code="no_access",
                ) from err
            raise PlatformError(
                f"the cluster refused the {document['kind']} of a distributed training",
                detail=detail,
                fix="correct what it names: --set resources.train.KEY=VALUE, or what is installed for training",
                code="distributed_job_refused",
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
        path = f"/apis/{GROUP}/v1alpha1" if operator else "/apis/batch/v1"
        path += f"/namespaces/{self.namespace}/{'trainjobs' if operator else 'jobs'}/{name}"
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            conditions = self._call("GET", path, None).get("status", {}).get("conditions", [])
            found = {c["type"]: c for c in conditions if c["status"] == "True"}
            if "Complete" in found:
                return
            if "Failed" in found:
                raise self._failed(name, operator, str(found["Failed"].get("message", "")))
            time.sleep(_POLL)
        raise self._failed(name, operator, f"not finished within {timeout} s")

    def _failed(self, name: str, operator: bool, why: str) -> PlatformError:
        core = self._client.CoreV1Api(self._api)
        said = ""
        label = JOBSET if operator else "job-name"
        for pod in core.list_namespaced_pod(self.namespace, label_selector=f"{label}={name}").items:
            if pod.status.phase == "Failed":
                said = core.read_namespaced_pod_log(pod.metadata.name, self.namespace, tail_lines=12)
                break
        return PlatformError(
            "the distributed training failed",
            detail=f"{why}\n{said}".strip(),
            fix="see the pods' events: fairlead diagnose",
            code="distributed_job_failed",
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

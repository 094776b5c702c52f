"""A training over several pods: a TrainJob where Kubeflow Trainer is installed, an indexed Job with torchrun otherwise.

Data goes to the pods and the model comes back through S3, so they share no disk. Process 0 keeps its checkpoints there
too: when a pod is lost, the Job starts its pods again, and they go on from the last epoch.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from contracts import storage
from contracts.errors import PlatformError
from pipelines.io.kube_api import Kube
from pipelines.io.pods import like
from pipelines.io.record import POD
from pipelines.training.pods import GROUP, JOBSET, NEWEST, DistributedJob, job, train_job

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
        documents = train_job(wanted, name, task, place, kube.spec_fields(f"{GROUP}/v1alpha1", "TrainJob") or NEWEST)
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


class _Kube(Kube):
    made_for = "distributed training"
    refused = "distributed_job_refused"
    correct = "correct what it names: --set resources.train.KEY=VALUE, or what is installed for training"

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

"""The engine ``ray`` on a cluster: the head is in the pod of the step, workers are pods of a Job that the step makes.

They share no disk: what they pass to each other lies in S3 below the place of the run, and is gone at the end. Ray is
spoken to with a token that only this step and its workers have.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from typing import Any

from contracts import storage
from contracts.errors import PlatformError
from pipelines.data_engines import with_ray
from pipelines.data_engines.ray_engine import RayEngine, remove_below
from pipelines.data_engines.ray_worker import IP, Head
from pipelines.io.kube_api import Kube
from pipelines.io.pods import PodSettings, closed, container_of, like, pod_of
from pipelines.io.record import POD

COMPONENT = "data-workers"
WORKFLOW = "workflows.argoproj.io/workflow"  # label of all pods of a run
_LIVES = 6  # pods that each worker may have, one after the other; those whose node is lost do not count
LONGEST = 30 * 86400  # seconds


class PodsEngine(RayEngine):
    """See `RayEngine`.

    Args:
        place: address of S3.  run: name of the run there; what a step of it left that was lost is deleted.
        pods: what the workers have.
    """

    _together = False

    def __init__(self, step: str, *, workers: int, memory: str, place: str, run: str, pods: PodSettings) -> None:
        below = storage.join(place, run, step)
        super().__init__(step, workers=workers, memory=memory, place=below)
        remove_below(below)
        name = uuid.uuid4().hex[:10]
        self._head = storage.join(below, f"head-{name}.json")
        self._wanted, self._pods = pods, Pods(pods, f"data-{name}", workers, memory)

    def close(self) -> None:
        """Stop Ray, and delete the pods."""
        super().close()
        self._remove()

    def _remove(self) -> None:
        if self._pods.made:
            storage.remove(self._head)
            self._pods.delete()

    def _of_head(self) -> dict[str, Any]:
        return {"workers": 0, "ip": self._pods.own_address()}

    def _gather(self, head: Head) -> None:
        storage.write_bytes(self._head, head.model_dump_json().encode())
        self._pods.make(self._head)

    def _alone(self, seconds: float) -> PlatformError:
        return PlatformError(
            f"no worker of Ray came within {seconds:.0f} s",
            detail=self._pods.told(),
            fix="see the pods' events: fairlead diagnose; smaller ones find a place sooner: --set data.memory=1Gi",
            code="no_workers",
        )


class Pods:
    """The Job whose pods are the workers of one step."""

    def __init__(self, wanted: PodSettings, name: str, workers: int, memory: str) -> None:
        self._wanted, self._name, self._workers, self._memory = wanted, name, workers, memory
        self._kube = _Kube(wanted.namespace)
        own = os.environ.get(POD, "")
        self._own = self._kube.pod(own) if own else {}
        self.made: list[dict[str, Any]] = []

    def own_address(self) -> str:
        """The address of the step's pod; empty where it cannot be asked."""
        return str(self._own.get("status", {}).get("podIP", ""))

    def make(self, head: str) -> None:
        """Make them, once; they look at `head` for who leads them."""
        if self.made:
            return
        wanted = like(self._wanted, self._own)
        for document in self.documents(wanted, head):
            self.made.append(document)
            self._kube.create(document)

    def documents(self, wanted: PodSettings, head: str) -> list[dict[str, Any]]:
        """See `manifests`."""
        return manifests(wanted, self._name, self._workers, self._memory, head, self._own)

    def delete(self) -> None:
        """Delete what was made."""
        while self.made:
            self._kube.delete(self.made.pop())

    def told(self) -> str:
        """What the cluster says of them."""
        status = self._kube.read(self.made[-1]).get("status", {}) if self.made else {}
        said = [f"{key} {status[key]}" for key in ("active", "ready", "failed") if status.get(key)]
        why = [str(one.get("message", "")) for one in status.get("conditions", []) if one["type"] == "Failed"]
        return f"Job {self._name}: {', '.join(said) or 'no pods'} {' '.join(why)}".strip()


class _Kube(Kube):
    made_for = "data engine"
    refused = "data_workers_refused"
    correct = "correct what it names: --set data.memory=2Gi, data.workers, or leave data.engine out"


def meta_of(wanted: PodSettings, name: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of what is made for the step of the pod `own`, and goes with it."""
    labels = {"app.kubernetes.io/part-of": "fairlead", "app.kubernetes.io/component": COMPONENT, **wanted.labels}
    meta: dict[str, Any] = {"name": name, "namespace": wanted.namespace, "labels": labels}
    if about := own.get("metadata"):
        owner = {"apiVersion": "v1", "kind": "Pod", "name": about["name"], "uid": about["uid"]}
        meta["ownerReferences"] = [owner]
    return meta


def let_in(policy: dict[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The policy, which also lets pods of the run of `own` in."""
    if run := own.get("metadata", {}).get("labels", {}).get(WORKFLOW):
        policy["spec"]["ingress"][0]["from"].append({"podSelector": {"matchLabels": {WORKFLOW: run}}})
    return policy


def manifests(
    wanted: PodSettings, name: str, workers: int, memory: str, head: str, own: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """A policy that lets pods of the run speak to the workers, and their Job; both go with `own`, the step's pod."""
    meta = meta_of(wanted, name, own)
    policy = let_in(closed(meta, {"job-name": name}), own)
    sized = wanted.model_copy(update={"memory": with_ray(memory)})
    container = container_of(sized, "worker", ["python", "-m", "pipelines.data_engines.ray_worker", head])
    container["env"].append({"name": IP, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}})
    spec = {
        "completions": workers,
        "parallelism": workers,
        "backoffLimit": _LIVES * workers,
        "podFailurePolicy": {
            "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
        },
        "activeDeadlineSeconds": LONGEST,
        "ttlSecondsAfterFinished": 3600,
        "template": {
            "metadata": {"labels": meta["labels"]},
            "spec": {**pod_of(sized), "restartPolicy": "Never", "containers": [container]},
        },
    }
    return [policy, {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": spec}]

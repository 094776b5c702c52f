"""The engine ``ray`` where KubeRay is installed: head and workers are a RayJob of the step (``data.ray=rayjob``).

The job is the driver of `ray_driver`. It reaches the step, whose address and token a document in S3 says, and ends with
that connection; KubeRay then deletes the pods. Ray's own token is made by KubeRay, and known to its pods alone.
"""

from __future__ import annotations

import hmac
import socket
import time
import uuid
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, TextIO

from contracts import storage
from contracts.errors import PlatformError
from pipelines.data_engines import HEAD, with_ray
from pipelines.data_engines.pods_engine import LONGEST, Pods, PodsEngine, let_in, meta_of
from pipelines.data_engines.ray_driver import STORE, Step
from pipelines.data_engines.ray_engine import PATIENCE, Driver
from pipelines.data_engines.ray_worker import ENVIRONMENT, Head
from pipelines.io.pods import PodSettings, closed, container_of, pod_of

GROUP, VERSION = "ray.io", "ray.io/v1"
WORKERS = "fairlead.io/workers"  # label of the pods of one step
OPERATOR = {"app.kubernetes.io/name": "kuberay-operator"}
DASHBOARD = 8265  # by which KubeRay gives the head its job
_HEALTH = {"httpGet": {"path": "/api/healthz", "port": 52365}}  # of Ray's agent of a node; it asks for no token
# KubeRay before 1.6 would ask by wget, which the image does not have: head and workers would never be ready.
_PROBES = {
    "readinessProbe": {**_HEALTH, "initialDelaySeconds": 5, "periodSeconds": 5, "timeoutSeconds": 5},
    "livenessProbe": {**_HEALTH, "initialDelaySeconds": 30, "periodSeconds": 10, "timeoutSeconds": 10,
                      "failureThreshold": 30},
}  # fmt: skip
_POLL = 2.0  # seconds between looks at the job while it has not come
_GREETS = 10.0  # seconds in which who connects says its token


class RayJobEngine(PodsEngine):
    """See `PodsEngine`. Each start of Ray is a RayJob of its own."""

    def _start(self, token: str) -> Driver:
        name = f"data-{uuid.uuid4().hex[:10]}"
        self._pods = job = RayJobPods(self._wanted, name, self.workers, self._memory)
        job.must_know()
        own = job.own_address()
        with socket.create_server((own, 0), family=socket.AF_INET6 if ":" in own else socket.AF_INET) as server:
            step = Step(host=own, port=server.getsockname()[1], token=token, patience=PATIENCE)
            storage.write_bytes(self._head, step.model_dump_json().encode())
            job.make(self._head)
            return self._connected(server, token, job)

    def _gather(self, head: Head) -> None:
        """KubeRay has done so."""

    def _stop(self) -> None:
        super()._stop()
        self._remove()

    def _connected(self, server: socket.socket, token: str, job: RayJobPods) -> Driver:
        server.settimeout(_POLL)
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            try:
                line, _ = server.accept()
            except TimeoutError:
                if failed := job.failed():
                    raise PlatformError(
                        "KubeRay could not run the RayJob of a data engine",
                        detail=failed,
                        fix="see its pods: fairlead diagnose; its image must have ray[default] (build argument "
                        "RAY=kuberay); without KubeRay: --set data.ray=job",
                        code="ray_job_failed",
                    ) from None
                continue
            if _greeted(line, token):
                return _Line(line)
            line.close()
        raise self._alone(PATIENCE)


def _greeted(line: socket.socket, token: str) -> bool:
    """Whether who has connected says the token; each byte is read alone, for what follows it is an answer."""
    line.settimeout(_GREETS)
    said = b""
    try:
        while not said.endswith(b"\n") and len(said) <= len(token) and (byte := line.recv(1)):
            said += byte
    except OSError:
        return False
    line.settimeout(None)
    return hmac.compare_digest(said, token.encode() + b"\n")


class _Line:
    """A driver at the other end of a connection."""

    def __init__(self, line: socket.socket) -> None:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a node that is lost says no good-bye
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        self._line = line
        self.asks: TextIO = line.makefile("w", encoding="utf-8")
        self.answers: TextIO = line.makefile("r", encoding="utf-8")

    def ended(self) -> str:
        return "the connection to its pod ended"

    def stop(self) -> None:
        for each in (self.asks, self.answers, self._line):
            try:
                each.close()
            except OSError:  # what was not sent is of no use to who is gone
                continue


class RayJobPods(Pods):
    """The RayJob of one step."""

    def must_know(self) -> None:
        """Refuse a cluster whose KubeRay does not run such a job.

        Raises:
            PlatformError: ``code="no_kuberay"``.
        """
        known = self._kube.spec_fields(VERSION, "RayCluster") if self._kube.has_group(GROUP) else None
        if known is None or (known and "authOptions" not in known):
            raise PlatformError(
                "data.ray is rayjob, and KubeRay is not installed" if known is None else "this KubeRay knows no tokens",
                fix="install KubeRay 1.5.1 or later, or leave data.ray out: a Job does the same",
                code="no_kuberay",
            )

    def documents(self, wanted: PodSettings, head: str) -> list[dict[str, Any]]:
        """See `ray_job`."""
        return ray_job(wanted, self._name, self._workers, self._memory, head, self._own)

    def told(self) -> str:
        """What KubeRay says of it."""
        status = self._status()
        said = (
            str(status[key]) for key in ("jobDeploymentStatus", "jobStatus", "reason", "message") if status.get(key)
        )
        return f"RayJob {self._name}: {' '.join(said) or 'no status'}"

    def failed(self) -> str:
        """What KubeRay says of it, if it does not run any more."""
        return self.told() if self._status().get("jobDeploymentStatus") in ("Failed", "Complete") else ""

    def _status(self) -> dict[str, Any]:
        found: dict[str, Any] = self._kube.read(self.made[-1]).get("status", {}) if self.made else {}
        return found


def ray_job(
    wanted: PodSettings, name: str, workers: int, memory: str, step: str, own: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """A policy that lets pods of the run and KubeRay speak to the pods, and their RayJob.

    Both go with `own`, the pod of the step whose document is at `step`.
    """
    meta = meta_of(wanted, name, own)
    policy = let_in(closed(meta, {WORKERS: name}), own)
    operator = {"namespaceSelector": {}, "podSelector": {"matchLabels": OPERATOR}}
    policy["spec"]["ingress"].append({"from": [operator], "ports": [{"protocol": "TCP", "port": DASHBOARD}]})
    common = {"object-store-memory": str(STORE), "disable-usage-stats": "true", "include-log-monitor": "false"}

    def template(container: str, memory: str) -> dict[str, Any]:
        sized = wanted.model_copy(update={"memory": memory})
        made = container_of(sized, container, [])
        del made["command"], made["args"]  # KubeRay's
        made |= _PROBES
        made["env"] += [{"name": key, "value": value} for key, value in ENVIRONMENT.items()]
        return {
            "metadata": {"labels": {**meta["labels"], WORKERS: name}},
            "spec": {**pod_of(sized), "containers": [made]},
        }

    cluster = {
        "rayVersion": version("ray"),
        "authOptions": {"mode": "token"},
        "headGroupSpec": {
            "rayStartParams": {**common, "num-cpus": "0", "dashboard-host": "0.0.0.0"},
            "template": template("ray-head", with_ray(HEAD)),
        },
        "workerGroupSpecs": [
            {
                "groupName": "workers",
                "replicas": workers,
                "minReplicas": workers,
                "maxReplicas": workers,
                "rayStartParams": {**common, "num-cpus": "1"},
                "template": template("ray-worker", with_ray(memory)),
            }
        ],
    }
    spec = {
        "entrypoint": f"python -m pipelines.data_engines.ray_driver {step}",
        "submissionMode": "HTTPMode",  # no pod beside head and workers
        "shutdownAfterJobFinishes": True,
        "activeDeadlineSeconds": LONGEST,
        "rayClusterSpec": cluster,
    }
    return [policy, {"apiVersion": VERSION, "kind": "RayJob", "metadata": meta, "spec": spec}]

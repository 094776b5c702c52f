"""What is created for a training over several pods: a Job with its Service, or a TrainJob of Kubeflow Trainer."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pydantic import Field

from contracts import storage
from pipelines.io.pods import PodSettings, closed, container_of, placed, pod_of

PORT = 29500
GROUP = "trainer.kubeflow.org"
JOBSET = "jobset.sigs.k8s.io/jobset-name"  # label of the pods of a TrainJob
NEWEST = ("activeDeadlineSeconds", "runtimePatches")
"""Fields of a TrainJob that differ between releases: 2.2 has these, 2.1 podTemplateOverrides, 2.0 podSpecOverrides."""
_CONTAINER = "train"
_NODE = "node"  # what the runtime torch-distributed calls its only job, and the container in it


class DistributedJob(PodSettings):
    """The pods that a training wants. `environment` and `secrets` are what its pods need to reach S3."""

    nodes: int = Field(2, ge=2, description="pods")
    processes: int = Field(1, ge=1, description="processes in each pod; with GPUs, one per GPU")
    place: str = Field(description="s3:// folder for what passes between the step and the pods")
    timeout: int = Field(6 * 3600, description="seconds after which it has failed")


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
        **pod_of(wanted),
        "subdomain": name,
        "restartPolicy": "Never",
        "containers": [container_of(wanted, _CONTAINER, [*torchrun, *command(wanted, task, place)])],
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            # A pod is found before it is ready: it becomes ready by finding the others.
            "spec": {"clusterIP": "None", "selector": selector, "publishNotReadyAddresses": True},
        },
        closed(meta, selector),
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
    container = container_of(wanted, _CONTAINER, [])
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
    return [closed(meta, {JOBSET: name}), document]


def _patched(wanted: DistributedJob, labels: dict[str, str], served: Collection[str]) -> dict[str, Any]:
    """What is changed of the runtime's pods, in the words of the release that is installed."""
    pod, container = pod_of(wanted), container_of(wanted, _CONTAINER, [])
    mounts = {"name": _NODE, "volumeMounts": container["volumeMounts"]}
    spec = {"serviceAccountName": wanted.service_account, "volumes": pod["volumes"], **placed(wanted)}
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

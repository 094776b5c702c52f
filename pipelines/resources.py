"""What each step needs where it runs: image, processor, memory, accelerator, retries, and whether it may be cached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any


def _version() -> str:
    try:
        return version("fairlead")
    except PackageNotFoundError:  # a source tree on the path, not installed
        return "0.0.0"


# "python" in the name tells KFP's local runner that a subprocess can stand in for the image.
IMAGE = f"fairlead/pipelines-python:{_version()}"


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Needs of one step on a cluster. `cached` holds locally too."""

    cpu: str = "1"
    memory: str = "2Gi"
    gpus: int = 0
    retries: int = 1
    cached: bool = True


# Not cached: ingest looks at the source (and knows by itself what it has), gate and register at the registry.
STEPS: dict[str, Resources] = {
    "ingest": Resources(cached=False),
    "validate": Resources(memory="4Gi"),
    "materialise": Resources(cpu="2", memory="4Gi"),
    "build_dataset": Resources(cpu="2", memory="4Gi"),
    "train": Resources(cpu="4", memory="8Gi"),
    "evaluate": Resources(cpu="2", memory="4Gi"),
    "gate": Resources(cached=False),
    "register": Resources(cached=False, retries=2),
    "batch_score": Resources(cpu="2", memory="4Gi", cached=False),
}


_PREPARE = ("validate", "materialise")
_LEARN = ("build_dataset", "train", "evaluate", "gate", "register")
ORDER: dict[str, tuple[str, ...]] = {
    "ingestion": ("ingest", *_PREPARE),
    "training": (*_PREPARE, *_LEARN),
    "full": ("ingest", *_PREPARE, *_LEARN),
    "batch_scoring": ("batch_score",),
}
"""The steps of each workflow, in order; here, so that they are known without KFP."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a workflow is compiled for. The default is this machine: the local runner has no images or limits."""

    cluster: bool = False
    image: str = IMAGE
    accelerator: str = "nvidia.com/gpu"
    train_gpus: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # variable -> (Secret, key)
    labels: Mapping[str, str] = field(default_factory=dict)  # which network policies admit the pods
    record: str = ""  # s3:// folder of what runs leave of themselves; "" leaves nothing


_LONGEST = "2592000s"
"""How long after the first start of a pod a second one may be made; KFP's own default, an hour, ends long trainings.

What KFP 2.17 makes of ``set_retry`` is a retryStrategy with limit and backoff and without a policy, which Argo reads as
OnFailure: a pod that ended with a failure is started again (a step that failed, one that ran out of memory, a pod that
was evicted), one that Argo finds deleted is not (phase Error, "pod deleted": a node that is gone). IR has no field for
the policy; such a run is gone on with by ``fairlead run --resume``.
"""


def place(task: Any, step: str, placement: Placement) -> Any:
    """Apply the needs of `step` to a KFP task; locally only whether it is cached."""
    needs = STEPS[step]
    task.set_caching_options(needs.cached)
    if not placement.cluster:
        return task
    task.set_container_image(placement.image).set_cpu_limit(needs.cpu).set_memory_limit(needs.memory)
    task.set_retry(needs.retries, backoff_duration="5s", backoff_factor=2.0, backoff_max_duration=_LONGEST)
    gpus = placement.train_gpus if step == "train" else needs.gpus
    if gpus:
        task.set_accelerator_type(placement.accelerator).set_accelerator_limit(gpus)
    _mount(task, placement, bool(gpus))
    return task


def _mount(task: Any, placement: Placement, gpus: bool) -> None:
    """What the Kubernetes part of a compiled step says: identity, secrets as variables, labels, shared memory."""
    from kfp import kubernetes

    from pipelines.record import FIELDS, PLACE

    kubernetes.set_security_context(task, run_as_user=10001, run_as_group=10001, run_as_non_root=True)
    for name, value in placement.environment.items():
        task.set_env_variable(name, value)
    for name, (secret, key) in placement.secrets.items():
        kubernetes.use_secret_as_env(task, secret_name=secret, secret_key_to_env={key: name})
    if placement.record:
        task.set_env_variable(PLACE, placement.record)
        for name, path in FIELDS.items():
            kubernetes.use_field_path_as_env(task, name, path)
    for name, value in placement.labels.items():
        kubernetes.add_pod_label(task, name, value)
    if gpus:
        kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit="8Gi")

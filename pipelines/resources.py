"""What each step needs where it runs: image, processor, memory, accelerator, retries, and whether it may be cached."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a workflow is compiled for. The default is this machine: the local runner has no images or limits."""

    cluster: bool = False
    image: str = IMAGE
    accelerator: str = "nvidia.com/gpu"
    train_gpus: int = 0


def place(task: Any, step: str, placement: Placement) -> Any:
    """Apply the needs of `step` to a KFP task; locally only whether it is cached."""
    needs = STEPS[step]
    task.set_caching_options(needs.cached)
    if not placement.cluster:
        return task
    task.set_container_image(placement.image).set_cpu_limit(needs.cpu).set_memory_limit(needs.memory)
    task.set_retry(needs.retries, backoff_duration="30s", backoff_factor=2.0)
    gpus = placement.train_gpus if step == "train" else needs.gpus
    if gpus:
        task.set_accelerator_type(placement.accelerator).set_accelerator_limit(gpus)
    return task

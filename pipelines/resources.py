"""What each step needs where it runs: image, processor, memory, accelerator, retries, and whether it may be cached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from contracts.errors import PlatformError
from contracts.quantities import parse
from pipelines.search_space import SEARCH_PODS


def _version() -> str:
    try:
        return version("fairlead")
    except PackageNotFoundError:  # a source tree on the path, not installed
        return "0.0.0"


# "python" in the name tells KFP's local runner that a subprocess can stand in for the image.
IMAGE = f"fairlead/pipelines-python:{_version()}"


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Needs of one step on a cluster. `cached` holds locally too.

    memory is request and limit; cpu is a request only: more is taken where it is free. tolerations are as in a pod.
    own: the step was given needs of its own, so it does not share a pod with steps that were not.
    """

    cpu: str = "250m"
    memory: str = "2Gi"
    gpus: int = 0
    accelerator: str = "nvidia.com/gpu"
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, str], ...] = ()
    priority_class: str = ""
    retries: int = 1
    cached: bool = True
    own: bool = False

    def place(self) -> tuple[Any, ...]:
        """What steps must have in common to run in one pod; more memory or processor than one needs does no harm."""
        where = (self.accelerator if self.gpus else "", tuple(sorted(self.node_selector.items())))
        tolerated = tuple(tuple(sorted(item.items())) for item in self.tolerations)
        return (self.gpus, *where, tolerated, self.priority_class, (self.memory, self.cpu) if self.own else ())


def joined(needs: Iterable[Resources]) -> Resources:
    """The needs of a pod that runs several steps: the most of each, and every condition that one of them has."""
    each = list(needs)
    largest = max(each, key=lambda item: item.gpus)
    tolerations = [item for step in each for item in step.tolerations]
    return Resources(
        cpu=max((item.cpu for item in each), key=parse),
        memory=max((item.memory for item in each), key=parse),
        gpus=largest.gpus,
        accelerator=largest.accelerator,
        node_selector={key: value for item in each for key, value in item.node_selector.items()},
        tolerations=tuple(item for at, item in enumerate(tolerations) if item not in tolerations[:at]),
        priority_class=next((item.priority_class for item in each if item.priority_class), ""),
        retries=max(item.retries for item in each),
        cached=all(item.cached for item in each),
        own=any(item.own for item in each),
    )


# Measured (largest resident size with children, built-in data, 2 cores): a step alone 38 to 442 MiB, all steps of a run
# in one process news 782 and fraud 1031 MiB. The rest is room for data of one's own.
# Not cached: ingest looks at the source (and knows by itself what it has), gate and register at the registry.
STEPS: dict[str, Resources] = {
    "ingest": Resources(cached=False),
    "validate": Resources(),
    "materialise": Resources(),
    "build_dataset": Resources(),
    "train": Resources(cpu="500m"),
    "evaluate": Resources(),
    "gate": Resources(cpu="100m", cached=False),
    "register": Resources(cpu="100m", cached=False, retries=2),
    "batch_score": Resources(cached=False),
}
DATA = ("ingest", "validate", "materialise", "build_dataset")
"""The steps that make the dataset of a training."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a workflow is compiled for. The default is this machine: the local runner has no images or limits.

    tasks: "each" gives a KFP task to each step, "groups" one to each group of `pipelines.grouping`, and "few" one to
    adjacent groups that ask for nothing of their own. On this machine none does.
    """

    cluster: bool = False
    tasks: Literal["few", "groups", "each"] = "few"
    image: str = IMAGE
    needs: Mapping[str, Resources] = field(default_factory=dict)  # of steps that need other than STEPS says
    train_gpus: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # variable -> (Secret, key)
    labels: Mapping[str, str] = field(default_factory=dict)  # which network policies admit the pods
    search_pods: int = 0  # that try out settings before the training, beside each other; with tasks of several steps
    record: str = ""  # s3:// folder of what runs leave of themselves; "" leaves nothing

    def needs_of(self, step: str) -> Resources:
        """What `step` needs where it runs."""
        needs = self.needs.get(step, STEPS[step])
        return replace(needs, gpus=self.train_gpus) if step == "train" and self.train_gpus else needs


_LONGEST = "2592000s"
"""How long after the first start of a pod a second one may be made; KFP's own default, an hour, ends long trainings.

What KFP 2.17 makes of ``set_retry`` is a retryStrategy with limit and backoff and without a policy, which Argo reads as
OnFailure: a pod that ended with a failure is started again (a step that failed, one that ran out of memory, a pod that
was evicted), one that Argo finds deleted is not (phase Error, "pod deleted": a node that is gone). IR has no field for
the policy; such a run is started again by its follower or by the keeper (deploy/cli/cluster_runs/restart.py).
"""


def place(task: Any, step: str, placement: Placement, needs: Resources | None = None) -> Any:
    """Apply the needs of `step` to a KFP task, or `needs` of several steps; locally only whether it is cached."""
    needs = needs or placement.needs_of(step)
    task.set_caching_options(needs.cached)
    if not placement.cluster:
        return task
    task.set_container_image(placement.image).set_cpu_request(needs.cpu)
    task.set_memory_request(needs.memory).set_memory_limit(needs.memory)
    task.set_retry(needs.retries, backoff_duration="5s", backoff_factor=2.0, backoff_max_duration=_LONGEST)
    if needs.gpus:
        task.set_accelerator_type(needs.accelerator).set_accelerator_limit(needs.gpus)
    _mount(task, placement, bool(needs.gpus))
    _choose_nodes(task, step, needs)
    return task


def _choose_nodes(task: Any, step: str, needs: Resources) -> None:
    """Which nodes a step may run on.

    Raises:
        PlatformError: a priority class: neither KFP's IR nor its Kubernetes part has a field for it.
    """
    from kfp import kubernetes

    for key, value in needs.node_selector.items():
        kubernetes.add_node_selector(task, key, value)
    for item in needs.tolerations:
        kubernetes.add_toleration(task, **{name: item.get(name) for name in ("key", "operator", "value", "effect")})
    if needs.priority_class:
        raise PlatformError(
            f"Kubeflow Pipelines cannot give one step a priority: {step} asks for class {needs.priority_class}",
            detail="only the pods of a training over several nodes can have one of their own",
            fix="leave it out, and set global.pods.priorityClassName in the platform's values: it holds for all steps",
            code="bad_config",
        )


def _mount(task: Any, placement: Placement, gpus: bool) -> None:
    """What the Kubernetes part of a compiled step says: identity, secrets as variables, labels, shared memory."""
    from kfp import kubernetes

    from pipelines.io.record import FIELDS, PLACE

    kubernetes.set_security_context(task, run_as_user=10001, run_as_group=10001, run_as_non_root=True)
    for name, value in placement.environment.items():
        task.set_env_variable(name, value)
    for name, (secret, key) in placement.secrets.items():
        kubernetes.use_secret_as_env(task, secret_name=secret, secret_key_to_env={key: name})
    if placement.search_pods:
        task.set_env_variable(SEARCH_PODS, str(placement.search_pods))
    if placement.record:
        task.set_env_variable(PLACE, placement.record)
        for name, path in FIELDS.items():
            kubernetes.use_field_path_as_env(task, name, path)
    for name, value in placement.labels.items():
        kubernetes.add_pod_label(task, name, value)
    if gpus:
        kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit="8Gi")

"""One run on a cluster: its workflow and pods, what Kubeflow says of it, and what its steps left in the store."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from contracts import storage
from contracts.errors import PlatformError
from deploy.cli.cluster import kfp_api
from deploy.cli.cluster.capacity import Node, read_nodes
from deploy.cli.cluster.in_cluster import open_kube
from deploy.cli.cluster.kube import Kube
from deploy.cli.cluster.port_forward import use_storage

if TYPE_CHECKING:
    from deploy.cli.cluster.cluster_settings import Profile

R = TypeVar("R")

_NOT_FOUND = 404
_NODES_HOLD = 10.0  # seconds that what the nodes have left is taken as true
_KINDS = "workflows.argoproj.io,pods"


@dataclass
class Access:
    """How to look at the runs of a profile's cluster. `client` is a kfp.Client, made when it is needed first."""

    profile: Profile
    client: Any = None
    _nodes: tuple[float, Sequence[Node]] = field(default=(-_NODES_HOLD - 1, ()), repr=False)

    @property
    def kube(self) -> Kube:
        assert self.profile.cluster is not None
        return open_kube(self.profile.cluster.namespace, self.profile.cluster.context)

    @property
    def records(self) -> str:
        """The folder of what runs leave, see pipelines/io/record.py."""
        return storage.join(self.profile.data, ".runs")

    def objects_of(self, kfp_run: str) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        """The workflow of a run, None when there is none (any more), and its pods.

        Raises:
            PlatformError: ``code="kubernetes"``: the cluster does not answer, or refuses.
        """
        items = self.kube.items(_KINDS, "-l", f"pipeline/runid={kfp_run}", "--request-timeout=15s")
        flows = [item for item in items if item.get("kind") == "Workflow"]
        flows.sort(key=lambda flow: str(flow["metadata"].get("creationTimestamp") or ""))
        return (flows[-1] if flows else None), [item for item in items if item.get("kind") == "Pod"]

    def api(self) -> Any:
        """A kfp.Client that is connected.

        Raises:
            PlatformError: ``code="kfp"``.
        """
        if self.client is None:
            assert self.profile.cluster is not None
            self.client = kfp_api.connect(self.profile.cluster)
        return self.client

    def run(self, kfp_run: str) -> Any:
        """What Kubeflow's API says of a run.

        Raises:
            PlatformError: ``code="kfp"``; ``code="unknown_run"`` when it knows no such run.
        """
        return asked("Kubeflow Pipelines did not show the run", lambda: self.api().get_run(kfp_run))

    def stored(self, kfp_run: str) -> dict[str, dict[str, Any]]:
        """The documents of a run's steps.

        Raises:
            PlatformError: the store does not answer.
        """
        from pipelines.io.record import read_steps

        return read_steps(self.records, kfp_run)

    def about(self, kfp_run: str) -> dict[str, Any] | None:
        """What a run was asked, as its record says it."""
        from pipelines.io.record import read_run

        return read_run(self.records, kfp_run)

    def nodes(self) -> Sequence[Node]:
        """The nodes, asked for at most every ten seconds; empty where this user may not look at them."""
        now = time.monotonic()
        if now - self._nodes[0] > _NODES_HOLD:
            found: list[Node] = []
            with contextlib.suppress(PlatformError):
                soon = "--request-timeout=10s"
                found = read_nodes(self.kube.items("nodes", soon), self.kube.items("pods", "--all-namespaces", soon))
            self._nodes = (now, found)
        return self._nodes[1]

    def archived_log(self, workflow: str, pod: str) -> str:
        """The log of a pod that is gone, as Argo has kept it; "" when there is none."""
        bucket = "/".join(self.profile.data.split("/")[:3])
        try:
            return storage.read_bytes(f"{bucket}/kfp/logs/{workflow}/{pod}/main.log").decode(errors="replace")
        except PlatformError:
            return ""

    def log(self, workflow: str, pod: str) -> str:
        """The whole log of a pod, wherever it is."""
        try:
            return self.kube.log(pod, "main")
        except PlatformError:
            return self.archived_log(workflow, pod)


def open_access(profile: Profile) -> Access:
    """How to look at the runs of a profile, with what this process needs to read the store.

    Kubeflow and the pods say most of a run without the store, so one that cannot be read is no error here.
    """
    assert profile.cluster is not None
    with contextlib.suppress(PlatformError):
        use_storage(profile.cluster)
    return Access(profile)


def asked(what: str, call: Callable[[], R]) -> R:
    """The answer of Kubeflow's API; `what` it was asked for begins the error.

    Raises:
        PlatformError: ``code="kfp"``: it does not answer or refuses; ``code="unknown_run"``: it does not know it.
    """
    try:
        with kfp_api.explained(what):
            return call()
    except PlatformError as err:
        if err.context.get("status") != _NOT_FOUND:
            raise
        raise PlatformError("Kubeflow knows no such run", detail=err.detail, code="unknown_run") from err
    except OSError as err:
        raise PlatformError(f"{what}: it does not answer", detail=str(err)[:300], code="kfp") from err

"""Where models are served: releases of helm/model-service in a cluster's namespace, or this machine's ports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from contracts.errors import PlatformError
from deploy.cli.cluster.in_cluster import open_kube
from deploy.cli.cluster.port_forward import reach
from deploy.cli.console.kept import REMOTE_SECONDS, Fresh
from deploy.cli.profiles.loading import load_deployment
from services.console.documents import Release

if TYPE_CHECKING:
    from deploy.cli.cluster.cluster_settings import Cluster

SELECTOR = "app.kubernetes.io/part-of=fairlead,app.kubernetes.io/component=server"
_PODS = "app.kubernetes.io/part-of=fairlead,app.kubernetes.io/component in (server,slot)"
_MODEL = "fairlead.io/model"  # NAME:VERSION, a note of the pods


class Served(Protocol):
    """Where models are served."""

    @property
    def scraped(self) -> bool:
        """Whether endpoints are asked for their own metrics."""
        ...

    def of(self) -> Mapping[str, Sequence[Release]]:
        """Releases by model."""
        ...

    def address(self, model: str) -> str:
        """Where a model answers; "" where nobody knows."""
        ...

    def reached(self, model: str) -> str:
        """The same address as it is reached from here."""
        ...


class Machine:
    """Models that are served on this machine: where `places` says, or where `fairlead serve` puts them."""

    scraped = True

    def __init__(self, profile: str, places: Mapping[str, str]) -> None:
        self._profile, self._known = profile, dict(places)

    def of(self) -> dict[str, list[Release]]:
        """None is known before it is asked."""
        return {}

    def address(self, model: str) -> str:
        """Where a model answers."""
        if model not in self._known:
            self._known[model] = f"http://127.0.0.1:{load_deployment(self._profile, model).port}"
        return self._known[model]

    reached = address


class Releases:
    """Models that are served in the namespace of a cluster: its Deployments and Services are listed, nothing else."""

    scraped = False

    def __init__(self, cluster: Cluster, places: Mapping[str, str]) -> None:
        self._cluster, self._places = cluster, dict(places)
        self._found = Fresh(self._find, REMOTE_SECONDS)

    def of(self) -> dict[str, list[Release]]:
        """Releases by model.

        Raises:
            PlatformError: ``code="kubernetes"``.
        """
        return self._found.get()

    def address(self, model: str) -> str:
        """Where a model answers in the cluster: as it was told, or the first release that has a ready pod."""
        if model in self._places:
            return self._places[model]
        try:
            found = sorted(self.of().get(model, []), key=lambda one: -one.ready)
        except PlatformError:
            return ""
        return found[0].address if found else ""

    def reached(self, model: str) -> str:
        """The same address as it is reached from here."""
        address = self.address(model)
        return reach(address, self._cluster) if address else ""

    def _find(self) -> dict[str, list[Release]]:
        kube = open_kube(self._cluster.namespace, self._cluster.context)
        services = {name: port for one in kube.items("services", "-l", SELECTOR) for name, port in _port(one)}
        found: dict[str, dict[str, Release]] = {}
        for one in kube.items("deployments.apps", "-l", _PODS):
            pods, deployment = one["spec"]["template"]["metadata"], one["metadata"]["name"]
            model, _, version = str((pods.get("annotations") or {}).get(_MODEL, "")).partition(":")
            name = str((one["metadata"].get("labels") or {}).get("app.kubernetes.io/instance", deployment))
            if not model:
                continue
            service = deployment if version else deployment.rpartition("-")[0]  # one of two slots behind the release's
            other = found.setdefault(model, {}).get(name, Release(name=name))
            found[model][name] = Release(
                name=name,
                version=version,
                ready=other.ready + int((one.get("status") or {}).get("readyReplicas") or 0),
                wanted=other.wanted + int(one["spec"].get("replicas") or 0),
                address=f"http://{service}:{services[service]}" if service in services else "",
            )
        return {model: [some[name] for name in sorted(some)] for model, some in sorted(found.items())}


def _port(service: Mapping[str, Any]) -> list[tuple[str, int]]:
    ports = [one["port"] for one in service["spec"].get("ports") or [] if one.get("name") == "http"]
    return [(str(service["metadata"]["name"]), int(ports[0]))] if ports else []

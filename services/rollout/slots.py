"""The two Deployments of a model's release: which version each one has, how many pods, and which one is free."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from services.rollout.kubernetes import Kubernetes
from services.rollout.store import Place


class Pods(NamedTuple):
    """How many pods a slot shall have, has, and has ready."""

    wanted: int
    there: int
    ready: int


class Slots:
    """Puts versions into slots; each call goes one step, so it is called again until everything is as wanted.

    Args:
        names: of the two; a Deployment, a ConfigMap and a headless Service have each name.
        replicas: pods of a version.  autoscaling: whether somebody else changes their number once there are some.
        linger: seconds that a version without traffic is kept, until every router has heard of it.
    """

    def __init__(
        self,
        kubernetes: Kubernetes,
        names: tuple[str, str],
        replicas: int,
        autoscaling: bool,
        clock: Callable[[], float],
        linger: float = 5.0,
    ) -> None:
        self._kubernetes, self._names, self._clock = kubernetes, names, clock
        self._replicas, self._autoscaling, self._linger = replicas, autoscaling, linger
        self._unwanted: dict[str, float] = {}
        self._held = {name: _held(kubernetes.get("configmaps", name)) for name in names}
        self.pods: dict[str, Pods] = {}
        self.look()

    def look(self) -> None:
        """Read how many pods there are."""
        self.pods = {name: _pods(self._kubernetes.get("deployments", name)) for name in self._names}

    def slot(self, version: str) -> str:
        """The slot of a version; "" where it has none."""
        return next((name for name, held in self._held.items() if version and held == version), "")

    @property
    def leaving(self) -> dict[str, str]:
        """Slots of versions that are wanted no more, and have pods until every router has heard of it."""
        return {self._held[name]: name for name in self._unwanted if self._held[name] and self.pods[name].wanted}

    def arrange(self, places: Mapping[str, Place], champion: str, candidate: str) -> None:
        """Let these versions have a slot each, and no others; `places` has their bundles."""
        wanted = [version for version in (champion, candidate) if version]
        self.look()
        for name, held in self._held.items():
            if held not in wanted:
                self._leave(name, held)
        for version in wanted:
            name = self.slot(version) or self._taken(version, places, wanted)
            if name:
                self._unwanted.pop(name, None)
                self._scale(name, self._enough(name, champion))

    def _taken(self, version: str, places: Mapping[str, Place], wanted: list[str]) -> str:
        """A free slot that has the version from now on; "" while there is none."""
        place = places.get(version)
        for name, held in self._held.items():
            if place is None or held in wanted or (held and (self.pods[name].wanted or self.pods[name].there)):
                continue
            data = {"source": place.source, "digest": place.digest, "version": version}
            self._kubernetes.patch("configmaps", name, {"data": data})
            self._held[name] = version
            return name
        return ""

    def _leave(self, name: str, held: str) -> None:
        since = self._unwanted.setdefault(name, self._clock())
        if not held or self._clock() - since >= self._linger:
            self._scale(name, 0)

    def _enough(self, name: str, champion: str) -> int:
        now = self.pods[name].wanted
        if not self._autoscaling:
            return self._replicas
        others = self.pods[self.slot(champion)].wanted if self.slot(champion) else 0
        return now or max(self._replicas, others)

    def _scale(self, name: str, replicas: int) -> None:
        if self.pods[name].wanted != replicas:
            self._kubernetes.patch("deployments/scale", name, {"spec": {"replicas": replicas}})
            self.pods[name] = self.pods[name]._replace(wanted=replicas)


def _held(config_map: dict[str, Any]) -> str:
    return str((config_map.get("data") or {}).get("version", ""))


def _pods(deployment: dict[str, Any]) -> Pods:
    status = deployment.get("status") or {}
    wanted = deployment["spec"].get("replicas", 1)
    return Pods(int(wanted), int(status.get("replicas") or 0), int(status.get("readyReplicas") or 0))

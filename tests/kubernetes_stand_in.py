"""Objects of a namespace in memory: their versions, merge patches, and Deployments whose pods come a look later."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from contracts.errors import PlatformError
from services.rollout.kubernetes import Kubernetes


class KubernetesStandIn(Kubernetes):
    """What a keeper's Role lets it see of a release called `name`; `gateways` are those that its HTTPRoute names."""

    def __init__(self, name: str, gateways: tuple[str, ...] = ()) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        for each in (f"{name}-a", f"{name}-b", f"{name}-rollouts"):
            self.objects["configmaps", each] = {"metadata": {"resourceVersion": "1"}}
        for each in (f"{name}-a", f"{name}-b"):
            labels = {"app.kubernetes.io/instance": name, "fairlead.io/slot": each[-1]}
            spec = {"replicas": 1, "selector": {"matchLabels": labels}}
            self.objects["deployments", each] = {"metadata": {"resourceVersion": "1"}, "spec": spec}
        if gateways:
            parents = [{"name": each} for each in gateways]
            route = {"metadata": {"resourceVersion": "1", "generation": 1}, "spec": {"parentRefs": parents}}
            self.objects["httproutes", f"{name}-rollouts"] = route
            self.objects["services", name] = {"metadata": {"resourceVersion": "1"}, "spec": {}}
        self.patches: list[tuple[str, str]] = []
        self.starts = True

    def get(self, kind: str, name: str) -> dict[str, Any]:
        found = self._found(kind, name)
        answer = copy.deepcopy(found)
        if kind == "deployments":  # pods follow what was asked for after the look
            wanted = found["spec"]["replicas"]
            ready = wanted if self.starts else min(wanted, found.get("status", {}).get("readyReplicas", 0))
            found["status"] = {"replicas": wanted, "readyReplicas": ready}
        return answer

    def patch(self, kind: str, name: str, change: Mapping[str, Any]) -> dict[str, Any]:
        found = self._found(kind.partition("/")[0], name)
        version = change.get("metadata", {}).get("resourceVersion")
        if version not in (None, found["metadata"]["resourceVersion"]):
            raise PlatformError("another one was faster", code="conflict")
        _merge(found, change)
        if "generation" in found["metadata"] and "spec" in change:
            found["metadata"]["generation"] += 1
        found["metadata"]["resourceVersion"] = str(int(found["metadata"]["resourceVersion"]) + 1)
        self.patches.append((kind, name))
        return copy.deepcopy(found)

    def _found(self, kind: str, name: str) -> dict[str, Any]:
        if (kind, name) not in self.objects:
            raise PlatformError(f"no {kind} {name}", code="not_found")
        return self.objects[kind, name]

    def replicas(self, name: str) -> int:
        """How many pods somebody asked for."""
        return int(self.objects["deployments", name]["spec"]["replicas"])

    def held(self, name: str) -> str:
        """The version of a slot."""
        return str((self.objects["configmaps", name].get("data") or {}).get("version", ""))


def _merge(into: dict[str, Any], change: Mapping[str, Any]) -> None:
    for key, value in change.items():
        if isinstance(value, Mapping):
            _merge(into.setdefault(key, {}), value)
        else:
            into[key] = value

"""The split of a model's traffic by a Gateway: rules of an HTTPRoute (gateway.networking.k8s.io/v1).

What the API gives when no field says otherwise is written out, so that the object reads as it was written. The API has
no sticky split: an entity may get another version with each request while two have a share.
"""

from __future__ import annotations

from typing import Any

from services.rollout.envoy import Json, Routing
from services.rollout.kubernetes import Kubernetes

_PORT = 3000  # of the slots' Services that a Gateway sends to
_LABELS = "/feedback"


def rules(routing: Routing, model: str, path: str) -> list[Json]:
    """Predictions by weight, a version that a path names, everything else to the champion.

    A request meets the rule with the longest path, and of those the one that names its method, in whatever order they
    are.

    Args:
        path: the route has it, and all below it.
    """
    champion = [_backend(routing, routing.champion)]
    reading = [{**_below(path), "method": method} for method in ("GET", "HEAD")]
    labels = [{"path": {"type": "Exact", "value": _LABELS}}] if _has(path, _LABELS) else []
    made = [
        {"matches": [_below(where)], "backendRefs": [_backend(routing, version)]}
        for version in sorted(routing.versions)
        if _has(path, where := f"/v2/models/{model}/versions/{version}")
    ]
    made.append({"matches": [*reading, *labels], "backendRefs": champion})
    made.append({"matches": [_below(path)], **_split(routing)})
    return made


def _has(path: str, other: str) -> bool:
    return f"{other}/".startswith(f"{path.rstrip('/')}/")


def _below(path: str) -> Json:
    return {"path": {"type": "PathPrefix", "value": path}}


def _target(routing: Routing, version: str) -> Json:
    """The Service of a slot; its headless one is no Service that every implementation can send to."""
    return {"group": "", "kind": "Service", "name": f"{routing.versions[version].host}-route", "port": _PORT}


def _backend(routing: Routing, version: str, weight: int = 1) -> Json:
    return {**_target(routing, version), "weight": weight}


def _split(routing: Routing) -> Json:
    """Weights in hundredths of a percent; a version without a share is not named."""
    if routing.candidate and routing.mirrors:
        copies = {"type": "RequestMirror", "requestMirror": {"backendRef": _target(routing, routing.candidate)}}
        return {"filters": [copies], "backendRefs": [_backend(routing, routing.champion)]}
    part = round(routing.weight * 100) if routing.candidate else 0
    shares = [(routing.candidate, part), (routing.champion, 10_000 - part)]
    return {"backendRefs": [_backend(routing, version, weight) for version, weight in shares if weight]}


class GatewayRoute:
    """The release's HTTPRoute, and its Service, which leads to the champion.

    Args:
        name: of the HTTPRoute.  service: whom pods ask without the Gateway.
    """

    def __init__(self, kubernetes: Kubernetes, name: str, service: str, model: str, path: str) -> None:
        self._kubernetes, self._name, self._service = kubernetes, name, service
        self._model, self._path = model, path
        self._routing: Routing | None = None

    def put(self, routing: Routing) -> None:
        """Write both where they say something else, whoever changed them."""
        wanted = rules(routing, self._model, self._path)
        if self._kubernetes.get("httproutes", self._name)["spec"].get("rules") != wanted:
            self._kubernetes.patch("httproutes", self._name, {"spec": {"rules": wanted}})
        slot = self._kubernetes.get("deployments", routing.versions[routing.champion].host)
        selector = slot["spec"]["selector"]["matchLabels"]
        if self._kubernetes.get("services", self._service)["spec"].get("selector") != selector:
            self._kubernetes.patch("services", self._service, {"spec": {"selector": selector}})
        self._routing = routing

    def seen(self) -> dict[str, tuple[bool, float]] | None:
        """A version takes traffic where all Gateways have accepted the route as it is now.

        None until they have looked at it. Requests that reached nobody are not counted: the API says nothing of them.
        """
        if self._routing is None:
            return None
        accepted = _accepted(self._kubernetes.get("httproutes", self._name))
        return None if accepted is None else dict.fromkeys(self._routing.versions, (accepted, 0.0))


def _accepted(route: Json) -> bool | None:
    """Whether each Gateway takes the route as it is now; None while one has not said so."""
    parents = (route.get("status") or {}).get("parents") or []
    said: list[Any] = []
    for parent in parents:
        conditions = {each["type"]: each for each in parent.get("conditions") or []}
        said += [conditions.get(kind) for kind in ("Accepted", "ResolvedRefs")]
    now = route["metadata"]["generation"]
    if len(parents) < len(route["spec"]["parentRefs"]):
        return None
    if any(one is None or one.get("observedGeneration", now) != now or one["status"] == "Unknown" for one in said):
        return None
    return all(one["status"] == "True" for one in said)

"""The charts' table of who connects to whom, and what network policies let through, as a cluster would read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import yaml

from tests.helm.program import CHARTS

_FILE = CHARTS / "_lib" / "templates" / "_edges.tpl"
STEP = {"workflows.argoproj.io/workflow": "one"}
"""The label by which a step of a workflow is known."""


@dataclass(frozen=True)
class Table:
    """What ``fairlead.edges`` says; an edge is (server, port)."""

    servers: Mapping[str, tuple[str, tuple[int, ...]]]
    """Component and ports of each server."""
    clients: Mapping[str, tuple[tuple[str, int], ...]]
    """Edges of each component, without those to the Kubernetes API."""
    scrapes: tuple[tuple[str, int], ...]

    def edges(self, component: str) -> set[tuple[str, int]]:
        """What a component connects to, by the component that answers."""
        found = [*self.clients.get(component, ()), *(self.scrapes if component == "prometheus" else ())]
        return {(self.servers[server][0], port) for server, port in found}

    def open_to(self, server: str) -> set[tuple[str, int]]:
        """What a pod with the access label of a server may connect to: the ports that labelled clients use."""
        labelled = {edge for name, edges in self.clients.items() if name != "steps" for edge in edges}
        return {(self.servers[name][0], port) for name, port in labelled if name == server}


@lru_cache(maxsize=1)
def table() -> Table:
    """The table, read from the charts' library."""
    text = _FILE.read_text(encoding="utf-8").split('{{- define "fairlead.edges" -}}')[1].split("{{- end -}}")[0]
    data = yaml.safe_load(text)
    return Table(
        servers={name: (each["component"], tuple(each["ports"])) for name, each in data["servers"].items()},
        clients={name: tuple(map(_edge, filter(_is_pod, edges))) for name, edges in data["clients"].items()},
        scrapes=tuple(map(_edge, data["scrapes"])),
    )


def _is_pod(edge: str) -> bool:
    return edge != "kubernetes"


def _edge(text: str) -> tuple[str, int]:
    server, port = text.split(":")
    return server, int(port)


@dataclass(frozen=True)
class Pod:
    """A pod as policies see it."""

    labels: Mapping[str, str]
    namespace: str

    @property
    def component(self) -> str:
        return self.labels.get("app.kubernetes.io/component", "")


class Network:
    """The network policies of a cluster."""

    def __init__(self, policies: list[Any]) -> None:
        """Read policies as they are in manifests."""
        self._policies = policies

    def lets(self, source: Pod, target: Pod, port: int) -> bool:
        """Whether a connection gets through: out of the one pod, and into the other."""
        out = self._allows(source, "Egress", target, port)
        return out and self._allows(target, "Ingress", source, port)

    def _allows(self, pod: Pod, direction: str, other: Pod, port: int) -> bool:
        rules = list(self._rules(pod, direction))
        return not rules or any(_opens(rule, other, port, pod.namespace) for rule in rules if rule is not None)

    def _rules(self, pod: Pod, direction: str) -> Iterator[Any]:
        """Rules of all policies that select the pod; None for a policy without any, which closes."""
        for policy in self._policies:
            spec, namespace = policy["spec"], policy["metadata"]["namespace"]
            if namespace != pod.namespace or direction not in spec["policyTypes"]:
                continue
            if selects(spec["podSelector"], pod.labels):
                yield None
                yield from spec.get(direction.lower(), [])


def _opens(rule: Any, other: Pod, port: int, namespace: str) -> bool:
    ports = rule.get("ports")
    if ports and not any(each["port"] == port and each.get("protocol", "TCP") == "TCP" for each in ports):
        return False
    peers = rule.get("to", rule.get("from"))
    return not peers or any(_is_peer(peer, other, namespace) for peer in peers)


def _is_peer(peer: Any, pod: Pod, namespace: str) -> bool:
    if "ipBlock" in peer:
        return bool(peer["ipBlock"]["cidr"] in ("0.0.0.0/0", "::/0"))
    spaces = peer.get("namespaceSelector")
    if spaces is None and pod.namespace != namespace:
        return False
    if spaces is not None and not selects(spaces, {"kubernetes.io/metadata.name": pod.namespace}):
        return False
    return selects(peer.get("podSelector", {}), pod.labels)


def selects(selector: Any, labels: Mapping[str, str]) -> bool:
    """Whether a selector of a policy is for a pod, or a namespace, with these labels."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for each in selector.get("matchExpressions", []):
        if each["operator"] == "Exists" and each["key"] not in labels:
            return False
        if each["operator"] == "In" and labels.get(each["key"]) not in each["values"]:
            return False
        assert each["operator"] in ("Exists", "In"), each
    return True

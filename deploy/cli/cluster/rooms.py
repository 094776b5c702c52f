"""What the nodes of a cluster have left for a pod."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from contracts.errors import PlatformError
from deploy.cli.cluster.kube import Kube
from deploy.cli.cluster.quantity import amount
from deploy.cli.cluster.waiting import Room, wants

_NO_DEVICES = ("hugepages-", "ephemeral-storage", "attachable-volumes-")


def rooms(kube: Kube) -> list[Room]:
    """The room of every node that takes pods; empty where this user may not look at nodes.

    Who may not look at the pods of other namespaces gets what the nodes have in all.
    """
    try:
        nodes = kube.items("nodes")
    except PlatformError:
        return []
    try:
        pods = kube.items("pods", "--all-namespaces")
    except PlatformError:
        pods = []
    return free(nodes, pods)


def free(nodes: Iterable[Mapping[str, Any]], pods: Iterable[Mapping[str, Any]]) -> list[Room]:
    """What is left of each node's allocatable resources after the requests of its pods."""
    used: dict[str, dict[str, float]] = {}
    for pod in pods:
        node = (pod.get("spec") or {}).get("nodeName")
        if node and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
            total = used.setdefault(node, {})
            for name, value in wants(pod).items():
                total[name] = total.get(name, 0.0) + value
    return [_room(node, used.get(node["metadata"]["name"], {})) for node in nodes if _takes_pods(node)]


def _takes_pods(node: Mapping[str, Any]) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or []
    ready = all(item.get("status") == "True" for item in conditions if item.get("type") == "Ready")
    return ready and not (node.get("spec") or {}).get("unschedulable")


def _room(node: Mapping[str, Any], used: Mapping[str, float]) -> Room:
    has = (node.get("status") or {}).get("allocatable") or {}
    left = {name: max(0.0, amount(value) - used.get(name, 0.0)) for name, value in has.items()}
    devices = {name: value for name, value in left.items() if "/" in name and not name.startswith(_NO_DEVICES)}
    name = str(node["metadata"]["name"])
    return Room(name=name, cpu=left.get("cpu", 0.0), memory=left.get("memory", 0.0), devices=devices)

"""What a pod of a step waits for, in words: room on a node, its image, a quota, its turn."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deploy.cli.cluster.quantity import amount, cores, memory
from deploy.cli.cluster.troubles import explain

_STARTING = {"", "PodInitializing", "ContainerCreating"}
_IMAGE = re.compile(r"ErrImageNeverPull|ImagePullBackOff|ErrImagePull|InvalidImageName")
_NODES = re.compile(r"(\d+)/(\d+) nodes are available: (.*?)\.(?:\s|$)")
_DEVICE = re.compile(r"Insufficient ([\w.-]+/[\w.-]+)")


@dataclass(frozen=True, kw_only=True)
class Room:
    """What one node has left: cores, bytes of memory, and devices by the name of their resource."""

    name: str
    cpu: float
    memory: float
    devices: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Why a step does not run yet. kind: starting, unschedulable, image, quota, turn, retry or trouble."""

    kind: str
    text: str


def waits_for(node: Mapping[str, Any], pod: Mapping[str, Any] | None, rooms: Sequence[Room] = ()) -> Waiting:
    """Why a pod does not run yet, from its node of the workflow and from itself where it exists."""
    said = str(node.get("message") or "")
    if pod is None:
        return _not_made(said)
    status = pod.get("status") or {}
    conditions = {item["type"]: item for item in status.get("conditions") or []}
    scheduled = conditions.get("PodScheduled") or {}
    if scheduled.get("status") == "False":
        message = str(scheduled.get("message") or said)
        if scheduled.get("reason") == "SchedulingGated":
            return Waiting(kind="turn", text="waits for its turn: its queue has not admitted it")
        return Waiting(kind="unschedulable", text=unschedulable(message, wants(pod), rooms))
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason, message = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
        if _IMAGE.search(reason):
            return Waiting(kind="image", text=f"waits for its image {container.get('image', '')}: {message or reason}")
        if reason not in _STARTING:
            return Waiting(kind="trouble", text=f"cannot start: {message or reason} ({explain(reason + message)[0]})")
    return Waiting(kind="starting", text="its pod is starting" if scheduled else "waits for a node")


def _not_made(said: str) -> Waiting:
    """Why there is no pod yet, from what the controller says."""
    if found := re.search(r"exceeded quota: (\S+?),? requested: (\S+?), used: (\S+?), limited: (\S+)", said):
        name, asked, used, limited = found.groups()
        text = f"waits for quota {name}: asks for {asked}, used is {used}, allowed {limited}"
        return Waiting(kind="quota", text=text)
    if re.search(r"parallelism|too many workflows|postponed|[Ll]ock|mutex|semaphore", said):
        return Waiting(kind="turn", text=f"waits for its turn: {said}")
    if found := re.search(r"Backoff for (.+)", said):
        return Waiting(kind="retry", text=f"is tried again in {found[1]}")
    return Waiting(kind="trouble" if said else "starting", text=said or "its pod is made")


def wants(pod: Mapping[str, Any]) -> dict[str, float]:
    """What a pod asks for, as the scheduler counts it; empty when the pod says nothing of its containers."""
    spec = pod.get("spec") or {}
    total: dict[str, float] = {}
    for container in spec.get("containers") or []:
        for name, value in _requests(container).items():
            total[name] = total.get(name, 0.0) + value
    for container in spec.get("initContainers") or []:
        for name, value in _requests(container).items():
            total[name] = max(total.get(name, 0.0), value)
    return total


def _requests(container: Mapping[str, Any]) -> dict[str, float]:
    resources = container.get("resources") or {}
    return {
        name: amount(value) for name, value in {**resources.get("limits", {}), **resources.get("requests", {})}.items()
    }


def unschedulable(message: str, asked: Mapping[str, float], rooms: Sequence[Room] = ()) -> str:
    """The scheduler's message in numbers: what is asked for, and what the largest node has free."""
    short = [name for name in ("cpu", "memory") if f"Insufficient {name}" in message]
    short += sorted(set(_DEVICE.findall(message)))
    parts = [_shortage(name, asked.get(name, 0.0), rooms) for name in short]
    found = _NODES.search(message)
    others = _other_reasons(found[3]) if found else ([] if parts else [message or "no node takes it"])
    nodes = f" ({found[1]} of {found[2]} nodes take it)" if found else ""
    return f"waits for {'; '.join([*parts, *others]) or 'a node'}{nodes}"


def _shortage(name: str, asked: float, rooms: Sequence[Room]) -> str:
    words = {"cpu": "processor"}.get(name, name)
    wanted = _in_words(name, asked) + (" of memory" if name == "memory" else "") if asked else f"more {words}"
    free = [room.devices.get(name, 0.0) if "/" in name else getattr(room, name) for room in rooms]
    return wanted + (
        f", the largest node has {_in_words(name, max(free))} free" if free else ", no node has as much free"
    )


def _in_words(name: str, number: float) -> str:
    if name == "cpu":
        return cores(number)
    return memory(number) if name == "memory" else f"{number:g} {name}"


def _other_reasons(said: str) -> list[str]:
    """What stands in the way beside a shortage: ``1 node(s) had untolerated taint {gpu: true}``."""
    parts = [part.strip() for part in said.split(", ")]
    return [part for part in parts if part and "Insufficient" not in part]

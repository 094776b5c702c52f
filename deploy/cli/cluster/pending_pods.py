"""What a pod of a step waits for, in words: room on a node, its image, a quota, its turn."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from deploy.cli.cluster.capacity import Node, requests_of, too_large, two_amounts
from deploy.cli.cluster.pod_diagnosis import explain

_STARTING = {"", "PodInitializing", "ContainerCreating"}
_IMAGE = re.compile(r"ErrImageNeverPull|ImagePullBackOff|ErrImagePull|InvalidImageName")
_NODES = re.compile(r"(\d+)/(\d+) nodes are available: (.*?)\.(?:\s|$)")
_DEVICE = re.compile(r"Insufficient ([\w.-]+/[\w.-]+)")


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Why a step does not run yet. kind: starting, unschedulable, image, quota, turn, retry or trouble."""

    kind: str
    text: str


def waits_for(node: Mapping[str, Any], pod: Mapping[str, Any] | None, nodes: Sequence[Node] = ()) -> Waiting:
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
        return Waiting(kind="unschedulable", text=unschedulable(message, pod.get("spec") or {}, nodes))
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


def unschedulable(message: str, spec: Mapping[str, Any], nodes: Sequence[Node] = ()) -> str:
    """The scheduler's message in numbers: what is asked for, and what the nodes have."""
    short = [name for name in ("cpu", "memory") if f"Insufficient {name}" in message]
    short += sorted(set(_DEVICE.findall(message)))
    told = too_large(spec, nodes) if short and nodes else ""
    parts = [told] if told else [_shortage(name, requests_of(spec)) for name in short]
    found = _NODES.search(message)
    others = _other_reasons(found[3]) if found else ([] if parts else [message or "no node takes it"])
    on = f" ({found[1]} of {found[2]} nodes take it)" if found else ""
    return f"waits for a node: {'; '.join([*parts, *others]) or message}{on}"


def _shortage(name: str, asked: Mapping[str, Decimal]) -> str:
    if asked.get(name):
        return f"asks for {two_amounts(name, asked[name], Decimal(0))[0]}, and none has as much free"
    return f"none has enough {'processor' if name == 'cpu' else name} free"


def _other_reasons(said: str) -> list[str]:
    """What stands in the way beside a shortage: ``1 node(s) had untolerated taint {gpu: true}``."""
    parts = [part.strip() for part in said.split(", ")]
    return [part for part in parts if part and "Insufficient" not in part]

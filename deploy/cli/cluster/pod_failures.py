"""Why a step's pod ended badly, when the step itself did not say it: memory, eviction, a lost node, a deadline."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from contracts.errors import PlatformError
from contracts.quantities import memory, parse
from deploy.cli.cluster.pod_diagnosis import explain

LOST = frozenset({"pod_lost", "evicted"})
"""Codes of failures in which the step itself did nothing wrong: trying again helps."""

_OOM = re.compile(r"OOMKilled")
_EVICTED = re.compile(r"Evicted|low on resource|[Pp]reempt|EvictionByEvictionAPI|node shutdown")
_GONE = re.compile(r"pod deleted|NodeLost|DeletionByTaintManager|DeletionByPodGC|node (?:was )?lost|pod was rejected")
_DEADLINE = re.compile(r"active on the node longer|exceeded its deadline|deadline exceeded|Max duration")


def failure(
    step: str,
    node: Mapping[str, Any],
    pod: Mapping[str, Any] | None,
    tail: Sequence[str] = (),
    tries: int = 1,
) -> PlatformError:
    """What ended a step's last try, as an error with its cure."""
    said = said_by(node, pod)
    if _OOM.search(said):
        return out_of_memory(step, memory_limit(node, pod), tries)
    more = {"step": step}
    if _EVICTED.search(said):
        return PlatformError(
            f"{step} was evicted from its node",
            detail=said,
            fix="start it again; memory that a node lacks: --set resources." + step + ".memory=... (more is reserved)",
            code="evicted",
            **more,
        )
    if _GONE.search(said):
        return PlatformError(
            f"{step} lost its pod: it was deleted, or its node went away",
            detail=said,
            fix="start it again",
            code="pod_lost",
            **more,
        )
    if _DEADLINE.search(said):
        return PlatformError(f"{step} was ended by a deadline", detail=said, fix="", code="deadline", **more)
    cause, fix = explain("\n".join([said, *tail]))
    return PlatformError(
        f"step {step} ended without a word: {cause}",
        detail="\n  ".join(filter(None, [said, *tail])) or "it wrote no log",
        fix=f"{fix}; its pods and events: fairlead diagnose",
        code="step_died",
        **more,
    )


def out_of_memory(step: str, limit: int, tries: int = 1) -> PlatformError:
    """A step that the kernel ended because its pod used more memory than it may."""
    wanted = f"--set resources.{step}.memory={memory(2 * limit)}" if limit else f"--set resources.{step}.memory=..."
    return PlatformError(
        f"{step} ran out of memory" + (f" (limit {memory(limit)})" if limit else ""),
        detail=f"the kernel ended it, {tries} times" if tries > 1 else "the kernel ended it",
        fix=wanted,
        code="out_of_memory",
        step=step,
        limit=limit,
    )


def killed_for_memory(node: Mapping[str, Any], pod: Mapping[str, Any] | None) -> bool:
    """Whether the kernel ended a pod; the same with the same limit would end the same way."""
    return bool(_OOM.search(said_by(node, pod)))


def said_by(node: Mapping[str, Any], pod: Mapping[str, Any] | None) -> str:
    """All that the workflow and Kubernetes say about how a pod ended."""
    status = (pod or {}).get("status") or {}
    parts = [str(node.get("message") or ""), str(status.get("reason") or ""), str(status.get("message") or "")]
    for condition in status.get("conditions") or []:
        if condition["type"] == "DisruptionTarget" and condition.get("status") == "True":
            parts += [str(condition.get("reason") or ""), str(condition.get("message") or "")]
    ended = main_ended(pod)
    if ended and ended.get("reason") == "OOMKilled":
        parts.append("OOMKilled")
    return "; ".join(dict.fromkeys(part for part in parts if part))


def main_status(pod: Mapping[str, Any] | None) -> dict[str, Any]:
    """The state of a pod's container `main`: one of waiting, running, terminated with its content."""
    statuses = ((pod or {}).get("status") or {}).get("containerStatuses") or []
    return next((item.get("state") or {} for item in statuses if item["name"] == "main"), {})


def main_ended(pod: Mapping[str, Any] | None) -> dict[str, Any]:
    """How the container `main` of a pod ended; empty while it has not."""
    found: dict[str, Any] = main_status(pod).get("terminated") or {}
    return found


def memory_limit(node: Mapping[str, Any], pod: Mapping[str, Any] | None) -> int:
    """Bytes that the container `main` may use: from the pod, or from what the workflow made it of; 0 when unknown."""
    status = (pod or {}).get("status") or {}
    for container in (*_containers(node, pod), *(status.get("containerStatuses") or []), *_containers(node, None)):
        limit = ((container.get("resources") or {}).get("limits") or {}).get("memory")
        if container.get("name") == "main" and limit:
            return int(parse(limit))
    return 0


def _containers(node: Mapping[str, Any], pod: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    return list(spec_of(node, pod).get("containers") or [])


def spec_of(node: Mapping[str, Any], pod: Mapping[str, Any] | None) -> dict[str, Any]:
    """The spec of a pod; of one that is gone, the patch of it that the driver of Kubeflow handed to the workflow."""
    if pod is not None and pod.get("spec"):
        return dict(pod["spec"])
    for parameter in (node.get("inputs") or {}).get("parameters") or []:
        if parameter.get("name") == "pod-spec-patch":
            try:
                found = json.loads(parameter.get("value") or "{}")
            except ValueError:
                return {}
            return found if isinstance(found, dict) else {}
    return {}

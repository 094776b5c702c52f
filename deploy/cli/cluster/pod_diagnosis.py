"""Why pods are not ready: their states, events and logs, and the cause that these most likely mean."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from contracts.errors import PlatformError
from deploy.cli.cluster.capacity import read_nodes, too_large
from deploy.cli.cluster.kube import STEP_LABELS, Kube

_STUCK = 90.0  # seconds that a pod may be starting before it counts as in trouble
_RECENT = timedelta(minutes=10)  # since which a restart counts as trouble of now
_AGAIN = 3  # restarts, from which on a container that runs at this moment counts as one that does not stay up


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """One thing that is wrong: `what` (kind/name), its `state`, the likely `cause` with its `fix`, and what it said."""

    what: str
    state: str
    cause: str
    fix: str
    said: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


# (pattern in state, message or log) -> (cause, fix); the first one that matches is named.
_CAUSES: tuple[tuple[str, str, str], ...] = (
    (
        r"ErrImageNeverPull|ImagePullBackOff|ErrImagePull|InvalidImageName",
        "the node cannot get the image",
        "check its name and tag, image.registry and pull secrets; without a registry, load it into the node",
    ),
    (
        r"OOMKilled|exit code 137",
        "it used more memory than its limit",
        "raise resources.limits.memory and requests with it",
    ),
    (
        r"secret \"?([\w.-]+)\"? not found|couldn't find key",
        "a Secret that it reads is missing, or a key of it",
        "create the Secret before the release; its name and key are in the message",
    ),
    (
        r"configmap \"?([\w.-]+)\"? not found",
        "a ConfigMap that it reads is missing",
        "install or upgrade the release again",
    ),
    (
        r"Insufficient nvidia\.com/gpu|Insufficient amd\.com/gpu",
        "no node has a free GPU",
        "add one, or ask for none: gpu.count of the values, --train-gpus of the run",
    ),
    (
        r"Insufficient (cpu|memory)",
        "no node has that much processor or memory left",
        "lower its requests, or add a node",
    ),
    (
        r"unbound immediate PersistentVolumeClaims|ProvisioningFailed|waiting for first consumer|no persistent volumes",
        "its volume is not bound",
        "is there a default storage class, and room in it? kubectl get storageclass,pvc",
    ),
    (
        r"violates PodSecurity",
        "the namespace's Pod Security level refuses the pod",
        "the parts of Fairlead pass `restricted`: look for what the values add (extraVolumes, securityContext)",
    ),
    (
        r"bundle refused|bad_bundle|has sha256",
        "the bundle is not what the registry says: a file is damaged or foreign",
        "publish it again, or go back: fairlead rollback MODEL --env ENV",
    ),
    (
        r"golden",
        "the model answers its golden examples otherwise than when it was trained",
        "the image has other libraries than the training had: deploy with an image of the same release, or train again",
    ),
    (
        r"storage refused|InvalidAccessKeyId|SignatureDoesNotMatch|AccessDenied",
        "S3 refuses the credentials",
        "check the Secret that the values name (storage.existingSecret) against the S3 server's",
    ),
    (
        r"storage did not serve|EndpointConnectionError|not found: s3://",
        "the bundle cannot be read from S3",
        "check storage.endpoint and model.source, and that the network policy admits S3 (storage of networkPolicy)",
    ),
    (
        r"other code than the run was started with",
        "the image of the steps is of another commit",
        "build and push the image of this commit, or name another: fairlead run TASK --image IMAGE",
    ),
    (r"Liveness probe failed", "it stopped answering and is restarted", "see its log; slow start or overload"),
    (r"Readiness probe failed|startup probe failed", "it runs but says that it is not ready", "its own log says why"),
    (r"CrashLoopBackOff|Error|exit code", "its process ends with an error", "its log, above, says why"),
    (r"FailedScheduling|Unschedulable", "no node takes it", "see the message: selectors, taints or resources"),
)


def explain(text: str) -> tuple[str, str]:
    """The likely cause of what Kubernetes and a log say, and what to do."""
    for pattern, cause, fix in _CAUSES:
        if re.search(pattern, text, re.IGNORECASE):
            return cause, fix
    return "not known to this program", "read what it said, and its events: kubectl describe"


def pod_troubles(kube: Kube, selector: str = "") -> list[Trouble]:
    """What is wrong with the pods that match `selector` (labels as kubectl takes them; "" is all of the platform)."""
    found = []
    for pod in kube.ours("pods", selector):
        if pod["status"].get("phase") == "Succeeded" or pod["metadata"].get("deletionTimestamp"):
            continue
        if trouble := _pod(kube, pod):
            found.append(trouble)
    return found


def _pod(kube: Kube, pod: dict[str, Any]) -> Trouble | None:
    name = pod["metadata"]["name"]
    for status in _containers(pod):
        state = _wrong(status)
        if not state:
            continue
        # What it said before it ended; of one that runs again, its log of now says nothing of that.
        previous = "terminated" not in status.get("state", {}) and status.get("restartCount", 0) > 0
        said = kube.logs(name, status["name"], previous=previous)
        return _of_step(pod, _trouble(f"pod/{name} ({status['name']})", state, said or _last_event(kube, name)))
    conditions = {c["type"]: c for c in pod["status"].get("conditions", [])}
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        numbers = _numbers(kube, pod)
        state = ": ".join(filter(None, [scheduled.get("reason", "Pending"), numbers]))
        return _of_step(pod, _trouble(f"pod/{name}", state, scheduled.get("message", "")))
    ready = conditions.get("Ready", {})
    if ready.get("status") == "False":
        event = _last_event(kube, name)
        if event:
            container = pod["spec"]["containers"][0]["name"]
            return _trouble(f"pod/{name}", "not ready", "\n".join(filter(None, [event, kube.logs(name, container, 3)])))
    return None


def _numbers(kube: Kube, pod: dict[str, Any]) -> str:
    """What a pod without a node asks for beyond what nodes have; "" when nobody may look."""
    try:
        everywhere = kube.items("pods", "--all-namespaces")
        return too_large(pod["spec"], read_nodes(kube.items("nodes"), everywhere))
    except PlatformError:
        return ""


def _of_step(pod: dict[str, Any], trouble: Trouble) -> Trouble:
    """The pod of a step gets what its run is told, not the values of a chart."""
    if STEP_LABELS.isdisjoint(pod["metadata"].get("labels") or {}):
        return trouble
    if "OOMKilled" in trouble.state:
        return replace(trouble, fix="give the step more: resources.STEP.memory of its run, by --set")
    if "Insufficient" in trouble.said:
        return replace(trouble, fix="ask for less: resources.STEP.cpu or memory of its run, by --set; or add a node")
    return trouble


def _trouble(what: str, state: str, said: str) -> Trouble:
    cause, fix = explain(f"{state}\n{said}")
    return Trouble(what=what, state=state, cause=cause, fix=fix, said=readable(said))


def _containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    status = pod["status"]
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def _wrong(status: dict[str, Any]) -> str:
    """What is wrong with a container, "" when nothing is."""
    state = status.get("state", {})
    waiting = state.get("waiting", {})
    ended = state.get("terminated") or status.get("lastState", {}).get("terminated") or {}
    code = f"{ended.get('reason', 'ended')}, exit code {ended.get('exitCode')}" if ended.get("exitCode") else ""
    if waiting.get("reason") and waiting["reason"] not in ("PodInitializing", "ContainerCreating"):
        parts = [waiting["reason"], code, waiting.get("message", "")]
        return ": ".join(part for part in parts if part)
    if code and (state.get("terminated") or not status.get("ready")):
        return code
    return _restarting(status, code)


def _restarting(status: dict[str, Any], code: str) -> str:
    """Of a container that runs at this moment: whether it stays up."""
    last, times = status.get("lastState", {}).get("terminated") or {}, status.get("restartCount", 0)
    if not last.get("finishedAt") or not (times >= _AGAIN or last.get("reason") == "OOMKilled"):
        return ""
    ago = datetime.now(UTC) - datetime.fromisoformat(last["finishedAt"])
    if ago > _RECENT:
        return ""
    when = f"{int(ago.total_seconds())} s" if ago < timedelta(minutes=2) else f"{int(ago.total_seconds() // 60)} min"
    many = f"restarted {times} time{'s' if times != 1 else ''}, last {when} ago"
    return f"{many}: {code or 'ended, exit code 0'}"


def _last_event(kube: Kube, pod: str) -> str:
    """The newest warning about a pod."""
    events = kube.items("events", "--field-selector", f"involvedObject.name={pod},type=Warning")
    events.sort(key=lambda e: e.get("lastTimestamp") or e.get("eventTime") or "")
    return f"{events[-1].get('reason', '')}: {events[-1].get('message', '')}" if events else ""


def readable(said: str, lines: int = 6) -> str:
    """The end of a log; a JSON line of ours becomes its message."""
    made = []
    for line in said.splitlines()[-lines:]:
        made.append(_message(line)[:300])
    return "\n".join(made)


def _message(line: str) -> str:
    try:
        document = json.loads(line)
    except ValueError:
        return line
    if not isinstance(document, dict):
        return line
    error = document.get("error")
    if isinstance(error, dict):
        return "; ".join(str(error[key]) for key in ("headline", "detail", "fix") if error.get(key))
    given = [document.get(key) for key in ("message", "event", "headline", "detail", "fix")]
    return "; ".join(str(part) for part in given if part) or line

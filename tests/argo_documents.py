"""What the Kubernetes API shows of a `tests.argo.Scenario` at a moment: its Workflow, its pods and their logs."""

from __future__ import annotations

import json
import uuid
from typing import Any

from tests.argo import NEVER, Node, Scenario, Try, node_id, pod_name

_OURS = {f"fairlead.io/access-{part}": "true" for part in ("mlflow", "redis", "s3")}
_DRIVER_IMAGE, _LAUNCHER = "ghcr.io/kubeflow/kfp-driver:2.17.0", "ghcr.io/kubeflow/kfp-launcher:2.17.0"
_ARGOEXEC = "quay.io/argoproj/argoexec:v4.0.5"


def there(run: Scenario, t: float) -> bool:
    """Whether the workflow exists: it is deleted a while after its end."""
    return 0 <= t < run.ends + run.gone


def phase(node: Node, t: float) -> str:
    """A node's phase at a moment of its life."""
    if t >= node.ends:
        return node.phase
    if node.attempt is None:
        return "Running"
    return "Running" if t >= node.begins + node.attempt.waits + node.attempt.starts else "Pending"


def workflow(run: Scenario, t: float) -> dict[str, Any]:
    """The Workflow without its spec's templates."""
    alive = [node for node in run.nodes if node.begins <= t]
    nodes = {node_id(run.workflow, node.name): _node(run, node, alive, t) for node in alive}
    now, ended = phase(alive[0], t), t >= alive[0].ends
    conditions = [{"status": "False", "type": "PodRunning"}]
    conditions += [{"status": "True", "type": "Completed"}] if ended else []
    top = nodes[run.workflow]
    status = {
        "artifactGCStatus": {"notSpecified": True},
        "conditions": conditions,
        "finishedAt": top["finishedAt"],
        "phase": now,
        "progress": top["progress"],
        "resourcesDuration": {"cpu": 0, "memory": 11},
        "startedAt": run.time(0),
        "nodes": nodes,
    }
    labels = {
        "pipeline/runid": run.run_id,
        "workflows.argoproj.io/completed": str(ended).lower(),
        "workflows.argoproj.io/phase": now,
    }
    if ended:
        labels["pipeline/persistedFinalState"] = "true"
    spec: dict[str, Any] = {"entrypoint": "entrypoint", "serviceAccountName": "pipeline-runner"}
    if t >= run.cancelled:
        spec["activeDeadlineSeconds"] = 0
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {
            "annotations": {
                "pipelines.kubeflow.org/run_name": run.name,
                "workflows.argoproj.io/last-seen-version": "4434",
                "workflows.argoproj.io/pod-name-format": "v2",
            },
            "creationTimestamp": run.time(0),
            "generateName": f"{run.workflow.rpartition('-')[0]}-",
            "generation": int(t) + 1,
            "labels": labels,
            "name": run.workflow,
            "namespace": run.namespace,
            "resourceVersion": str(4000 + int(t)),
            "uid": _uid(run, ""),
        },
        "spec": spec,
        "status": status,
    }


def pods(run: Scenario, t: float) -> list[dict[str, Any]]:
    """The pods of the run that exist, with metadata, status and what they ask for."""
    found = [node for node in run.nodes if node.kind == "Pod" and node.begins <= t]
    return [_pod(run, node, t) for node in found if not _deleted(node, t)] if there(run, t) else []


def log(run: Scenario, pod: str, t: float) -> str:
    """What a pod's container main has written so far, with what KFP's launcher writes around it."""
    node = next(node for node in run.nodes if node.kind == "Pod" and pod_name(run.workflow, node) == pod)
    attempt = node.attempt or Try()
    began = node.begins + attempt.waits + attempt.starts
    if t < began:
        return ""
    launched = "I1127 15:24:28.304000      17 launcher_v2.go:187] input ComponentSpec:{"
    lines = [launched, *[line for at, line in attempt.log if began + at <= min(t, node.ends)]]
    if t >= node.ends and attempt.outcome == "error":
        lines.append("F1127 15:26:58.389852      17 main.go:59] failed to execute component: exit status 1")
        lines.append("Error: exit status 1")
    return "".join(f"{line}\n" for line in lines)


def archived(run: Scenario, t: float) -> dict[str, str]:
    """Keys and texts of the logs that Argo has copied to S3 (below ``kfp/logs``): of pods that ended by themselves."""
    names = [
        n for n in run.nodes if n.kind == "Pod" and n.ends <= t and (n.attempt or Try()).outcome in ("ok", "error")
    ]
    return {
        f"{run.workflow}/{pod_name(run.workflow, node)}/main.log": log(run, pod_name(run.workflow, node), t)
        for node in names
    }


def event_line(name: str, step: str, **fields: Any) -> str:
    """A line as a step prints it."""
    return json.dumps({"event": name, "step": step, **fields})


def _node(run: Scenario, node: Node, alive: list[Node], t: float) -> dict[str, Any]:
    now, ended = phase(node, t), t >= node.ends
    found: dict[str, Any] = {
        "displayName": node.name if "." not in node.name else node.name.rpartition(".")[2],
        "finishedAt": run.time(node.ends) if ended else None,
        "id": node_id(run.workflow, node.name),
        "name": node.name,
        "phase": now,
        "startedAt": run.time(node.begins),
        "templateName": node.template,
        "templateScope": f"local/{run.workflow}",
        "type": node.kind,
    }
    if node.boundary:
        found["boundaryID"] = node_id(run.workflow, node.boundary)
    if now != "Omitted":
        below = _below(node, alive)
        found["progress"] = f"{sum(phase(pod, t) == 'Succeeded' for pod in below)}/{len(below)}"
        if used := [pod for pod in below if ended and t >= pod.ends]:
            found["resourcesDuration"] = {"cpu": 0, "memory": 2 * len(used)}
    names = {each.name for each in alive}
    if children := [node_id(run.workflow, name) for name in node.children if name in names]:
        found["children"] = children
    if node.kind == "DAG" and ended:
        found["outboundNodes"] = [node_id(run.workflow, name) for name in node.outbound]
    if message := _message(node, t):
        found["message"] = message
    if node.kind == "Skipped":
        found["nodeFlag"] = {}
    if node.kind == "Pod":
        found["taskResultSynced"] = ended
        if node.template.endswith("impl"):
            found["nodeFlag"] = {"retried": True}
        if not _waits(node, t):
            found["hostNodeName"] = "node-1"
    return found


def _message(node: Node, t: float) -> str:
    if t >= node.ends or node.attempt is None:
        return node.message if t >= node.ends else ""
    if _waits(node, t):
        return f"{node.attempt.reason}: {node.attempt.message}"
    return "PodInitializing" if phase(node, t) == "Pending" else ""


def _waits(node: Node, t: float) -> bool:
    """Before its pod has a node; one whose image cannot be pulled has one, and is told apart by its reason."""
    return node.attempt is not None and t < min(node.begins + node.attempt.waits, node.ends)


def _below(node: Node, alive: list[Node]) -> list[Node]:
    """The pods that a node leads to along its children: Argo counts its progress and its use from them."""
    by_name = {each.name: each for each in alive}
    seen: set[str] = set()
    open_ = [node.name]
    while open_:
        name = open_.pop()
        if name in by_name and name not in seen:
            seen.add(name)
            open_ += by_name[name].children if node.kind != "Pod" else ()
    return [by_name[name] for name in seen if by_name[name].kind == "Pod"]


def _deleted(node: Node, t: float) -> bool:
    return node.attempt is not None and node.attempt.outcome in ("deleted", "lost") and t >= node.ends


def _pod(run: Scenario, node: Node, t: float) -> dict[str, Any]:
    driver = not node.template.endswith("impl")
    name = pod_name(run.workflow, node)
    labels = {} if driver else dict(_OURS)
    labels |= {
        "pipeline/runid": run.run_id,
        "pipelines.kubeflow.org/v2_component": "true",
        "workflows.argoproj.io/completed": str(t >= node.ends).lower(),
        "workflows.argoproj.io/workflow": run.workflow,
    }
    owner = {"apiVersion": "argoproj.io/v1alpha1", "blockOwnerDeletion": True, "controller": True, "kind": "Workflow"}
    image = _DRIVER_IMAGE if driver or node.task is None else node.task.image
    resources = {} if driver or node.task is None else node.task.resources
    containers = [{"name": "main", "image": image, "resources": resources}, {"name": "wait", "image": _ARGOEXEC}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "annotations": {
                "kubectl.kubernetes.io/default-container": "main",
                "pipelines.kubeflow.org/runtime-role": "driver" if driver else "launcher",
                "pipelines.kubeflow.org/v2_component": "true",
                "sidecar.istio.io/inject": "false",
                "workflows.argoproj.io/node-id": node_id(run.workflow, node.name),
                "workflows.argoproj.io/node-name": node.name,
            },
            "creationTimestamp": run.time(node.begins),
            "generation": 1,
            "labels": labels,
            "name": name,
            "namespace": run.namespace,
            "ownerReferences": [{**owner, "name": run.workflow, "uid": _uid(run, "")}],
            "resourceVersion": str(4000 + int(t)),
            "uid": _uid(run, name),
        },
        "spec": {"containers": containers, **({} if _waits(node, t) else {"nodeName": "node-1"})},
        "status": _status(run, node, image, driver, t),
    }


def _status(run: Scenario, node: Node, image: str, driver: bool, t: float) -> dict[str, Any]:
    attempt = node.attempt or Try()
    scheduled = node.begins if attempt.reason != "Unschedulable" else node.begins + attempt.waits
    if t < scheduled:
        why = {"message": attempt.message, "reason": "Unschedulable"}
        return {"conditions": [_condition(run, "PodScheduled", False, node.begins, **why)], "phase": "Pending"}
    runs, ended = node.begins + attempt.waits + attempt.starts, t >= node.ends
    now = phase(node, t) if node.phase != "Error" or not ended else "Failed"
    states = [_state(run, attempt, name, runs, node.ends, t) for name in ("main", "wait")]
    ready = not ended and t >= runs
    over = {"reason": "PodCompleted" if now == "Succeeded" else "PodFailed"}
    unready = over if ended else {"reason": "ContainersNotReady", "message": _UNREADY}
    changed = node.ends if ended else min(runs, t)
    status: dict[str, Any] = {
        "conditions": [
            _condition(run, "PodReadyToStartContainers", not ended, changed),
            _condition(run, "Initialized", True, changed, **(over if now == "Succeeded" else {})),
            _condition(run, "Ready", ready, changed, **({} if ready else unready)),
            _condition(run, "ContainersReady", ready, changed, **({} if ready else unready)),
            _condition(run, "PodScheduled", True, scheduled),
        ],
        "containerStatuses": [
            _container(name, of, state, ready)
            for (name, of), state in zip((("main", image), ("wait", _ARGOEXEC)), states, strict=True)
        ],
        "initContainerStatuses": [
            _container(name, of, _over(run, runs - 1, runs, 0, "Completed"), True)
            for name, of in (("init", _ARGOEXEC), ("kfp-launcher", _LAUNCHER))[: 1 if driver else 2]
        ],
        "observedGeneration": 1,
        "phase": now,
        "startTime": run.time(scheduled),
    }
    if attempt.outcome == "evicted" and ended:
        disrupted = _condition(run, "DisruptionTarget", True, node.ends, reason="TerminationByKubelet")
        status["conditions"].insert(0, {**disrupted, "message": node.message})
        status |= {"reason": "Evicted", "message": node.message}
    if attempt.outcome == "lost" and runs + attempt.seconds <= t < node.ends:
        status |= {"reason": "NodeLost", "message": "Node node-1 which was running the pod is unresponsive"}
        status["conditions"][2] = _condition(run, "Ready", False, runs + attempt.seconds, reason="NodeNotReady")
    return status


_UNREADY = "containers with unready status: [wait main]"


def _condition(run: Scenario, kind: str, true: bool, at: float, **more: str) -> dict[str, Any]:
    named = {"lastProbeTime": None, "lastTransitionTime": run.time(at), "observedGeneration": 1}
    return {**named, "status": "True" if true else "False", "type": kind, **more}


def _container(name: str, image: str, state: dict[str, Any], ready: bool) -> dict[str, Any]:
    kept = {"image": image, "lastState": {}, "name": name, "ready": ready, "restartCount": 0}
    return {**kept, "started": "running" in state, "state": state}


def _state(run: Scenario, attempt: Try, name: str, runs: float, ends: float, t: float) -> dict[str, Any]:
    if t < runs:
        pulls = name == "main" and attempt.waits > 0 and attempt.reason != "Unschedulable" and t < runs - attempt.starts
        waiting = {"reason": attempt.reason, "message": attempt.message} if pulls else {"reason": "PodInitializing"}
        return {"waiting": waiting}
    if t < ends:
        return {"running": {"startedAt": run.time(runs)}}
    if name != "main":
        return _over(run, runs, ends, 0, "Completed")
    reason = {"ok": "Completed", "oom": "OOMKilled"}.get(attempt.outcome, "Error")
    return _over(run, runs, ends, attempt.code, reason)


def _over(run: Scenario, began: float, ended: float, code: int, reason: str) -> dict[str, Any]:
    times = {"startedAt": run.time(began), "finishedAt": run.time(ended if ended != NEVER else began)}
    container = f"containerd://{uuid.uuid5(uuid.NAMESPACE_OID, f'{run.run_id}{began}').hex}"
    return {"terminated": {"containerID": container, "exitCode": code, "reason": reason, **times}}


def _uid(run: Scenario, name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{run.run_id}/{name}"))

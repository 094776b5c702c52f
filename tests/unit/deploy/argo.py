"""Workflows and pods as Argo and Kubernetes describe the runs of Kubeflow Pipelines, in small."""

from __future__ import annotations

from typing import Any

NAME = "full-abcde"
TEMPLATE = "metadata-0-3-retry-system-container-impl"


class Workflow:
    """A workflow that grows: add tasks in order, then take `document` and `pods`."""

    def __init__(self, run: str = "r-1", phase: str = "Running") -> None:
        self.run, self.phase, self.message = run, phase, ""
        self.nodes: dict[str, dict[str, Any]] = {}
        self.pods: list[dict[str, Any]] = []
        self._clock = 0
        self.node("root-driver", "Pod", "Succeeded", template="system-dag-driver")
        self.node("root", "DAG", phase, template="root")

    @property
    def document(self) -> dict[str, Any]:
        labels = {"pipeline/runid": self.run, "workflows.argoproj.io/phase": self.phase}
        status = {"phase": self.phase, "startedAt": _time(0), "nodes": self.nodes, "message": self.message}
        metadata = {"name": NAME, "labels": labels}
        return {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": metadata, "status": status}

    def node(self, path: str, kind: str, phase: str, message: str = "", template: str = TEMPLATE) -> dict[str, Any]:
        self._clock += 2
        ended = phase not in ("Pending", "Running")
        number = 1000 + len(self.nodes)
        made: dict[str, Any] = {
            "id": f"{NAME}-{number}",
            "name": f"{NAME}.{path}",
            "displayName": path.rpartition(".")[2],
            "type": kind,
            "phase": phase,
            "message": message,
            "templateName": template,
            "startedAt": _time(self._clock),
            "finishedAt": _time(self._clock + 4) if ended else None,
        }
        self.nodes[made["id"]] = {key: value for key, value in made.items() if value != ""}
        return made

    def driver(self, task: str, phase: str = "Succeeded", message: str = "") -> None:
        self.node(f"root.{task}-driver", "Pod", phase, message, "system-container-driver")

    def cached(self, task: str) -> None:
        self.driver(task)
        self.node(f"root.{task}", "DAG", "Succeeded", template="metadata-0-3-retry-system-container-executor")
        self.node(f"root.{task}.executor", "Skipped", "Skipped", "when 'true != true' evaluated false")

    def omitted(self, task: str) -> None:
        for path in (f"root.{task}-driver", f"root.{task}"):
            self.node(path, "Skipped", "Omitted", "omitted: depends condition not met")

    def task(self, task: str, *tries: str | tuple[str, str], phase: str = "", pods: bool = True, **pod: Any) -> str:
        """A task whose tries have these phases (and messages); returns the name of its last pod."""
        made = [one if isinstance(one, tuple) else (one, "") for one in tries]
        phase = phase or (made[-1][0] if made[-1][0] != "Pending" else "Running")
        self.driver(task)
        self.node(f"root.{task}", "DAG", phase, template="metadata-0-3-retry-system-container-executor")
        more = "No more retries left" if phase == "Failed" else ""
        self.node(f"root.{task}.executor", "Retry", phase, more)
        name = ""
        for number, (state, message) in enumerate(made):
            node = self.node(f"root.{task}.executor({number})", "Pod", state, message)
            name = f"{NAME}-{TEMPLATE}-{node['id'].rpartition('-')[2]}"
            if pods:
                last = number == len(made) - 1
                self.pods.append(pod_of(name, node["name"], state, self.run, **(pod if last else {})))
        return name

    def everything(self) -> dict[str, Any]:
        """As ``kubectl get workflows,pods -o json`` answers."""
        return {"kind": "List", "items": [self.document, *self.pods]}


def pod_of(
    name: str,
    node: str,
    phase: str,
    run: str = "r-1",
    *,
    state: dict[str, Any] | None = None,
    requests: dict[str, str] | None = None,
    limits: dict[str, str] | None = None,
    conditions: list[dict[str, Any]] | None = None,
    **status: Any,
) -> dict[str, Any]:
    """A pod of a step; `state` is the state of its container `main`."""
    ended = {"exitCode": 0 if phase == "Succeeded" else 1, "reason": "Completed" if phase == "Succeeded" else "Error"}
    usual = {"Pending": {}, "Running": {"running": {"startedAt": _time(0)}}}.get(phase, {"terminated": ended})
    main = {"name": "main", "image": "registry/pipelines:1", "state": usual if state is None else state}
    waits = {"name": "wait", "state": {}}
    scheduled = [{"type": "PodScheduled", "status": "True"}]
    resources = {key: value for key, value in (("requests", requests), ("limits", limits)) if value}
    containers = [{"name": "main", "resources": resources}, {"name": "wait", "resources": {}}]
    return {
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"pipeline/runid": run},
            "annotations": {"workflows.argoproj.io/node-name": node},
        },
        "spec": {"containers": containers, "initContainers": [{"name": "kfp-launcher"}]},
        "status": {
            "phase": phase,
            "conditions": scheduled if conditions is None else conditions,
            "containerStatuses": [main, waits] if main["state"] else [],
            **status,
        },
    }


def unscheduled(message: str, reason: str = "Unschedulable") -> list[dict[str, Any]]:
    """The condition of a pod that no node takes."""
    return [{"type": "PodScheduled", "status": "False", "reason": reason, "message": message}]


def _time(second: int) -> str:
    return f"2026-01-02T03:{4 + second // 60:02d}:{second % 60:02d}Z"

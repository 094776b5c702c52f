"""A run of Kubeflow Pipelines as the events of a local run: states from its API, progress from the pods' logs."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

from contracts.errors import PlatformError
from deploy.cli.cluster.troubles import explain

_POLL = 2.0  # seconds
_ENDED = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}


class Follower:
    """Turns what changes in a run into events (see pipelines/translate.py).

    Attributes:
        steps: status and seconds of each.  results: what finished steps said.  error: why the run failed.
    """

    def __init__(self, client: Any, address: str, run: str, order: tuple[str, ...]) -> None:
        self._client, self._address, self._run, self._order = client, address.rstrip("/"), run, order
        self._read: dict[str, int] = {}  # pod -> characters of its log that were seen
        self._tail: dict[str, list[str]] = {}
        self.steps: dict[str, dict[str, Any]] = {step: {"status": "waiting", "seconds": None} for step in order}
        self.results: dict[str, Any] = {}
        self.error: PlatformError | None = None
        self.state = ""

    def follow(self, show: Callable[[dict[str, Any]], None], poll: float = _POLL) -> str:
        """Until the run has ended; returns its last state."""
        while True:
            run = self._client.get_run(self._run)
            for event in self.look(run):
                show(event)
            self.state = str(run.state)
            if self.state in _ENDED:
                if self.state != "SUCCEEDED" and self.error is None:
                    self.error = self._unexplained(run)
                return self.state
            time.sleep(poll)

    def look(self, run: Any) -> Iterator[dict[str, Any]]:
        """What is new."""
        tasks = list((run.run_details and run.run_details.task_details) or [])
        by_name = {str(task.display_name).replace("-", "_"): task for task in tasks}
        by_pod = {task.pod_name: task for task in tasks if task.pod_name}
        by_id = {task.task_id: task for task in tasks}
        for step in self._order:
            if step in by_name and self.steps[step]["status"] not in ("finished", "cached", "failed"):
                yield from self._step(step, by_name[step], _pods(by_name[step], by_pod, by_id))

    def _step(self, step: str, task: Any, pods: list[Any]) -> Iterator[dict[str, Any]]:
        known, state = self.steps[step], str(task.state)
        ran = [pod for pod in pods if str(pod.state) not in ("SKIPPED", "PENDING", "None", "")]
        if ran and known["status"] == "waiting":
            known["status"] = "running"
            yield {"event": "step_started", "step": step}
        said: dict[str, Any] = {}
        for pod in ran:
            for event in self._log(pod.pod_name):
                kind = event.pop("event")
                if kind in ("step_finished", "step_failed"):
                    said = {"event": kind, **event}
                elif kind != "step_started":
                    yield {"event": kind, **event, "step": step}
        if state == "SUCCEEDED":
            if not ran:
                known.update(status="cached", seconds=0.0)
                yield {"event": "step_cached", "step": step, "seconds": 0.0}
                return
            known.update(status="finished", seconds=said.get("seconds", _seconds(task)))
            self.results[step] = said.get("result")
            yield {"event": "step_finished", "step": step, "seconds": known["seconds"], "result": said.get("result")}
        elif state in ("FAILED", "CANCELED"):
            known.update(status="failed", seconds=_seconds(task))
            self.error = self._failure(step, task, said, ran)
            yield {"event": "step_failed", "step": step, "seconds": known["seconds"], "error": self.error.as_dict()}

    def _log(self, pod: str) -> Iterator[dict[str, Any]]:
        """Events of the complete lines that a pod has written since the last look."""
        url = f"{self._address}/apis/v1alpha1/runs/{self._run}/nodes/{pod}/log"
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                text = answer.read().decode(errors="replace")
        except (urllib.error.URLError, OSError):  # not started yet, or already taken away
            return
        begin = self._read.get(pod, 0)
        end = text.rfind("\n") + 1
        self._read[pod] = max(begin, end)
        for line in text[begin:end].splitlines():
            event = _event(line)
            if event is not None:
                yield event
            elif line.strip():
                self._tail[pod] = [*self._tail.get(pod, []), line.strip()][-12:]
                yield {"event": "log", "message": line.strip()[:1000]}

    def _failure(self, step: str, task: Any, said: dict[str, Any], pods: list[Any]) -> PlatformError:
        """What the step said itself, or the end of its log and what the platform says."""
        if "error" in said:
            return PlatformError.from_dict(said["error"])
        tail = [line for pod in pods for line in self._tail.get(pod.pod_name, [])]
        message = str(getattr(task.error, "message", "") or "")
        cause, fix = explain("\n".join([message, *tail]))
        return PlatformError(
            f"step {step} ended without a word: {cause}",
            detail="\n  ".join(filter(None, [message, *tail])) or "it wrote no log",
            fix=f"{fix}; its pods and events: fairlead diagnose",
            code="step_died",
        )

    def _unexplained(self, run: Any) -> PlatformError:
        message = str(getattr(run.error, "message", "") or "")
        cause, fix = explain(message)
        if self.state == "CANCELED":
            cause, fix = "it was cancelled", "start it again"
        return PlatformError(f"the run ended: {self.state}: {cause}", detail=message, fix=fix, code="run_failed")


def _pods(task: Any, by_pod: dict[str, Any], by_id: dict[str, Any]) -> list[Any]:
    """The pods in which a step itself runs: the leaves below its node, drivers left out."""
    found, open_, seen = [], [task], set()
    while open_:
        node = open_.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        below = [by_pod.get(c.pod_name or "") or by_id.get(c.task_id or "") for c in node.child_tasks or []]
        children = [child for child in below if child is not None and _of_step(child)]
        open_ += children
        if not children and node.pod_name and (node is not task or not node.child_tasks):
            found.append(node)
    return found


def _of_step(node: Any) -> bool:
    return str(node.display_name).startswith("executor")


def _seconds(task: Any) -> float | None:
    if not task.start_time or not task.end_time:
        return None
    return round(float((task.end_time - task.start_time).total_seconds()), 1)


def _event(line: str) -> dict[str, Any] | None:
    at = line.find('{"event"')
    if at < 0:
        return None
    try:
        event = json.loads(line[at:])
    except json.JSONDecodeError:
        return None
    return event if isinstance(event, dict) else None

"""How the steps of a run stand, from its Argo workflow, its pods and what the steps left in the store.

The nodes of a workflow are told apart by their names, which are paths: ``full-4sc9g.root.train.executor(1)`` is the
second try of task `train`. A task carries one step or several.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from contracts.errors import PlatformError
from deploy.cli.cluster.capacity import Node
from deploy.cli.cluster.pending_pods import Waiting, waits_for
from deploy.cli.cluster.pod_failures import failure, killed_for_memory, main_status, said_by
from pipelines.grouping import GROUPS
from pipelines.steps.calls import CALLS

DONE = frozenset({"finished", "cached"})
_ENDED = frozenset({"Succeeded", "Failed", "Error", "Skipped", "Omitted"})
_BAD = frozenset({"Failed", "Error"})
_EXECUTOR = re.compile(r"\.root\.(?:.+\.)?([^.]+)\.executor(?:\((\d+)\))?$")
_SEARCH = re.compile(r"search(?:-\d+)?")  # pods that try out settings before the training
_ADDED = re.compile(r"added(?:_(\d+))?")
_OF_POD = re.compile(r"(.+?)-(?:metadata|system)-")
_DRIVER = re.compile(r"\.root\.(?:.+\.)?([^.]+)-driver$")


@dataclass(frozen=True, kw_only=True)
class Try:
    """One pod of a task. `number` is 1 for the first."""

    number: int
    node: Mapping[str, Any]
    pod: Mapping[str, Any] | None = None

    @property
    def phase(self) -> str:
        """The workflow's word, or the pod's where it is ahead: the controller needs a moment to notice."""
        said = str(self.node.get("phase") or "")
        state = main_status(self.pod)
        if said in ("", "Pending") and "running" in state:
            return "Running"
        ended = state.get("terminated") or {}
        return "Failed" if said in ("", "Pending", "Running") and ended.get("exitCode") else said


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task of Kubeflow with its tries, the phase of the whole, and the node of its driver."""

    name: str
    phase: str = ""
    tries: tuple[Try, ...] = ()
    driver: Try | None = None
    steps: tuple[str, ...] = ()

    @property
    def done(self) -> bool:
        """Whether all its steps are; the last pod ends a moment before the controller notices."""
        last = self.tries[-1].phase if self.tries else ""
        return self.phase in ("Skipped", "Succeeded") or last == "Succeeded"

    @property
    def left(self) -> bool:
        """Whether nothing of it runs any more and all went well, which its pod knows seconds before the controller."""
        ended = main_status(self.tries[-1].pod).get("terminated") if self.tries else None
        return self.done or (ended is not None and ended.get("exitCode") == 0)


@dataclass(frozen=True, kw_only=True)
class Step:
    """How one step stands. status: waiting, running, finished, cached or failed, as of a run on one machine."""

    status: str = "waiting"
    started: str = ""
    seconds: float | None = None
    tries: int = 0
    waiting: Waiting | None = None
    result: Any = None
    error: PlatformError | None = None
    pod: str = ""
    memory_peak: int | None = None


@dataclass(frozen=True, kw_only=True)
class State:
    """A look at a run. phase is the workflow's; `error` is why it failed, as far as it can be told by now."""

    workflow: str = ""
    phase: str = ""
    tasks: tuple[Task, ...] = ()
    steps: Mapping[str, Step] = field(default_factory=dict)
    error: PlatformError | None = None
    cancelled: bool = False
    finished: str = ""

    @property
    def ended(self) -> bool:
        return self.phase in _ENDED


def read_state(
    workflow: Mapping[str, Any],
    pods: Sequence[Mapping[str, Any]],
    records: Mapping[str, Mapping[str, Any]],
    order: Sequence[str],
    nodes: Sequence[Node] = (),
    tails: Mapping[str, Sequence[str]] | None = None,
) -> State:
    """What is known of a run now.

    Args:
        workflow: the object of Argo.  pods: those that it has still.
        records: the documents of steps (pipelines/io/record.py), by step.
        order: the steps of the workflow in order.
        nodes: those of the cluster, for what waits for room.
        tails: the last lines of a pod's log, by pod, for a step that ended without a word.
    """
    status = workflow.get("status") or {}
    phase = str(status.get("phase") or "Pending")
    tasks = _with_found(tuple(_tasks(status.get("nodes") or {}, pods, order)), records, order)
    steps: dict[str, Step] = {step: _without_task(step, phase, records, not tasks) for step in order}
    for task in tasks:
        steps.update(_steps(task, records, nodes, tails or {}))
    if "train" in steps and steps["train"].status == "waiting" and (began := _searching(tasks)):
        steps["train"] = Step(status="running", started=began)
    errors = [step.error for step in steps.values() if step.error]
    error = errors[0] if errors else _of_workflow(status, tasks) if phase in _BAD else None
    if phase == "Running" and all(step.status in DONE for step in steps.values()) and all(task.left for task in tasks):
        phase = "Succeeded"
    cancelled = phase != "Succeeded" and _is_cancelled(workflow.get("spec") or {})
    if cancelled:
        error = PlatformError("the run was cancelled", code="cancelled")
    return State(
        workflow=str(workflow["metadata"]["name"]),
        phase=phase,
        tasks=tasks,
        steps=steps,
        error=error,
        cancelled=cancelled,
        finished=str(status.get("finishedAt") or ""),
    )


def _searching(tasks: Sequence[Task]) -> str:
    """When the pods of a search began that try out settings; "" when none runs."""
    pods = [task.tries[-1] for task in tasks if _SEARCH.fullmatch(task.name) and task.tries]
    return min((str(pod.node.get("startedAt") or "") for pod in pods if pod.phase == "Running"), default="")


def _is_cancelled(spec: Mapping[str, Any]) -> bool:
    """Whether Kubeflow was told to end the run: it sets the deadline to nothing."""
    return spec.get("activeDeadlineSeconds") == 0 or spec.get("shutdown") in ("Terminate", "Stop")


def _without_task(step: str, phase: str, records: Mapping[str, Mapping[str, Any]], gone: bool) -> Step:
    """A step of which the workflow says nothing (yet), or any more: with `gone`, its record is all there is."""
    record = records.get(step)
    if record is None:
        # A step that ran has left a record: of others nothing was to be done.
        return Step(status="cached" if records else "finished") if gone and phase == "Succeeded" else Step()
    known, status = _recorded(record), str(record["status"])
    if (status == "failed" and not known["error"]) or (status == "running" and phase in _BAD):
        known["error"] = failure(step, {}, None)
        status = "failed"
    known["error"] = known["error"] if status == "failed" else None
    return Step(**known, status=status, tries=int(record.get("attempt") or 1))


def workflow_of(pod: str) -> str:
    """The workflow that a pod belongs to, by the pod's name."""
    found = _OF_POD.match(pod)
    return found[1] if found else ""


def pod_name(node: Mapping[str, Any], workflow: str) -> str:
    """The name of the pod of a node: the workflow's, the template's and the number of the node's id."""
    number = str(node.get("id") or "").rpartition("-")[2]
    return "-".join(part for part in (workflow, str(node.get("templateName") or ""), number) if part)


def _tasks(
    nodes: Mapping[str, Mapping[str, Any]], pods: Sequence[Mapping[str, Any]], order: Sequence[str]
) -> Iterator[Task]:
    """The tasks in the order of their start."""
    by_node = {(pod["metadata"].get("annotations") or {}).get("workflows.argoproj.io/node-name"): pod for pod in pods}
    tries: dict[str, list[Try]] = {}
    phases: dict[str, str] = {}
    drivers: dict[str, Try] = {}
    starts: dict[str, str] = {}
    for node in nodes.values():
        path, kind = str(node.get("name") or ""), node.get("type")
        if found := _EXECUTOR.search(path):
            name = found[1]
            if kind == "Pod":
                tries.setdefault(name, []).append(_try(node, by_node.get(path), found[2]))
            if kind != "Pod" or found[2] is None:
                phases[name] = str(node.get("phase") or "")
        elif (found := _DRIVER.search(path)) and node.get("phase") != "Omitted":
            name = found[1]
            drivers[name] = _try(node, by_node.get(path), None)
        else:
            continue
        starts[name] = min(starts.get(name, "9"), str(node.get("startedAt") or "9"))
    carried = _carried(starts, order)
    for name in sorted(starts, key=lambda name: starts[name]):
        made = sorted(tries.get(name, ()), key=lambda one: one.number)
        yield Task(
            name=name, phase=phases.get(name, ""), tries=tuple(made), driver=drivers.get(name), steps=carried[name]
        )


def _with_found(
    tasks: tuple[Task, ...], records: Mapping[str, Mapping[str, Any]], order: Sequence[str]
) -> tuple[Task, ...]:
    """The tasks with the steps that their pods have run beside those that their names tell."""
    taken = {step for task in tasks for step in task.steps}
    pods = {step: str(record.get("pod") or "") for step, record in records.items() if step not in taken}
    found = []
    for task in tasks:
        own = {pod_name_of(one) for one in task.tries}
        more = {step for step, pod in pods.items() if pod in own}
        found.append(replace(task, steps=tuple(step for step in order if step in more or step in task.steps)))
    return tuple(found)


def _try(node: Mapping[str, Any], pod: Mapping[str, Any] | None, number: str | None) -> Try:
    return Try(number=int(number or 0) + 1, node=node, pod=pod)


def _carried(names: Mapping[str, Any], order: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The steps of each task: it is called as a step, as a group of steps, as groups that are joined, or otherwise."""
    called = {name: name.replace("-", "_") for name in names}
    each = any(name in order and name not in GROUPS for name in called.values())  # train is a group too
    found = {name: (known,) if each and known in order else _named(known, order) for name, known in called.items()}
    taken = {step for steps in found.values() for step in steps}
    rest = tuple(step for step in order if step not in taken)
    return {name: steps or (() if _SEARCH.fullmatch(name) else rest) for name, steps in found.items()}


def _named(name: str, order: Sequence[str]) -> tuple[str, ...]:
    if found := _ADDED.fullmatch(name):
        number = int(found[1] or 1)
        return tuple(step for step in order if step not in CALLS)[number - 1 : number]
    words = name.split("_")
    if any(word not in GROUPS for word in words):
        return ()
    steps, taken, own = [], {step for word in words for step in GROUPS[word]}, False
    for step in order:  # one that a task adds is where the step before it is
        own = step in taken if step in CALLS else own
        steps += [step] if own else []
    return tuple(steps)


def _steps(
    task: Task,
    records: Mapping[str, Mapping[str, Any]],
    nodes: Sequence[Node],
    tails: Mapping[str, Sequence[str]],
) -> Iterator[tuple[str, Step]]:
    """How each step of a task stands: done as its record says it, and the first that is not as its pod says."""
    last = task.tries[-1] if task.tries else task.driver
    current = True  # the first step that is not done is the one that its pod is about
    for step in task.steps:
        record = records.get(step)
        over = task.phase in _BAD and step == task.steps[-1]  # Kubeflow fails after the last step is done
        if task.done or (record and record["status"] in DONE and not (over and current)):
            yield step, _done(task, record)
        elif current and last is not None:
            current = False
            yield step, _current(step, task, last, record, nodes, tails)
        else:
            yield step, Step()


def _done(task: Task, record: Mapping[str, Any] | None) -> Step:
    """A step that came to its end, with what it said, or else with the times of its pod."""
    tries = len(task.tries) if len(task.steps) == 1 else 0  # of several, nobody knows which began in which try
    if record and record["status"] in DONE:
        return Step(**_recorded(record), status=record["status"], tries=tries)
    if task.phase == "Skipped":
        return Step(status="cached", seconds=0.0)
    alone = task.tries[-1] if len(task.steps) == 1 and task.tries else None
    return Step(
        status="finished",
        seconds=_taken(alone.node) if alone else None,
        started=str(alone.node.get("startedAt") or "") if alone else "",
        tries=tries,
        pod=pod_name_of(task.tries[-1]) if task.tries else "",
    )


def _current(
    step: str,
    task: Task,
    last: Try,
    record: Mapping[str, Any] | None,
    nodes: Sequence[Node],
    tails: Mapping[str, Sequence[str]],
) -> Step:
    """The step that a task's pod is about."""
    tries, pod = len(task.tries), pod_name_of(last)
    known = _recorded(record) if record else {}
    own = known.get("error")
    final = bool(record and record.get("final"))
    hopeless = last.phase in _BAD and (last is task.driver or killed_for_memory(last.node, last.pod))
    if task.phase in _BAD or hopeless or (own and final):
        error = own if _its_own(own, last) else failure(step, last.node, last.pod, tails.get(pod, ()), tries)
        shown = {**known, "error": error, "pod": pod or known.get("pod", "")}
        shown["seconds"] = known.get("seconds") or _taken(last.node)
        return Step(**shown, status="failed", tries=tries)
    if last is task.driver:
        waiting = waits_for(last.node, last.pod, nodes) if last.phase in ("", "Pending") else None
        return Step(waiting=waiting or Waiting(kind="starting", text="Kubeflow prepares it"))
    if last.phase in _BAD:
        text = f"is tried again after try {last.number}: {said_by(last.node, last.pod) or 'it failed'}"
        return Step(waiting=Waiting(kind="retry", text=text), tries=tries, pod=pod)
    heard = record is not None and record["status"] == "running" and int(record.get("attempt") or 1) == last.number
    if last.phase in ("", "Pending") and not heard:
        return Step(waiting=waits_for(last.node, last.pod, nodes), tries=tries, pod=pod)
    begun = str(known.get("started") or last.node.get("startedAt") or "")
    return Step(status="running", started=begun, tries=tries, pod=pod)


def _its_own(error: PlatformError | None, last: Try) -> bool:
    """Whether what the step said is why it failed: a process that memory ran out for says odd things at its end."""
    return error is not None and not (error.code == "unexpected" and killed_for_memory(last.node, last.pod))


def _recorded(record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `Step` that a record knows."""
    said = record.get("error")
    return {
        "started": record.get("started") or "",
        "seconds": record.get("seconds"),
        "result": record.get("result"),
        "error": PlatformError.from_dict(said) if isinstance(said, dict) and "headline" in said else None,
        "pod": record.get("pod") or "",
        "memory_peak": record.get("memory_peak"),
    }


def _of_workflow(status: Mapping[str, Any], tasks: Sequence[Task]) -> PlatformError:
    """Why a workflow failed of which no step did: its root could not be started, or it was ended from outside."""
    nodes = (status.get("nodes") or {}).values()
    bad = [node for node in nodes if node.get("type") == "Pod" and node.get("phase") in _BAD]
    said = [f"{node.get('displayName')}: {node.get('message') or node['phase']}" for node in bad]
    message = str(status.get("message") or "")
    detail = "\n  ".join(filter(None, [message, *said]))
    return PlatformError(
        "Kubeflow could not run the workflow" if not tasks else "the run was ended from outside",
        detail=detail,
        fix="what is wrong with the platform: fairlead diagnose",
        code="run_failed",
    )


def pod_name_of(one: Try) -> str:
    """The name of a try's pod, also when it is gone."""
    if one.pod is not None:
        return str(one.pod["metadata"]["name"])
    return pod_name(one.node, str(one.node.get("name") or "").partition(".")[0])


def _taken(node: Mapping[str, Any]) -> float | None:
    """Seconds from start to end of a node."""
    started, finished = node.get("startedAt"), node.get("finishedAt")
    if not started or not finished:
        return None
    return round((moment(finished) - moment(started)).total_seconds(), 1)


def moment(text: Any) -> datetime:
    """A time of Kubernetes or of a record."""
    found = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    return found if found.tzinfo else found.replace(tzinfo=UTC)

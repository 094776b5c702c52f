"""The scripted life of a run on Kubeflow Pipelines: Argo's workflow and its nodes at any moment of it.

A `Scenario` says what becomes of each task of a run; what the workflow looks like `t` seconds after its start follows
from it alone. Its shape is that of real runs (see tests/unit/deploy/test_kfp_stand_in.py, which compares the two).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

NEVER = math.inf
IMPL, EXECUTOR = "metadata-0-3-retry-system-container-impl", "metadata-0-3-retry-system-container-executor"
DRIVER, ROOT_DRIVER = "system-container-driver", "system-dag-driver"
STEPS = ("ingest", "validate", "materialise", "build-dataset", "train", "evaluate", "gate", "register")
_NEEDS = {
    "validate": ("ingest",),
    "materialise": ("ingest", "validate"),
    "build-dataset": ("validate", "materialise"),
    "train": ("build-dataset",),
    "evaluate": ("ingest", "build-dataset", "train"),
    "gate": ("build-dataset", "evaluate"),
    "register": ("evaluate", "gate"),
}
SHORT_OF_CPU = (
    "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: "
    "1 Preemption is not helpful for scheduling."
)
EVICTED = (
    "The node was low on resource: memory. Threshold quantity: 100Mi, available: 52Mi. Container main was using 913Mi, "
    "request is 512Mi, has larger consumption of memory. "
)


@dataclass(frozen=True, kw_only=True)
class Try:
    """One pod of a task: how long it waits, initializes and runs (seconds), and how it ends.

    outcome: ok, error, oom, evicted, deleted (by somebody, or with its node), lost (its node stops to answer at the
    end of `seconds`, and the pod is deleted `lost_for` later).
    log: lines with their time after the start of `main`.
    """

    waits: float = 0.0
    reason: str = "Unschedulable"  # or ImagePullBackOff: why it waits
    message: str = SHORT_OF_CPU
    starts: float = 2.0
    seconds: float = 2.0
    outcome: str = "ok"
    exit_code: int = 0  # 0: the usual one of the outcome
    lost_for: float = 30.0
    log: tuple[tuple[float, str], ...] = ()

    @property
    def code(self) -> int:
        """Exit code of `main`."""
        usual = {"ok": 0, "error": 1, "oom": 137, "evicted": 137}
        return self.exit_code or usual.get(self.outcome, 143)

    @property
    def lasts(self) -> float:
        return self.waits + self.starts + self.seconds + (self.lost_for if self.outcome == "lost" else 0.0)


@dataclass(frozen=True, kw_only=True)
class Task:
    """A KFP task. needs: the tasks before it, None for the one before in the scenario's list. cached: KFP skips it.

    cacheable: a success is written down for KFP's cache, which shows in the API as a nameless task.
    """

    name: str
    needs: tuple[str, ...] | None = None
    tries: tuple[Try, ...] = (Try(),)
    driver: Try = Try()
    cached: bool = False
    cacheable: bool = True
    backoff: float = 5.0
    image: str = "ghcr.io/fairlead/pipelines:0.1.0"
    resources: dict[str, dict[str, str]] = field(default_factory=lambda: {"limits": {"memory": "2Gi"}})


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node of the workflow over time; None or NEVER where something does not come to be."""

    name: str
    template: str
    kind: str  # DAG, Pod, Retry, Skipped
    boundary: str = ""
    begins: float = 0.0
    ends: float = NEVER
    phase: str = "Succeeded"
    message: str = ""
    children: tuple[str, ...] = ()
    outbound: tuple[str, ...] = ()
    attempt: Try | None = None
    task: Task | None = None


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A run and its tasks.

    Attributes:
        cancelled: when somebody ends it.  gone: seconds after its end when the workflow and its pods are deleted.
        actions: what happens beside the cluster's own doing (a step writes its record), each at its time.
    """

    tasks: tuple[Task, ...]
    run_id: str = "de497525-4284-47f1-9670-855a45e1df46"
    workflow: str = "full-4jqqs"
    name: str = "news-20261127-152407-47fe"
    namespace: str = "fairlead"
    driver: Try = Try()
    began: datetime = datetime(2026, 11, 27, 15, 24, 9, tzinfo=UTC)
    settles: float = 2.0  # Argo's pause between one node and the next
    cancelled: float = NEVER
    gone: float = NEVER
    actions: tuple[tuple[float, Callable[[Scenario], None]], ...] = ()

    def with_task(self, name: str, **changes: Any) -> Scenario:
        """The same with one task changed."""
        found = [replace(task, **changes) if task.name == name else task for task in self.tasks]
        return replace(self, tasks=tuple(found))

    def needs(self, index: int) -> tuple[str, ...]:
        """Names of the tasks that the one at `index` waits for."""
        task = self.tasks[index]
        if task.needs is not None:
            return task.needs
        return (self.tasks[index - 1].name,) if index else ()

    @cached_property
    def nodes(self) -> list[Node]:
        """Every node that the run will have, in the order of their beginning."""
        found = list(_nodes(self))
        if self.cancelled == NEVER:
            return found
        return [_cut(node, self.cancelled) for node in found if node.begins <= self.cancelled]

    @property
    def ends(self) -> float:
        """When the workflow has ended."""
        return self.nodes[0].ends

    def time(self, t: float) -> str:
        """A moment as Kubernetes and KFP write it."""
        return (self.began + timedelta(seconds=t)).strftime("%Y-%m-%dT%H:%M:%SZ")

    def node(self, path: str) -> Node:
        """By path below the workflow: ``root.train.executor(0)``."""
        return next(node for node in self.nodes if node.name == f"{self.workflow}.{path}")


def each(**changes: dict[str, Any]) -> tuple[Task, ...]:
    """A KFP task for each step of the full workflow; changes by name, with _ for -."""
    named = {name.replace("_", "-"): value for name, value in changes.items()}
    uncached = ("ingest", "gate", "register")
    return tuple(
        Task(**{"name": name, "needs": _NEEDS.get(name, ()), "cacheable": name not in uncached, **named.get(name, {})})
        for name in STEPS
    )


def grouped(*names: str, **changes: dict[str, Any]) -> tuple[Task, ...]:
    """Tasks in a row that carry several steps each, ``grouped("prepare", "train", "judge")``."""
    return tuple(Task(**{"name": name, "cacheable": False, **changes.get(name, {})}) for name in names)


def of_spec(spec: dict[str, Any], **changes: Any) -> Scenario:
    """Every task of a compiled pipeline (its IR) succeeds."""
    tasks = spec["root"]["dag"]["tasks"]
    ordered: list[str] = []
    while len(ordered) < len(tasks):
        ordered += [n for n in tasks if n not in ordered and set(tasks[n].get("dependentTasks", [])) <= set(ordered)]
    made = [
        Task(
            name=name,
            needs=tuple(tasks[name].get("dependentTasks", [])),
            cacheable=bool(tasks[name].get("cachingOptions", {}).get("enableCache")),
        )
        for name in ordered
    ]
    return Scenario(tasks=tuple(made), **changes)


def node_id(workflow: str, name: str) -> str:
    """Argo's id of a node: the workflow's name and FNV-1a of the node's path."""
    if name == workflow:
        return workflow
    value = 0x811C9DC5
    for byte in name.encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return f"{workflow}-{value}"


def pod_name(workflow: str, node: Node) -> str:
    """The pod of a node of kind Pod."""
    return f"{workflow}-{node.template}-{node_id(workflow, node.name).removeprefix(workflow + '-')}"


def _nodes(run: Scenario) -> Iterable[Node]:
    top = f"{run.workflow}.root"
    settled = run.driver.lasts + run.settles
    drove = Node(
        name=f"{top}-driver",
        template=ROOT_DRIVER,
        kind="Pod",
        boundary=run.workflow,
        children=(top,),
        attempt=run.driver,
        **_end(0.0, run.driver),
    )
    below: list[Node] = []
    ends: dict[str, float] = {}
    failed: dict[str, bool] = {}
    if run.driver.outcome == "ok":
        for index, task in enumerate(run.tasks):
            before = run.needs(index)
            start = max([ends[name] for name in before], default=settled)
            later = tuple(f"{top}.{t.name}-driver" for i, t in enumerate(run.tasks) if task.name in run.needs(i))
            if any(failed[name] for name in before):
                made = list(_omitted(top, task, later, start))
            else:
                made = list(_task(top, task, later, start, run.settles))
            ends[task.name], failed[task.name] = made[-1].ends, made[-1].phase != "Succeeded"
            below += made
    bad = any(failed.values()) or run.driver.outcome != "ok"
    end = max(ends.values(), default=settled)
    needed = {name for i in range(len(run.tasks)) for name in run.needs(i)}
    outbound = tuple(name for node in below if node.task and node.task.name not in needed for name in node.outbound)
    shared = {"kind": "DAG", "ends": end, "phase": "Failed" if bad else "Succeeded", "outbound": outbound}
    firsts = tuple(f"{top}.{task.name}-driver" for i, task in enumerate(run.tasks) if not run.needs(i))
    yield Node(name=run.workflow, template="entrypoint", children=(f"{top}-driver",), **shared)  # type: ignore[arg-type]
    yield drove
    if run.driver.outcome == "ok":
        yield Node(name=top, template="root", boundary=run.workflow, begins=settled, children=firsts, **shared)  # type: ignore[arg-type]
    else:
        yield _skipped(top, "root", run.workflow, settled)
    yield from below


def _task(top: str, task: Task, later: tuple[str, ...], start: float, settles: float) -> Iterable[Node]:
    """The driver, the executors and, last, the task's own node."""
    name = f"{top}.{task.name}"
    yield Node(
        name=f"{name}-driver",
        template=DRIVER,
        kind="Pod",
        boundary=top,
        children=(name,),
        attempt=task.driver,
        **_end(start, task.driver),
    )
    at = start + task.driver.lasts + settles
    if task.driver.outcome != "ok":
        yield replace(_skipped(name, EXECUTOR, top, at), outbound=(name,), task=task, children=later)
        return
    common: dict[str, Any] = {"template": IMPL, "boundary": name}
    outer: dict[str, Any] = {"name": name, "template": EXECUTOR, "kind": "DAG", "boundary": top, "begins": at}
    inner = f"{name}.executor"
    if task.cached:
        message = "when 'true != true' evaluated false"
        skipped: dict[str, Any] = {"begins": at, "ends": at, "phase": "Skipped", "message": message, "children": later}
        yield Node(name=inner, kind="Skipped", **skipped, **common)
        yield Node(**outer, ends=at, children=(inner,), outbound=(inner,), task=task)
        return
    pods = []
    begins = at
    for index, attempt in enumerate(task.tries):
        last = index == len(task.tries) - 1
        pods.append(
            Node(
                name=f"{inner}({index})",
                kind="Pod",
                children=later if last else (),
                attempt=attempt,
                task=task,
                **common,
                **_end(begins, attempt),
            )
        )
        begins = pods[-1].ends + task.backoff
    end = pods[-1].ends + settles
    good = task.tries[-1].outcome == "ok"
    ended: dict[str, Any] = {"ends": end, "phase": "Succeeded" if good else "Failed"}
    message = "" if good else "No more retries left"
    names = tuple(pod.name for pod in pods)
    yield Node(name=inner, kind="Retry", begins=at, children=names, message=message, **common, **ended)
    yield from pods
    yield Node(**outer, **ended, children=(inner,), outbound=(names[-1],), task=task)


def _omitted(top: str, task: Task, later: tuple[str, ...], at: float) -> Iterable[Node]:
    name = f"{top}.{task.name}"
    yield replace(_skipped(f"{name}-driver", DRIVER, top, at), children=(name,))
    yield replace(_skipped(name, EXECUTOR, top, at), children=later, outbound=(name,), task=task)


def _skipped(name: str, template: str, boundary: str, at: float) -> Node:
    message = "omitted: depends condition not met"
    made = Node(name=name, template=template, kind="Skipped", boundary=boundary, begins=at, ends=at)
    return replace(made, phase="Omitted", message=message)


def _end(begins: float, attempt: Try) -> dict[str, Any]:
    phase, message = {
        "ok": ("Succeeded", ""),
        "error": ("Failed", f"main: Error (exit code {attempt.code})"),
        "oom": ("Failed", f"main: OOMKilled (exit code {attempt.code})"),
        "evicted": ("Failed", EVICTED),
        "deleted": ("Error", "pod deleted"),
        "lost": ("Error", "pod deleted"),
    }[attempt.outcome]
    return {"begins": begins, "ends": begins + attempt.lasts, "phase": phase, "message": message}


def _cut(node: Node, at: float) -> Node:
    """The node in a workflow that was ended at `at`."""
    if node.ends <= at:
        return node
    message = "Step exceeded its deadline" if node.kind == "Pod" else ""
    return replace(node, ends=at + 1.0, phase="Failed", message=message)

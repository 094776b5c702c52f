"""Whether the nodes can take what a run asks for: said before the run is submitted, with the numbers.

What fits no node, however empty, would wait for ever and is refused; what fits only when other pods have ended waits,
and is said. Who may not list nodes or pods starts the run without this check.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from contracts.quantities import cpu, memory, parse, shown

if TYPE_CHECKING:
    from deploy.cli.cluster.kube import Kube
    from pipelines.resources import Placement, Resources
    from pipelines.steps.calls import Call

_BESIDE = {"cpu": Decimal("0.01"), "memory": Decimal(64 * 2**20)}  # Argo's container in the pod of a step
_HARD = ("NoSchedule", "NoExecute")
_SOON = "--request-timeout=10s"
_ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True, kw_only=True)
class Ask:
    """Pods of one kind: `pods` of them at once, each with `needs`; `step` is the one whose settings would change it."""

    name: str
    step: str
    needs: Resources
    pods: int = 1

    def amounts(self) -> dict[str, Decimal]:
        """What one pod requests."""
        asked = {"cpu": parse(self.needs.cpu), "memory": parse(self.needs.memory)}
        return {**asked, self.needs.accelerator: Decimal(self.needs.gpus)} if self.needs.gpus else asked

    def room(self, node: Node, *, empty: bool) -> int:
        """How many such pods a node takes: now, or once nothing else runs on it."""
        return _room(node, self.amounts(), empty=empty) if node.admits(self.needs) else 0


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node: what it can give at all, and what its pods have asked for."""

    name: str
    allocatable: Mapping[str, Decimal]
    taken: Mapping[str, Decimal] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: Sequence[Mapping[str, str]] = ()
    usable: bool = True

    def free(self, resource: str) -> Decimal:
        """How much is left for another pod."""
        return max(Decimal(0), self.allocatable.get(resource, Decimal(0)) - self.taken.get(resource, Decimal(0)))

    def admits(self, needs: Resources) -> bool:
        """Whether selector and taints let a pod with these needs in."""
        if any(self.labels.get(key) != value for key, value in needs.node_selector.items()):
            return False
        hard = [taint for taint in self.taints if taint.get("effect") in _HARD]
        return self.usable and all(any(_bears(item, taint) for item in needs.tolerations) for taint in hard)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What becomes of an ask: `verdict` is fits, waits or never; `setting` would make one that never does."""

    ask: Ask
    verdict: str
    says: str = ""
    setting: str = ""


def asks_of(graph: Mapping[str, Call], where: Placement) -> list[Ask]:
    """What the tasks of a workflow with these steps ask for."""
    from pipelines.grouping import needs_of, plan

    return [
        Ask(name=task.name, step=task.steps[0] if len(task.steps) == 1 else "all", needs=needs_of(task.like, where))
        for task in plan(graph, where)
    ]


def fits(asks: Iterable[Ask], nodes: Sequence[Node]) -> list[Fit]:
    """Each ask against all nodes; asks are not added up, for the pods of a run follow each other."""
    return [_fit(ask, nodes) for ask in asks]


def _fit(ask: Ask, nodes: Sequence[Node]) -> Fit:
    admitted = [node for node in nodes if node.admits(ask.needs)]
    if not admitted:
        return Fit(ask=ask, verdict="never", says=_not_admitted(ask, nodes))
    wanted = ask.amounts()
    missing = [name for name, amount in wanted.items() if amount and max(_most(n, name) for n in admitted) < amount]
    for name in missing:
        best = max(_most(node, name) for node in admitted)
        asked, there = two_amounts(name, wanted[name], best)
        has = f"the largest node has {there}" if best or name in _BESIDE else "no node that may take it has any"
        less = _setting(ask, name, best)
        return Fit(ask=ask, verdict="never", says=f"{ask.name} asks for {asked}; {has}", setting=less)
    places = sum(_room(node, wanted, empty=True) for node in admitted)
    if places < ask.pods:
        return Fit(ask=ask, verdict="never", says=f"{_asks_all(ask)}; the nodes have room for {places} of {ask.pods}")
    places = sum(_room(node, wanted, empty=False) for node in admitted)
    if places >= ask.pods:
        return Fit(ask=ask, verdict="fits")
    for name, amount in wanted.items():
        freest = max(_left(node, name) for node in admitted)
        if amount and freest < amount:
            asked, there = two_amounts(name, amount, freest)
            return Fit(
                ask=ask, verdict="waits", says=f"{ask.name} waits: asks {asked}, the freest node has {there} free"
            )
    room = f"{places} of {ask.pods} pods fit now" if ask.pods > 1 else "no node has all of it free at once"
    return Fit(ask=ask, verdict="waits", says=f"{_asks_all(ask).replace(' asks for ', ' waits: asks ')}; {room}")


def _most(node: Node, resource: str) -> Decimal:
    return max(Decimal(0), node.allocatable.get(resource, Decimal(0)) - _BESIDE.get(resource, Decimal(0)))


def _left(node: Node, resource: str) -> Decimal:
    return max(Decimal(0), node.free(resource) - _BESIDE.get(resource, Decimal(0)))


def _room(node: Node, wanted: Mapping[str, Decimal], *, empty: bool) -> int:
    """How many such pods the node takes."""
    counts = []
    for name, amount in wanted.items():
        whole = amount + _BESIDE.get(name, Decimal(0))
        there = node.allocatable.get(name, Decimal(0)) if empty else node.free(name)
        counts += [int(there // whole)] if amount else []
    pods = node.allocatable.get("pods") if empty else node.free("pods") if "pods" in node.allocatable else None
    return min([*counts, *([int(pods)] if pods is not None else [])], default=0)


def _asks_all(ask: Ask) -> str:
    each = " and ".join(_amount(name, amount) for name, amount in ask.amounts().items())
    return f"{ask.name} asks for {f'{ask.pods} pods with ' if ask.pods > 1 else ''}{each}"


def _amount(resource: str, amount: Decimal) -> str:
    if resource == "memory":
        return shown(amount)
    if resource == "cpu":
        cores = f"{round(amount, 2).normalize():f}"
        return f"{cores} core{'' if cores == '1' else 's'}"
    return f"{amount.normalize():f} {resource}"


def two_amounts(resource: str, one: Decimal, other: Decimal) -> tuple[str, str]:
    """Two amounts as people read them, in the unit in which they are not the same."""
    if resource == "memory" and shown(one) == shown(other):
        return shown(one, "Mi"), shown(other, "Mi")
    return _amount(resource, one), _amount(resource, other)


def _setting(ask: Ask, resource: str, most: Decimal) -> str:
    """The setting that asks for what the largest node has, in round numbers."""
    key = resource if resource in _BESIDE else "gpus"
    if resource == "memory":
        unit = 2**30 if most >= 2**30 else 2**20
        return f"resources.{ask.step}.{key}={memory(int(most // unit) * unit)}"
    value = cpu(most // Decimal("0.1") / 10) if resource == "cpu" else str(int(most))
    return f"resources.{ask.step}.{key}={value}"


def _not_admitted(ask: Ask, nodes: Sequence[Node]) -> str:
    wanted = ", ".join(f"{key}={value}" for key, value in ask.needs.node_selector.items())
    matching = [n for n in nodes if all(n.labels.get(k) == v for k, v in ask.needs.node_selector.items())]
    if wanted and not matching:
        return f"{ask.name} asks for a node with {wanted}; none of {len(nodes)} nodes has it"
    taints = sorted({f"{t['key']}={t.get('value', '')}:{t['effect']}" for n in matching for t in n.taints if n.usable})
    why = f"taints: {', '.join(taints)}" if taints else "they take no new pods"
    return f"{ask.name} may run on none of {len(matching)} nodes; {why}"


def _bears(toleration: Mapping[str, str], taint: Mapping[str, str]) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint["effect"]:
        return False
    if toleration.get("key") and toleration["key"] != taint["key"]:
        return False
    return toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", "")


def read_nodes(nodes: Iterable[Mapping[str, Any]], pods: Iterable[Mapping[str, Any]]) -> list[Node]:
    """Nodes as Kubernetes describes them, with what the pods that have not ended ask of each."""
    taken: dict[str, dict[str, Decimal]] = {}
    for pod in pods:
        name = pod["spec"].get("nodeName", "")
        if name and pod.get("status", {}).get("phase") not in _ENDED:
            _add(taken.setdefault(name, {}), {**requests_of(pod["spec"]), "pods": Decimal(1)})
    return [
        Node(
            name=node["metadata"]["name"],
            allocatable={key: parse(value) for key, value in node["status"].get("allocatable", {}).items()},
            taken=taken.get(node["metadata"]["name"], {}),
            labels=node["metadata"].get("labels") or {},
            taints=[t for t in node["spec"].get("taints") or [] if not _passing(t)],
            usable=not node["spec"].get("unschedulable") and _ready(node),
        )
        for node in nodes
    ]


def _passing(taint: Mapping[str, str]) -> bool:
    return taint["key"] in ("node.kubernetes.io/unschedulable", "node.kubernetes.io/not-ready")  # said by `usable`


def _ready(node: Mapping[str, Any]) -> bool:
    conditions = node["status"].get("conditions") or []
    return all(item["status"] == "True" for item in conditions if item["type"] == "Ready")


def requests_of(spec: Mapping[str, Any]) -> dict[str, Decimal]:
    """What the scheduler counts for a pod: its containers and sidecars, or its largest init container, and overhead."""
    running: dict[str, Decimal] = {}
    largest: dict[str, Decimal] = {}
    for container in spec.get("initContainers") or []:
        asked = _of_container(container)
        if container.get("restartPolicy") == "Always":
            _add(running, asked)
            asked = dict(running)
        else:
            _add(asked, running)
        largest = {key: max(asked.get(key, Decimal(0)), largest.get(key, Decimal(0))) for key in {*asked, *largest}}
    for container in spec.get("containers") or []:
        _add(running, _of_container(container))
    whole = {key: max(running.get(key, Decimal(0)), largest.get(key, Decimal(0))) for key in {*running, *largest}}
    _add(whole, {key: parse(value) for key, value in (spec.get("overhead") or {}).items()})
    return whole


def _of_container(container: Mapping[str, Any]) -> dict[str, Decimal]:
    resources = container.get("resources") or {}
    asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {key: parse(value) for key, value in asked.items()}


def _add(into: dict[str, Decimal], more: Mapping[str, Decimal]) -> None:
    for key, amount in more.items():
        into[key] = into.get(key, Decimal(0)) + amount


def too_large(spec: Mapping[str, Any], nodes: Sequence[Node]) -> str:
    """What a pod that waits asks for and the nodes do not have; "" when none of it is too much for the freest."""
    open_ = [node for node in nodes if node.usable]
    for name, amount in requests_of(spec).items():
        free = max((node.free(name) for node in open_), default=Decimal(0))
        if amount and free < amount:
            whole = max((node.allocatable.get(name, Decimal(0)) for node in open_), default=Decimal(0))
            asked, there = two_amounts(name, amount, free)
            return f"asks for {asked}; the freest node has {there} free, the largest {_amount(name, whole)}"
    return ""


def look(namespace: str, context: str) -> list[Node]:
    """The nodes of a cluster with what is taken of them.

    Raises:
        PlatformError: the cluster does not answer, or does not let its nodes be listed.
    """
    from deploy.cli.cluster.kube import Kube

    return _nodes(Kube(namespace, context))


def _nodes(kube: Kube) -> list[Node]:
    pods = kube.items("pods", "--all-namespaces", _SOON)
    return read_nodes(kube.items("nodes", _SOON), pods)


def check(kube: Kube, asks: Sequence[Ask], growing: bool = False) -> list[str]:
    """What a person should know before the run starts: what will wait, or that nobody could look.

    growing: nodes are added when pods ask for them, so none is too small for good.

    Raises:
        PlatformError: ``code="does_not_fit"``: pods that no node can take.
    """
    try:
        nodes = _nodes(kube)
    except PlatformError as err:
        why = next((line for line in err.detail.splitlines() if line.strip()), err.headline).strip()
        return [f"not checked whether the nodes are large enough: {why[:200]}"]
    found = fits(asks, nodes)
    never = [fit for fit in found if fit.verdict == "never"]
    if never and not growing:
        smaller = " ".join(f"--set {fit.setting}" for fit in never if fit.setting)
        less = f"ask for what there is: {smaller}" if smaller else "ask for less, or add nodes"
        raise PlatformError(
            "no node of the cluster can take this run" if len(never) == 1 else "no node can take parts of this run",
            detail="\n  ".join(fit.says for fit in never),
            fix=f"{less}; where nodes are added by themselves: --set workflow.nodes=growing",
            code="does_not_fit",
            steps=[fit.ask.name for fit in never],
        )
    return [fit.says for fit in found if fit.verdict != "fits"]

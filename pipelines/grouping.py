"""Which steps share a KFP task: those that ask for nothing of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from contracts.errors import PlatformError
from pipelines.resources import Placement, Resources, joined
from pipelines.steps.calls import Call

GROUPS: dict[str, tuple[str, ...]] = {
    "prepare": ("ingest", "validate", "materialise", "build_dataset"),
    "train": ("train",),
    "judge": ("evaluate", "gate", "register"),
}


@dataclass(frozen=True)
class TaskPlan:
    """A KFP task: its component, by which Kubeflow calls it, and the steps that it runs in this order.

    like: for each step the one whose needs it has; of those that a task adds, the one that they are after.
    """

    component: str
    steps: tuple[str, ...]
    like: tuple[str, ...]

    @property
    def name(self) -> str:
        """How Kubeflow's workflow calls it."""
        return self.component.replace("_", "-")


def plan(graph: Mapping[str, Call], where: Placement) -> list[TaskPlan]:
    """The tasks of a workflow with the steps of `graph`: each is in exactly one of them, in this order."""
    like = {step: call.like or step for step, call in graph.items()}
    if where.tasks == "each" or len(graph) == 1:
        return [TaskPlan("added" if graph[step].like else step, (step,), (like[step],)) for step in graph]
    found: list[tuple[str, ...]] = []
    for members in GROUPS.values():
        steps = tuple(step for step in graph if like[step] in members)
        alike = found and where.tasks == "few" and len({_places(each, like, where) for each in (found[-1], steps)}) == 1
        if where.search_pods and "train" in (*steps, *(found[-1] if found else ())):
            alike = False  # the pods of a search come between what is before the training and it
        if steps and alike:
            found[-1] += steps
        elif steps:
            found.append(steps)
    return [TaskPlan(_component(steps), steps, tuple(like[step] for step in steps)) for steps in found]


def _component(steps: Sequence[str]) -> str:
    """By what the task has to show: the data, the model, both, or nothing."""
    shows = [name for name in ("prepare", "judge") if set(steps) & set(GROUPS[name])]
    return "prepare_train_judge" if len(shows) == 2 else shows[0] if shows else "train"


def needs_of(steps: Sequence[str], where: Placement) -> Resources:
    """What a task needs that runs `steps`: the most that one of them does.

    Raises:
        PlatformError: ``code="bad_config"``: two of them want to be on different nodes.
    """
    needs = [where.needs_of(step) for step in steps]
    if len(steps) == 1:
        return needs[0]
    asking = {
        step: need for step, need in zip(steps, needs, strict=True) if need.place()[:-1] != Resources().place()[:-1]
    }
    if len({need.place()[:-1] for need in asking.values()}) > 1:
        raise PlatformError(
            f"steps of one task ask for different nodes: {', '.join(asking)}",
            detail=f"they share a pod: {', '.join(steps)}",
            fix="give each step a pod of its own: --set workflow.tasks=each",
            code="bad_config",
        )
    # Each step has an entry in the cache of `pipelines.io.step_cache`, so KFP's has none for them together.
    return replace(joined([*asking.values(), *needs]), cached=False)


def _places(steps: Sequence[str], like: Mapping[str, str], where: Placement) -> frozenset[object]:
    return frozenset(where.needs_of(like[step]).place() for step in steps)

"""Which steps share a KFP task on a cluster: those that ask for nothing of their own."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from contracts.errors import PlatformError
from pipelines.resources import Placement, Resources, joined

GROUPS: dict[str, tuple[str, ...]] = {
    "prepare": ("ingest", "validate", "materialise", "build_dataset"),
    "train": ("train",),
    "judge": ("evaluate", "gate", "register"),
}


@dataclass(frozen=True)
class TaskPlan:
    """A KFP task: its component, by which Kubeflow calls it, and the steps that it runs in this order."""

    component: str
    steps: tuple[str, ...]

    @property
    def name(self) -> str:
        """How Kubeflow's workflow calls it."""
        return self.component.replace("_", "-")


def plan(order: Collection[str], where: Placement) -> list[TaskPlan]:
    """The tasks of a workflow with the steps `order`: each step is in exactly one of them, in this order."""
    if where.tasks == "each" or not where.cluster or len(order) == 1:
        return [TaskPlan(step, (step,)) for step in order]
    found: list[tuple[str, ...]] = []
    for members in GROUPS.values():
        steps = tuple(step for step in members if step in order)
        if steps and found and where.tasks == "few" and _places(found[-1], where) == _places(steps, where):
            found[-1] += steps
        elif steps:
            found.append(steps)
    return [TaskPlan(_component(steps), steps) for steps in found]


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
    # Each step has an entry in the cache of `pipelines.step_cache`, so KFP's has none for them together.
    return replace(joined([*asking.values(), *needs]), cached=False)


def _places(steps: Sequence[str], where: Placement) -> set[object]:
    return {where.needs_of(step).place() for step in steps}

"""What a run cost: hours of cores, memory and GPUs by step, and money at the prices of the profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from contracts.quantities import parse

if TYPE_CHECKING:
    from deploy.cli.cluster.cluster_settings import Prices
    from pipelines.resources import Resources

_HOUR, _GIB = 3600.0, 2.0**30


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """One step: what was held for it, and what that costs.

    Each is max(request, use) times hours, as OpenCost (opencost.io, specification) counts a container.

    Attributes:
        core_hours, gib_hours, gpu_hours: held.  idle_core_hours, idle_gib_hours: of these, asked for and not used.
        money: at the prices of the profile; None without prices.  idle_money: of that, for what is idle.
    """

    step: str
    seconds: float
    core_hours: float
    gib_hours: float
    gpu_hours: float
    idle_core_hours: float
    idle_gib_hours: float
    money: float | None
    idle_money: float | None


def step_cost(
    name: str, step: Mapping[str, Any], asked: Resources | None, prices: Prices | None, gpus: int = 0
) -> StepCost:
    """What one step of a record cost; `asked`: what its pod requested, None on this machine, where nothing is.

    What a step used is what it said; of one that said nothing, all that was asked for is taken for used, and here one
    core.
    """
    hours = float(step.get("seconds") or 0.0) / _HOUR
    cores, memory = (float(parse(asked.cpu)), float(parse(asked.memory)) / _GIB) if asked else (0.0, 0.0)
    cpu, peak = step.get("cpu_seconds"), step.get("memory_peak")
    used_cores = (cores if asked else 1.0) * hours if cpu is None else float(cpu) / _HOUR
    used_memory = (memory if peak is None else float(peak) / _GIB) * hours
    held = max(cores * hours, used_cores), max(memory * hours, used_memory), gpus * hours
    idle = held[0] - used_cores, held[1] - used_memory
    return StepCost(
        step=name,
        seconds=float(step.get("seconds") or 0.0),
        core_hours=held[0],
        gib_hours=held[1],
        gpu_hours=held[2],
        idle_core_hours=idle[0],
        idle_gib_hours=idle[1],
        money=_money(prices, *held),
        idle_money=_money(prices, *idle, 0.0),
    )


def _money(prices: Prices | None, core_hours: float, gib_hours: float, gpu_hours: float) -> float | None:
    if prices is None:
        return None
    return core_hours * prices.core_hour + gib_hours * prices.gib_hour + gpu_hours * prices.gpu_hour


def run_cost(run: Mapping[str, Any], prices: Prices | None, *, on_cluster: bool) -> dict[str, Any]:
    """What a run cost, as a document: in all, and by step; a step from the cache costs nothing.

    Not counted: waiting for a node or an image, disks, and what serves the model.
    """
    from deploy.cli.cluster_runs.step_resources import step_needs
    from pipelines.run import Run

    asked = step_needs(Run.model_validate({**run}), {}) if on_cluster else {}
    steps = [
        step_cost(name, step, need := asked.get(name), prices, need.gpus if need else 0)
        for name, step in (run.get("steps") or {}).items()
        if step.get("status") in ("finished", "failed")
    ]
    hours = ("core_hours", "gib_hours", "gpu_hours", "idle_core_hours", "idle_gib_hours")
    total: dict[str, float | None] = {name: sum(getattr(step, name) for step in steps) for name in hours}
    for name in ("money", "idle_money"):
        total[name] = None if prices is None else sum(getattr(step, name) for step in steps)
    return {**total, "currency": prices.currency if prices else None, "steps": [asdict(step) for step in steps]}


def in_words(cost: Mapping[str, Any]) -> str:
    """One line: ``0.0123 EUR; 0.21 core hours, 0.48 GiB hours``."""
    hours = {"core hours": cost["core_hours"], "GiB hours": cost["gib_hours"], "GPU hours": cost["gpu_hours"]}
    said = ", ".join(f"{value:.3g} {name}" for name, value in hours.items() if value)
    money = "" if cost["money"] is None else f"{cost['money']:.3g} {cost['currency']}"
    return "; ".join(filter(None, [money, said]))

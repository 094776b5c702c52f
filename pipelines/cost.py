"""What a run cost: hours of cores, memory and GPUs by step, and money at the prices of the profile."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import Field

from contracts.quantities import parse
from contracts.settings import Settings

if TYPE_CHECKING:
    from contracts.endpoints import Endpoints

VARIABLE = "FAIRLEAD_STEP_PRICES"
"""Environment of steps: the prices of the profile that asked for the run, and what their pods asked for (`told`)."""

_HOUR, _GIB = 3600.0, 2.0**30


class Prices(Settings):
    """What an hour of a machine costs. A price of zero is one: what it is of costs nothing."""

    currency: str = Field("EUR", description="in which the prices are; it is only shown")
    core_hour: float = Field(0.0, ge=0, allow_inf_nan=False, description="of one core (vCPU)")
    gib_hour: float = Field(0.0, ge=0, allow_inf_nan=False, description="of one GiB of memory")
    gpu_hour: float = Field(0.0, ge=0, allow_inf_nan=False, description="of one GPU")


class Asks(Protocol):
    """What a pod asks for, as Kubernetes writes it."""

    @property
    def cpu(self) -> str: ...

    @property
    def memory(self) -> str: ...

    @property
    def gpus(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class _Asked:
    cpu: str
    memory: str
    gpus: int


@dataclass(frozen=True, kw_only=True)
class Held:
    """What was held, and what that costs.

    Each is max(request, use) times hours, as OpenCost (opencost.io, specification) counts a container.

    Attributes:
        core_hours, gib_hours, gpu_hours: held.  idle_core_hours, idle_gib_hours: of these, asked for and not used.
        money: at the prices of the profile; None without prices.  idle_money: of that, for what is idle.
    """

    core_hours: float
    gib_hours: float
    gpu_hours: float
    idle_core_hours: float
    idle_gib_hours: float
    money: float | None
    idle_money: float | None


@dataclass(frozen=True, kw_only=True)
class StepCost(Held):
    """What one step held."""

    step: str
    seconds: float


def step_cost(name: str, step: Mapping[str, Any], asked: Asks | None, prices: Prices | None, gpus: int = 0) -> StepCost:
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
    return StepCost(step=name, seconds=float(step.get("seconds") or 0.0), **priced_hours(held, idle, prices))


def priced_hours(held: tuple[float, float, float], idle: tuple[float, float], prices: Prices | None) -> dict[str, Any]:
    """The fields of `Held`, of hours of cores, GiB and GPUs, and of those of cores and GiB that were idle."""

    def money(cores: float, memory: float, gpus: float = 0.0) -> float | None:
        if prices is None:
            return None
        return cores * prices.core_hour + memory * prices.gib_hour + gpus * prices.gpu_hour

    names = ("core_hours", "gib_hours", "gpu_hours", "idle_core_hours", "idle_gib_hours", "money", "idle_money")
    return dict(zip(names, (*held, *idle, money(*held), money(*idle)), strict=True))


def cost_of(steps: Mapping[str, Any], prices: Prices | None, asked: Mapping[str, Asks]) -> dict[str, Any]:
    """What a run cost, as a document: in all, and by step; a step from the cache costs nothing.

    Not counted: waiting for a node or an image, disks, and what serves the model.

    Args:
        steps: of the run's record.  asked: what the pod of each asked for; empty on this machine.
    """
    found = [
        step_cost(name, step, need := asked.get(name), prices, need.gpus if need else 0)
        for name, step in steps.items()
        if step.get("status") in ("finished", "failed")
    ]
    hours = ("core_hours", "gib_hours", "gpu_hours", "idle_core_hours", "idle_gib_hours")
    total: dict[str, float | None] = {name: sum(getattr(step, name) for step in found) for name in hours}
    for name in ("money", "idle_money"):
        total[name] = None if prices is None else sum(getattr(step, name) for step in found)
    return {**total, "currency": prices.currency if prices else None, "steps": [asdict(step) for step in found]}


def in_words(cost: Mapping[str, Any]) -> str:
    """One line: ``0.0123 EUR; 0.21 core hours, 0.48 GiB hours``."""
    hours = {"core hours": cost["core_hours"], "GiB hours": cost["gib_hours"], "GPU hours": cost["gpu_hours"]}
    said = ", ".join(f"{value:.3g} {name}" for name, value in hours.items() if value)
    money = "" if cost["money"] is None else f"{cost['money']:.3g} {cost['currency']}"
    return "; ".join(filter(None, [money, said]))


def told(prices: Prices | Mapping[str, Any] | None, asked: Mapping[str, Asks] | None = None) -> str:
    """What steps find in `VARIABLE`."""
    each = {step: {"cpu": one.cpu, "memory": one.memory, "gpus": one.gpus} for step, one in (asked or {}).items()}
    given = prices.model_dump() if isinstance(prices, Prices) else dict(prices or {})
    return json.dumps({"prices": given or None, "asked": each}, sort_keys=True)


@contextmanager
def priced(prices: Mapping[str, Any]) -> Iterator[None]:
    """Steps, which are processes of this one or this one itself, find the prices of a run in their environment."""
    os.environ[VARIABLE] = told(prices)
    try:
        yield
    finally:
        del os.environ[VARIABLE]


def cost_so_far(where: Endpoints, run: str, environ: Mapping[str, str]) -> dict[str, Any] | None:
    """What the steps of a run that have ended took, for the step that writes the card; None where no record says it.

    Returns:
        The document of `cost_of` at the prices of `VARIABLE`, and cached (names of steps that took nothing), prices
        (None where there are none) and date.
    """
    from contracts.errors import PlatformError
    from pipelines.io.files import read_json
    from pipelines.io.record import open_record, read_steps

    said = json.loads(environ.get(VARIABLE) or "{}")
    prices = Prices.model_validate(said["prices"]) if said.get("prices") else None
    try:
        if record := open_record(environ):
            steps = read_steps(record.root, record.kfp_run)
        else:
            steps = read_json(where.path("runs") / run / "run.json")["steps"]
    except PlatformError:  # the store is away, or the step was called by itself: the card says less
        return None
    found = {
        **cost_of(steps, prices, {step: _Asked(**one) for step, one in said.get("asked", {}).items()}),
        "cached": [name for name, step in steps.items() if step.get("status") == "cached"],
        "prices": prices.model_dump() if prices else None,
        "date": datetime.now(UTC).date().isoformat(),
    }
    return found if found["steps"] else None

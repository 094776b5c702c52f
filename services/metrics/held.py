"""What a service holds of its machine over time, from which follows what it costs.

Counted as OpenCost (opencost.io, specification) counts a container: of cores and memory the larger of what was asked
for and what is used, of GPUs what was asked for. Prices stand where the metrics are read, not here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from threading import Lock
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily
from prometheus_client.registry import Collector

from contracts import metric_names as names

if TYPE_CHECKING:
    from services.settings import AskedSettings

_USED, _IDLE = "used", "idle"
_FAMILIES = (
    (names.CORE_SECONDS, "Seconds of cores: used, and asked for beyond that.", ("model", "state")),
    (names.MEMORY_SECONDS, "Bytes of memory times seconds: used, and asked for beyond that.", ("model", "state")),
    (names.GPU_SECONDS, "Seconds of GPUs that were asked for.", ("model",)),
)


class ProcessTree:
    """Processor time and memory of this process and of those that it started, also of those that have ended."""

    def __init__(self) -> None:
        self._cpu: dict[tuple[int, float], float] = {}  # by process id and start: ids are used again

    def __call__(self) -> tuple[float, float]:
        """Seconds of processors since the start, and bytes of resident memory now."""
        import psutil

        memory = 0.0
        me = psutil.Process(os.getpid())
        for one in (me, *me.children(recursive=True)):
            try:
                with one.oneshot():
                    took, resident = one.cpu_times(), one.memory_info().rss
                    self._cpu[one.pid, one.create_time()] = took.user + took.system
            except psutil.NoSuchProcess:
                continue
            memory += resident
        return sum(self._cpu.values()), memory


class Held(Collector):
    """Counters that grow whenever they are read, by what was held since they were read before.

    used: seconds of processors since some moment, and bytes now.  clock: seconds.
    """

    def __init__(
        self,
        model: str,
        asked: AskedSettings,
        registry: CollectorRegistry,
        used: Callable[[], tuple[float, float]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model, self._asked, self._clock, self._lock = model, asked, clock, Lock()
        self._used = used or ProcessTree()
        self._at, self._cpu = clock(), 0.0  # what starting took is counted too
        self._core = {_USED: 0.0, _IDLE: 0.0}
        self._memory = {_USED: 0.0, _IDLE: 0.0}
        self._gpu = 0.0
        registry.register(self)

    def collect(self) -> Iterable[CounterMetricFamily]:
        """For prometheus_client's registry."""
        with self._lock:
            self._advance()
            core, memory, gpu = dict(self._core), dict(self._memory), self._gpu
        cores, bytes_, gpus = (CounterMetricFamily(name, text, labels=labels) for name, text, labels in _FAMILIES)
        for family, values in ((cores, core), (bytes_, memory)):
            for state, value in values.items():
                family.add_metric((self._model, state), value)
        gpus.add_metric((self._model,), gpu)
        return (cores, bytes_, gpus)

    def describe(self) -> Iterable[CounterMetricFamily]:
        """For prometheus_client's registry, which looks for names that are given twice."""
        return tuple(CounterMetricFamily(name, text, labels=labels) for name, text, labels in _FAMILIES)

    def _advance(self) -> None:
        now = self._clock()
        cpu, memory = self._used()
        passed, took = max(now - self._at, 0.0), max(cpu - self._cpu, 0.0)
        self._at, self._cpu = now, max(cpu, self._cpu)
        self._core[_USED] += took
        self._core[_IDLE] += max(self._asked.millicores / 1000 * passed - took, 0.0)
        self._memory[_USED] += memory * passed
        self._memory[_IDLE] += max(self._asked.memory_bytes - memory, 0.0) * passed
        self._gpu += self._asked.gpus * passed

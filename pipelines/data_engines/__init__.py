"""Where the data of a run are computed: in the process of a step, or by workers of Ray (docs/adr).

The engine is a setting of the run (``data.engine``). It says where pieces of work are done, never what they make, so it
is no part of a configuration or of a cache's key; steps find it in their environment.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from contracts.model_memory import memory_limit
from contracts.quantities import memory as written
from contracts.quantities import parse
from feature_repo.stores.parts import Engine
from pipelines.io import events

if TYPE_CHECKING:
    from pipelines.data_engines.ray_engine import RayEngine

VARIABLE = "FAIRLEAD_DATA_ENGINE"
"""Environment of steps: the settings of the engine as JSON, see `described`."""

ENGINES = ("duckdb", "ray")
KINDS = ("job", "rayjob")
"""What makes the workers of ``ray`` on a cluster: a Job of the step, or KubeRay."""

WORKERS, MEMORY = 2, "2Gi"
HEAD = "1Gi"
"""Memory of a head in a pod of its own: the dashboard and the driver."""
STEPS = ("ingest", "validate", "materialise", "build_dataset", "batch_score")
"""Those whose work an engine shares out."""

_RAY = 512 << 20  # bytes that Ray's own processes take
_SHARE = 2  # half of the memory of a worker is for DuckDB, the rest for Python and Arrow
_current: list[Engine] = []


class Here:
    """The step's own process: rows are not cut. The engine ``duckdb``."""

    workers = 1
    memory_limit = ""

    def parts(self, rows: int) -> int:
        """One."""
        return 1

    def map(self, work: str, items: Sequence[Mapping[str, Any]]) -> list[Any]:
        """One after the other."""
        from pipelines.data_engines.work import done

        return [done(work, item) for item in items]

    def place(self) -> AbstractContextManager[str]:
        """A folder of this machine."""
        import tempfile

        return tempfile.TemporaryDirectory(prefix="fairlead-parts-")

    def shared(self, files: Sequence[str], place: str) -> list[str]:
        """The files themselves."""
        return list(files)

    def say(self, message: str) -> None:
        """As an event."""
        events.emit("log", message=message)


def described(settings: Mapping[str, Any], place: str, pods: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The variable that tells steps their engine, {} for the default one.

    Args:
        settings: of a run.  place: folder, or address of S3, for what workers pass to each other.
        pods: on a cluster, what workers have there, see `pipelines.io.pods.PodSettings`.
    """
    if not shares_out(settings):
        return {}
    said = {
        "engine": settings["data.engine"],
        "workers": settings.get("data.workers", WORKERS),
        "memory": settings.get("data.memory", MEMORY),
        "place": place,
        **({"pods": pods} if pods else {}),
        **({"kind": settings["data.ray"]} if pods and by_operator(settings) else {}),
    }
    return {VARIABLE: json.dumps(said, sort_keys=True)}


@contextmanager
def announced(settings: Mapping[str, Any], place: str) -> Iterator[None]:
    """Steps, which are processes of this one or this one itself, find the engine of a run in their environment."""
    said = described(settings, place)
    os.environ.update(said)
    try:
        yield
    finally:
        for name in said:
            del os.environ[name]


def enough(need: float, least: int = WORKERS) -> tuple[str, int]:
    """How many workers have `need` bytes together: ``--set`` what of a run, and all of their memory, Ray's too.

    Workers beyond the number of parts would have nothing to do, so each has more memory then. least: workers.
    """
    from pipelines.data_engines.ray_engine import MOST

    workers = min(max(math.ceil(need / int(parse(MEMORY))), least), MOST)
    each = written(max(int(parse(MEMORY)), math.ceil(need / workers)))
    said = f"--set data.engine={ENGINES[1]} --set data.workers={workers} --set data.memory={each}"
    return said, workers * int(parse(with_ray(each)))


def shares_out(settings: Mapping[str, Any]) -> bool:
    """Whether the settings of a run name an engine with workers."""
    return bool(settings.get("data.engine", ENGINES[0]) != ENGINES[0])


def by_operator(settings: Mapping[str, Any]) -> bool:
    """Whether KubeRay is to make the workers."""
    return bool(settings.get("data.ray", KINDS[0]) != KINDS[0])


def with_ray(memory: str) -> str:
    """Memory of a pod that has the head or a worker of Ray beside what takes `memory`."""
    return f"{(int(parse(memory)) + _RAY) >> 20}Mi"


def duckdb_limit(memory: str, together: int = 0) -> str:
    """What DuckDB may have of a worker's memory, as it writes it.

    together: workers that share the memory of this machine or container, with the step; 0: each has its own.
    """
    size = int(parse(memory))
    if together:
        size = min(size, memory_limit() // (together + 1))
    return f"{size // _SHARE >> 20}MiB"


def current() -> Engine:
    """The engine of the step that runs; outside of one, this process."""
    return _current[-1] if _current else Here()


@contextmanager
def opened(step: str, environ: Mapping[str, str] = os.environ) -> Iterator[Engine]:
    """The engine that `environ` asks for, `current` within the block. Its workers start with the first work for them.

    Raises:
        PlatformError: ``code="missing_package"``.
    """
    said = json.loads(environ.get(VARIABLE) or "{}")
    if not said:
        yield Here()
        return
    engine = _made(step, said, environ)
    _current.append(engine)
    try:
        yield engine
    finally:
        _current.remove(engine)
        engine.close()


def _made(step: str, said: dict[str, Any], environ: Mapping[str, str]) -> RayEngine:
    from pipelines.data_engines.ray_engine import RayEngine

    pods, kind = said.pop("pods", None), said.pop("kind", KINDS[0])
    del said["engine"]
    if not pods:
        return RayEngine(step, **said)
    from pipelines.data_engines.pods_engine import PodsEngine
    from pipelines.io.pods import PodSettings
    from pipelines.io.record import POD, RUN

    made: type[PodsEngine] = PodsEngine
    if kind != KINDS[0]:
        from pipelines.data_engines.ray_job_engine import RayJobEngine

        made = RayJobEngine
    run = environ.get(RUN) or environ.get(POD) or step
    return made(step, run=run, pods=PodSettings.model_validate(pods), **said)

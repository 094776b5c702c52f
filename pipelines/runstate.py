"""``run.json``: what a run was asked, where it is, and how it ended; written whole at every change."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from contracts.errors import PlatformError
from pipelines.io.files import read_json, write_json
from pipelines.run import ASKED, Run


class RunState:
    """The document of one run. A killed run leaves status ``running`` with a process that is gone."""

    def __init__(self, folder: Path, asked: Run, steps: tuple[str, ...]) -> None:
        self._file = folder / "run.json"
        before = read_json(self._file) if self._file.exists() else {}
        self._began = time.monotonic()
        self.document: dict[str, Any] = {
            "run_id": asked.run_id,
            ASKED: asked.document(),
            "status": "running",
            "pid": os.getpid(),
            "process_started": _process_start(),
            "started": _now(),
            "finished": None,
            "seconds": None,
            "attempt": int(before.get("attempt", 0)) + 1,
            "steps": {step: {"status": "waiting", "seconds": None} for step in steps},
            "error": None,
            "result": None,
        }
        self._write()

    def step(
        self,
        name: str,
        status: str,
        seconds: float | None = None,
        result: Any = None,
        used: Mapping[str, Any] | None = None,
    ) -> None:
        """Note that a step started, finished, was cached or failed, and what it took (memory_peak, cpu_seconds)."""
        entry: dict[str, Any] = {"status": status, "seconds": seconds, **(used or {})}
        self.document["steps"][name] = entry if result is None else {**entry, "result": result}
        self._write()

    def end(self, status: str, *, result: Any = None, error: Mapping[str, Any] | None = None) -> None:
        """Note how the run ended: succeeded, refused (by the gate) or failed."""
        seconds = round(time.monotonic() - self._began, 2)
        self.document.update(status=status, finished=_now(), seconds=seconds, result=result, error=error)
        self._write()

    def _write(self) -> None:
        write_json(self._file, self.document)


@contextmanager
def claimed(folder: Path, run_id: str) -> Iterator[None]:
    """Hold the run's folder: one process at a time works on a run."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PlatformError(
                f"run {run_id} is running already",
                fix="wait until it has ended, or start a new run",
                code="already_running",
            ) from None
        yield


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _process_start() -> str | None:
    """When this process started, in the kernel's ticks: with the pid it tells a process from a later one."""
    try:
        return Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None

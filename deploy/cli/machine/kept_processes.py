"""Processes that outlive who started them, and are found again by number and moment of their start."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class KeptProcess:
    """A process that leads a group of its own; `started` tells it from a later one with the same number."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> KeptProcess:
        """A process that runs now."""
        return cls(pid, _started(pid))

    def alive(self) -> bool:
        """Whether it still runs; one of our own children that ended is cleared away."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        return bool(self.started) and _started(self.pid) == self.started

    def end(self, *, now: bool = False) -> None:
        """Ask it and its descendants to end, or end them `now`; does not wait."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL if now else signal.SIGTERM)


def _started(pid: int) -> str:
    """When a process began, as the system says it; empty when there is none, or it only waits to be cleared away."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] == "Z" else fields[19]
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return ""
    except OSError:
        return ""
    said = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, began = said.stdout.strip().partition(" ")
    return "" if state.startswith("Z") else began.strip()

"""Read the runs of a profile from their ``run.json`` files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from deploy.cli.runs.workflow_process import read_run_file

if TYPE_CHECKING:
    from contracts.endpoints import Endpoints


def list_runs(endpoints: Endpoints) -> list[dict[str, Any]]:
    """All runs, newest first; a run whose process is gone has status ``dead``."""
    folder = endpoints.path("runs")
    found = [_read(entry) for entry in folder.iterdir() if entry.is_dir()] if folder.is_dir() else []
    return sorted((run for run in found if run), key=lambda run: str(run.get("started") or ""), reverse=True)


def find_run(endpoints: Endpoints, run_id: str) -> dict[str, Any]:
    """One run by its id, or by the start of it when that is unique.

    Raises:
        PlatformError: ``code="unknown_run"``, listing the latest runs.
    """
    folder = endpoints.path("runs")
    exact = _read(folder / run_id) if run_id and Path(run_id).name == run_id else None
    if exact:
        return exact
    runs = list_runs(endpoints)
    matching = [run for run in runs if run_id and run["run_id"].startswith(run_id)]
    if len(matching) == 1:
        return matching[0]
    latest = ", ".join(run["run_id"] for run in (matching or runs)[:5]) or "none"
    what = "more than one run starts with" if matching else "no run"
    home = str(endpoints.scratch())
    detail = f"runs in {folder}: {latest}"
    raise PlatformError(f"{what} {run_id!r}", detail=detail, fix="fairlead runs", code="unknown_run", home=home)


def _read(folder: Path) -> dict[str, Any] | None:
    run = read_run_file(folder)
    if run is None:
        return None
    run["run_id"] = folder.name
    if run.get("status") == "running" and not _alive(run.get("pid"), run.get("process_started")):
        run["status"] = "dead"
    return run


def _alive(pid: Any, started: Any) -> bool:
    """Whether process `pid` exists and is the one that `started` then (numbers are used again after a while)."""
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return started is None or process_start(pid) in (None, started)


def process_start(pid: int) -> str | None:
    """When a process started, in the kernel's ticks; None where /proc does not say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None

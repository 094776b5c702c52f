"""A run on this machine that another process works on: followed, its steps' output shown, stopped."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from deploy.cli.runs.progress import RunProgress
from deploy.cli.runs.run_files import find_run
from deploy.cli.terminal.output import console

if TYPE_CHECKING:
    from contracts.endpoints import Endpoints

_POLL = 0.5  # seconds
_PATIENCE = 15.0  # seconds that a run may take to end when it is asked to
_EVENTS = {"running": "step_started", "finished": "step_finished", "cached": "step_cached", "failed": "step_failed"}


def follow(endpoints: Endpoints, run_id: str, as_json: bool) -> dict[str, Any]:
    """Show the steps of a run until it has ended, and return its run.json."""
    if as_json:
        return _watch(endpoints, run_id, lambda event: None)
    with RunProgress(console()) as progress:
        return _watch(endpoints, run_id, progress.show)


def _watch(endpoints: Endpoints, run_id: str, show: Any) -> dict[str, Any]:
    shown: dict[str, str] = {}
    while True:
        run = find_run(endpoints, run_id)
        for name, step in (run.get("steps") or {}).items():
            status = str(step.get("status"))
            if shown.get(name, "waiting") != status and status in _EVENTS:
                shown[name] = status
                fields = {"seconds": step.get("seconds"), "result": step.get("result")}
                show({"event": _EVENTS[status], "step": name, **fields})
        if run["status"] != "running":
            return run
        time.sleep(_POLL)


def log_of(endpoints: Endpoints, run: dict[str, Any], step: str) -> str:
    """What a step has printed.

    Raises:
        PlatformError: ``code="unknown_step"``, ``code="no_log"``.
    """
    from deploy.cli.runs.step_logs import no_step, part_of

    if step not in (run.get("steps") or {}):
        raise no_step(step, run.get("steps") or {})
    file = endpoints.path("runs") / run["run_id"] / "log.txt"
    text = part_of(file.read_text(encoding="utf-8", errors="replace"), step) if file.exists() else ""
    if not text:
        status = run["steps"][step].get("status")
        detail = "it came from the cache: nothing ran" if status == "cached" else f"it is {status}"
        raise PlatformError(
            f"there is no log of {step}",
            detail=detail,
            fix=f"see how it stands: fairlead runs {run['run_id']}",
            code="no_log",
        )
    return text


def cancel(endpoints: Endpoints, run: dict[str, Any]) -> None:
    """End the process of a run and its steps.

    Raises:
        PlatformError: ``code="ended"``: there is none.
    """
    pid = run.get("pid")
    if run["status"] != "running" or not isinstance(pid, int):
        raise PlatformError(
            f"{run['run_id']} has ended already: {run['status']}",
            fix=f"look at it: fairlead runs {run['run_id']}",
            code="ended",
        )
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            if os.getpgid(pid) == pid:
                os.killpg(pid, sign)  # its steps are processes of their own
            else:
                os.kill(pid, sign)
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            if find_run(endpoints, run["run_id"])["status"] != "running":
                return
            time.sleep(0.1)

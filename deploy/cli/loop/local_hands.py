"""How the controller sees and acts on this machine: runs are processes of their own, which outlive it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from contracts.errors import PlatformError
from deploy.cli.loop.planned_run import plan, source_of
from deploy.cli.loop.sources import look_at_source
from deploy.cli.rollouts.asking import is_served, leave_request, under_way
from deploy.cli.runs.run_files import find_run
from deploy.cli.runs.workflow_process import COMMAND
from services.controller.observations import Observations, RunSeen
from services.controller.signals import firing, read_report
from services.controller.state import States, WatchState

if TYPE_CHECKING:
    from contracts.bundle import BundleDocument
    from contracts.endpoints import Endpoints
    from contracts.loop_policy import LoopPolicy
    from services.controller.state import Source

T = TypeVar("T")

_OUTPUT = "output.txt"  # of the process, in the folder of its run
_PATIENCE = 120.0  # seconds until a run that has begun must have a record


class LocalHands:
    """Sees and acts for one profile of this machine.

    Attributes:
        champions: name -> (version, document) of what is watched; `watch` sets it before each pass.
    """

    def __init__(self, endpoints: Endpoints, states: States, profile: str, prometheus: str = "") -> None:
        self._endpoints, self._states, self._profile, self._prometheus = endpoints, states, profile, prometheus
        self.champions: dict[str, tuple[str, BundleDocument]] = {}
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def observe(self, policy: LoopPolicy, state: WatchState) -> Observations:
        """What there is to see of a model now."""
        silent: list[str] = []
        version, document = self.champions[state.model]

        def seen(look: Callable[[], T]) -> T | None:
            try:
                return look()
            except PlatformError as err:
                silent.append(f"{err.headline}: no action")
                return None

        def source() -> Source:
            return look_at_source(source_of(self._endpoints, document, policy), policy.new_rows > 0)

        log, asked = self._endpoints.uri("predictions"), self._prometheus
        return Observations(
            version=version,
            report=seen(lambda: read_report(log, state.model, version)),
            alerts=seen(lambda: firing(asked, state.model)) if asked else None,
            run=self._look(state.run) if state.run else None,
            source=seen(source) if policy.on_new_data else None,
            rollout=seen(lambda: under_way(self._endpoints, state.model)) or "",
            can_roll_out=seen(lambda: is_served(self._endpoints, state.model)) or False,
            approved=self._states.said(state.model, "approve"),
            resumed=self._states.said(state.model, "resume"),
            silent=tuple(silent),
        )

    def start_run(self, policy: LoopPolicy, state: WatchState, run: str) -> None:
        """Start a run as a process of its own; its folder, made once, says that it was started.

        Raises:
            PlatformError: it cannot be asked so, or there is no process for it.
        """
        _, document = self.champions[state.model]
        asked = plan(self._endpoints, document, policy, run, self._profile)
        folder = self._endpoints.path("runs") / run
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.mkdir()
        except FileExistsError:
            return
        try:
            with (folder / _OUTPUT).open("wb") as output:
                self._children[run] = subprocess.Popen(
                    [*COMMAND, asked.model_dump_json()],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C at the watch is none at the run
                    env=os.environ | {"PYTHONUNBUFFERED": "1"},
                )
        except OSError as err:
            raise PlatformError(f"run {run} has no process", detail=str(err), fix="free memory", code="no_run") from err

    def start_rollout(self, policy: LoopPolicy, ref: str, action: str) -> None:
        """Ask who serves the model with rollouts; asked again with the same action it is the same rollout."""
        if policy.rollout != "none":
            leave_request(self._endpoints, ref, policy.rollout, action, "controller", "its run passed the gate")

    def _look(self, run: str) -> RunSeen:
        """How a run stands, by its record; a child of ours that has ended is no zombie then."""
        child = self._children.get(run)
        gone = child is not None and child.poll() is not None
        folder = self._endpoints.path("runs") / run
        try:
            record = find_run(self._endpoints, run)
        except PlatformError as err:
            if err.code != "unknown_run":
                raise
            return _without_record(folder, gone)
        return _as_seen(record)


def _without_record(folder: Path, gone: bool) -> RunSeen:
    """A run that has written nothing: it begins, or never will."""
    try:
        age = time.time() - folder.stat().st_mtime
    except FileNotFoundError:
        return RunSeen(status="dead", said="its folder is not there")
    if not gone and age < _PATIENCE:
        return RunSeen(status="starting")
    output = folder / _OUTPUT
    last = output.read_text(errors="replace").strip().splitlines()[-1:] if output.exists() else []
    return RunSeen(status="dead", said=f"it never began: {''.join(last)[:500] or 'its process said nothing'}")


def _as_seen(record: dict[str, Any]) -> RunSeen:
    result, error = record.get("result") or {}, record.get("error") or {}
    reasons = "; ".join(result.get("reasons") or ())
    said = reasons if record["status"] == "refused" else str(error.get("headline") or "")
    if record["status"] == "dead":
        said = "its process ended without a word"
    evidence = {
        "seconds": record.get("seconds"),
        "steps": {name: step.get("status") for name, step in (record.get("steps") or {}).items()},
        **{key: result[key] for key in ("name", "version", "digest", "primary", "metrics") if key in result},
    }
    return RunSeen(
        status=str(record["status"]),
        version=str(result.get("version") or ""),
        said=said,
        evidence={**evidence, **({"error": error} if error else {})},
    )

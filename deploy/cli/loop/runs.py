"""Where the loop's runs are, looked up by their names: processes of this machine that outlive it, or on a cluster."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from contracts.errors import PlatformError
from deploy.cli.runs.run_files import find_run, list_runs
from deploy.cli.runs.workflow_process import COMMAND, read_run_file
from pipelines.run import Run
from services.controller.observations import RunSeen

if TYPE_CHECKING:
    from contracts.endpoints import Endpoints
    from deploy.cli.cluster.cluster_settings import Profile

_OUTPUT = "output.txt"  # of the process, in the folder of its run
_PATIENCE = 120.0  # seconds until a run that has begun must have a record
_LATEST = 50  # runs of a cluster that metrics are made of


class Runs(Protocol):
    """Starts runs, and finds them again by the names that were given to them."""

    def start(self, asked: Run) -> None:
        """Start a run, or nothing when one of its name was ever started.

        Raises:
            PlatformError: it cannot be started.
        """
        ...

    def look(self, run: str) -> RunSeen | None:
        """How a run stands; None where that cannot be said now."""
        ...

    def asked(self, run: str) -> Run | None:
        """What a run was asked; None where it has no record."""
        ...

    def latest(self) -> Sequence[Mapping[str, Any]]:
        """The documents of the latest runs, in any order."""
        ...


class LocalRuns:
    """Runs of this machine: a folder, made once, says that a run was started."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, asked: Run) -> None:
        """Start a run as a process of its own."""
        folder = self._folder(asked.run_id)
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.mkdir()
        except FileExistsError:
            return
        try:
            with (folder / _OUTPUT).open("wb") as output:
                self._children[asked.run_id] = subprocess.Popen(
                    [*COMMAND, asked.model_dump_json()],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C at the watch is none at the run
                    env=os.environ | {"PYTHONUNBUFFERED": "1"},
                )
        except OSError as err:
            raise PlatformError(
                f"run {asked.run_id} has no process", detail=str(err), fix="free memory", code="no_run"
            ) from err

    def look(self, run: str) -> RunSeen | None:
        """How a run stands, by its record; a child of ours that has ended is no zombie then."""
        child = self._children.get(run)
        gone = child is not None and child.poll() is not None
        try:
            return as_seen(find_run(self._endpoints, run))
        except PlatformError as err:
            if err.code != "unknown_run":
                raise
            return _without_record(self._folder(run), gone)

    def asked(self, run: str) -> Run | None:
        """What a run was asked."""
        record = read_run_file(self._folder(run)) if run else None
        return _as_asked(record, run) if record else None

    def latest(self) -> Sequence[Mapping[str, Any]]:
        """All runs of this machine."""
        return list_runs(self._endpoints)

    def _folder(self, run: str) -> Path:
        return self._endpoints.path("runs") / run


class ClusterRuns:
    """Runs of Kubeflow on the cluster of a profile, which carry the name as theirs."""

    def __init__(self, profile: Profile) -> None:
        from deploy.cli.cluster_runs.access import open_access

        self._access = open_access(profile)

    def start(self, asked: Run) -> None:
        """Submit a run, unless Kubeflow knows one of its name."""
        from deploy.cli.cluster_runs.execution import noted
        from deploy.cli.cluster_runs.submit import submit

        if self._found(asked.run_id) is None:
            self._access.client, kfp_run, ready = submit(self._access.profile, asked)
            noted(self._access, kfp_run, ready)

    def look(self, run: str) -> RunSeen | None:
        """How a run stands, by Kubeflow, its pods and the record in the store."""
        from deploy.cli.cluster_runs.lookup import look_at

        found = self._found(run)
        return None if found is None else as_seen(look_at(self._access, found))

    def asked(self, run: str) -> Run | None:
        """What a run was asked, its sources as pods see them."""
        found = self._found(run) if run else None
        return None if found is None else _as_asked(found.asked, run)

    def latest(self) -> Sequence[Mapping[str, Any]]:
        """The latest runs that Kubeflow lists."""
        from deploy.cli.cluster_runs import lookup

        return lookup.list_runs(self._access, _LATEST)

    def _found(self, run: str) -> Any:
        from deploy.cli.cluster_runs import lookup

        try:
            found = lookup.find_run(self._access, run)
        except PlatformError as err:
            if err.code != "unknown_run":
                raise
            return None
        return found if found.run_id == run else None


def as_seen(record: Mapping[str, Any]) -> RunSeen:
    """How a run stands, from its document."""
    status, result, error = str(record["status"]), record.get("result") or {}, record.get("error") or {}
    if error.get("code") == "stopped":
        status = "cancelled"
    said = {
        "dead": "its process ended without a word",
        "cancelled": "somebody ended it",
        "refused": "; ".join(result.get("reasons") or ()),
    }.get(status, str(error.get("headline") or ""))
    evidence = {
        "seconds": record.get("seconds"),
        "steps": {name: step.get("status") for name, step in (record.get("steps") or {}).items()},
        **{key: result[key] for key in ("name", "version", "digest", "primary", "metrics") if key in result},
        **({"error": error} if error else {}),
    }
    return RunSeen(status=status, version=str(result.get("version") or ""), said=said, evidence=evidence)


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


def _as_asked(record: Mapping[str, Any], run: str) -> Run:
    try:
        return Run.model_validate(record)
    except ValueError as err:
        raise PlatformError(
            f"the record of run {run} cannot be read", detail=str(err), fix="move its folder away", code="bad_run"
        ) from err

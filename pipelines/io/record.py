"""What the steps of a run on a cluster leave in the store, so that a run says the same wherever it is looked at.

``{data}/.runs/{kfp_run}/{step}.json`` is one small document per step, written by the step itself when it starts, ends
and fails; ``run.json`` beside them says what the run was asked, and ``followed.json`` who follows it. Pods learn the
place from their environment; a run on this machine has none of it and records nothing. To write never makes a step
fail, and a step does not wait for the store: a thread writes, and the end of the step waits a few seconds for it.
"""

from __future__ import annotations

import contextlib
import json
import queue
import re
import resource
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from contracts import storage
from contracts.errors import PlatformError
from pipelines.run import ASKED, Run, shown

PLACE, RUN, POD, NODE = "FAIRLEAD_RECORD", "FAIRLEAD_KFP_RUN", "FAIRLEAD_POD", "FAIRLEAD_NODE"
FIELDS = {
    RUN: "metadata.labels['pipeline/runid']",
    POD: "metadata.name",
    NODE: "metadata.annotations['workflows.argoproj.io/node-name']",
}
"""What a pod is told about itself: variable -> field of the pod. `PLACE` is known when a workflow is compiled."""

SCHEDULE = "FAIRLEAD_SCHEDULE"
"""Name of the schedule that starts the run; only where a schedule was compiled."""

_PATIENCE = 10.0  # seconds that the end of a step waits for the store
_RUN_FILE, _FOLLOWED_FILE = "run", "followed"
_NAME = re.compile(r"[A-Za-z0-9_.-]+")


class Record:
    """The record of one run as one pod writes it. `attempt` is the pod's try, from 1."""

    def __init__(self, root: str, kfp_run: str, pod: str = "", node: str = "", schedule: str = "") -> None:
        self.root, self.kfp_run, self.pod, self.schedule = root, kfp_run, pod, schedule
        self.workflow = node.partition(".")[0]
        tries = re.search(r"\((\d+)\)$", node)
        self.attempt = int(tries[1]) + 1 if tries else 1
        self._queue: queue.SimpleQueue[tuple[str, bytes, bool] | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None

    def write_step(
        self,
        step: str,
        status: str,
        *,
        started: str,
        seconds: float | None = None,
        result: Any = None,
        error: Mapping[str, Any] | None = None,
        final: bool = False,
        cpu: float | None = None,
    ) -> None:
        """Note how `step` stands: running, finished, cached or failed. `final`: trying it again cannot help.

        cpu: seconds of processor that it took.
        """
        document = {
            "step": step,
            "status": status,
            "started": started,
            "seconds": seconds,
            "attempt": self.attempt,
            "pod": self.pod,
            "result": result,
            "error": error,
            "memory_peak": None if status in ("running", "cached") else memory_peak(),
            "cpu_seconds": cpu,
            "final": final,
        }
        self._put(step, document, True)

    def write_run(self, asked: Run, standing: Mapping[str, Any]) -> None:
        """Note what the run was asked, where nobody has: runs from the page, a schedule or a client of KFP."""
        known = asked.having(schedule=self.schedule) if self.schedule else asked
        self._put(_RUN_FILE, _run_document(self.kfp_run, known, standing), False)

    def ended_before(self, step: str) -> PlatformError | None:
        """What an earlier try of this pod found, where trying again cannot help."""
        if self.attempt == 1:  # nobody tried before, or a person asks for it again
            return None
        with contextlib.suppress(Exception):
            before = _read(self.root, self.kfp_run, step)
            if before and before["final"] and before["status"] == "failed" and before["attempt"] < self.attempt:
                return PlatformError.from_dict(before["error"])
        return None

    def close(self) -> None:
        """Wait a little until all is written."""
        if self._writer is not None:
            self._queue.put(None)
            self._writer.join(_PATIENCE)
            self._writer = None

    def _put(self, name: str, document: dict[str, Any], replace: bool) -> None:
        with contextlib.suppress(Exception):
            self._queue.put((name, _text(document), replace))
        if self._writer is None:
            with contextlib.suppress(Exception):
                storage.ready(self.root)
            self._writer = threading.Thread(target=self._write, name="record", daemon=True)
            self._writer.start()

    def _write(self) -> None:
        while (item := self._queue.get()) is not None:
            name, text, replace = item
            with contextlib.suppress(Exception):
                address = _address(self.root, self.kfp_run, name)
                if replace or not storage.exists(address):
                    storage.write_bytes(address, text)


def open_record(environ: Mapping[str, str]) -> Record | None:
    """The record that the environment names; None on this machine."""
    place, run = environ.get(PLACE, ""), environ.get(RUN, "")
    if not place or not _NAME.fullmatch(run):
        return None
    return Record(place, run, environ.get(POD, ""), environ.get(NODE, ""), environ.get(SCHEDULE, ""))


def write_run(root: str, kfp_run: str, asked: Run, standing: Mapping[str, Any]) -> None:
    """Write the run's document whole, in place of what is there.

    Args:
        standing: beside what it was asked: its steps, who started it, and its restarts.

    Raises:
        PlatformError: the store does not take it.
    """
    storage.write_bytes(_address(root, kfp_run, _RUN_FILE), _text(_run_document(kfp_run, asked, standing)))


def _run_document(kfp_run: str, asked: Run, standing: Mapping[str, Any]) -> dict[str, Any]:
    said = asked.model_dump(mode="json", exclude_unset=True)  # what it does not say, Kubeflow's parameters may
    return {"started": now(), "steps": [], **standing, "kfp_run": kfp_run, ASKED: said}


def read_run(root: str, kfp_run: str) -> dict[str, Any] | None:
    """What the run was asked and how it stands, as `shown`; None when nothing says it."""
    found = _read(root, kfp_run, _RUN_FILE)
    return None if found is None else shown(found)


def read_steps(root: str, kfp_run: str) -> dict[str, dict[str, Any]]:
    """The documents of the run's steps that have begun, by step."""
    names = [name.removesuffix(".json") for name in storage.list_names(storage.join(root, kfp_run))]
    steps = [name for name in names if name not in (_RUN_FILE, _FOLLOWED_FILE) and _NAME.fullmatch(name)]
    found = {name: _read(root, kfp_run, name) for name in steps}
    return {name: document for name, document in found.items() if document is not None}


def write_followed(root: str, kfp_run: str, sign: Mapping[str, Any]) -> None:
    """Write who follows the run now.

    Raises:
        PlatformError: the store does not take it.
    """
    storage.write_bytes(_address(root, kfp_run, _FOLLOWED_FILE), _text(sign))


def read_followed(root: str, kfp_run: str) -> dict[str, Any]:
    """Who follows the run, as they wrote it last; empty when nobody does."""
    return _read(root, kfp_run, _FOLLOWED_FILE) or {}


def remove_followed(root: str, kfp_run: str) -> None:
    """Nobody follows the run any more."""
    storage.remove(_address(root, kfp_run, _FOLLOWED_FILE))


def list_runs(root: str) -> list[str]:
    """The KFP ids of the runs that left something."""
    return [name for name in storage.list_names(root) if _NAME.fullmatch(name)]


def now() -> str:
    """The time as records say it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def cpu_seconds() -> float:
    """Seconds of processor that this process and its ended children took so far."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def memory_peak() -> int | None:
    """Bytes that this process and the largest of its children held at most.

    The kernel's own peak of the container counts the files that it read too, which it gives back when memory is asked
    for; so it is only the upper limit of what is said here.
    """
    try:
        sizes = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        held = sum(sizes) * (1 if sys.platform == "darwin" else 1024)
    except (OSError, ValueError):
        return None
    with contextlib.suppress(OSError, ValueError):
        held = min(held, int(Path("/sys/fs/cgroup/memory.peak").read_text()))
    return held


def _read(root: str, kfp_run: str, name: str) -> dict[str, Any] | None:
    """A document; None when it is not there or is none."""
    try:
        found = json.loads(storage.read_bytes(_address(root, kfp_run, name)))
    except PlatformError as err:
        if err.code == "not_found":
            return None
        raise
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _address(root: str, kfp_run: str, name: str) -> str:
    return storage.join(root, kfp_run, f"{name}.json")


def _text(document: Mapping[str, Any]) -> bytes:
    from pipelines.io.files import clean_numbers

    return json.dumps(clean_numbers(dict(document)), default=str, ensure_ascii=False).encode()

"""Run a workflow in a child process and read its JSON lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploy.cli.machine.subprocesses import stop_group
from pipelines.run import shown

COMMAND = (sys.executable, "-m", "pipelines", "run")


class WorkflowChild:
    """``python -m pipelines run`` as a child; iterate over it to get its events.

    It has a process group of its own, so that Ctrl-C in a terminal reaches only us and the steps are stopped in order.
    """

    def __init__(self, arguments: list[str]) -> None:
        # It lives as long as the child, longer than any block here.
        self._stderr = tempfile.TemporaryFile(mode="w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )

    def __iter__(self) -> Iterator[dict[str, Any]]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            yield _event(line)

    def wait(self) -> int:
        """Exit code, once its output has ended."""
        return self._process.wait()

    def stop(self) -> None:
        """End it and its steps: politely, then for good."""
        stop_group(self._process)

    def complaints(self, lines: int = 15) -> str:
        """The end of what it wrote to stderr."""
        self._stderr.seek(0)
        return "\n".join(self._stderr.read().rstrip().splitlines()[-lines:])


def _event(line: str) -> dict[str, Any]:
    """One line as an event; what is not an event (a library's print) becomes a log event."""
    try:
        event = json.loads(line)
    except json.JSONDecodeError:
        event = None
    if isinstance(event, dict) and isinstance(event.get("event"), str):
        return event
    return {"event": "log", "message": line.rstrip("\n")}


def read_run_file(folder: Path) -> dict[str, Any] | None:
    """``run.json`` of a run, or None when it is not there or half a document."""
    try:
        document = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None
    return shown(document) if isinstance(document, dict) else None

"""What the pods of a run have printed: events of its steps, and what these make known before the store says it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from contracts.errors import PlatformError

_STATUS = {"step_started": "running", "step_finished": "finished", "step_cached": "cached", "step_failed": "failed"}
_TAIL = 12  # lines that are kept of each pod, for a step that ends without a word
_NOISE = ("[KFP Executor", "time=", "I1", "I0", "W0", "W1")  # of the launcher and of Argo


class Heard:
    """Takes the lines of logs, each once, and keeps what they say.

    Attributes:
        records: documents of steps in the form of the store's (pipelines/io/record.py).
        tails: the last lines of each pod that are no events.
    """

    def __init__(self) -> None:
        self.records: dict[str, dict[str, Any]] = {}
        self.tails: dict[str, list[str]] = {}

    def take(self, pod: str, line: str, attempt: int = 1) -> Iterator[dict[str, Any]]:
        """The event of one line of a pod's log, if it is one, or a log event."""
        event = event_of(line)
        if event is None:
            text = line.strip()
            if text and not text.startswith(_NOISE):
                self.tails[pod] = [*self.tails.get(pod, []), text][-_TAIL:]
                yield {"event": "log", "message": text[:1000]}
            return
        step, status = str(event.get("step") or ""), _STATUS.get(str(event["event"]))
        if step and status:
            self._note(step, status, event, pod, attempt)
        yield event

    def known(self, stored: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """The documents of the store, with what was heard since."""
        merged = dict(self.records)
        for step, document in stored.items():
            heard = merged.get(step)
            if heard is None or _rank(document) >= _rank(heard):
                merged[step] = document
        return merged

    def _note(self, step: str, status: str, event: dict[str, Any], pod: str, attempt: int) -> None:
        from pipelines.io.library_errors import is_final

        before, error = self.records.get(step, {}), event.get("error")
        if before.get("status") == "finished" and status == "cached":  # done by an earlier try of the same pod
            return
        self.records[step] = {
            "step": step,
            "status": status,
            "started": before.get("started") or "",
            "seconds": event.get("seconds"),
            "attempt": attempt,
            "pod": pod,
            "result": event.get("result"),
            "error": error,
            "memory_peak": None,
            "final": isinstance(error, dict) and is_final(PlatformError.from_dict(error)),
        }


def event_of(line: str) -> dict[str, Any] | None:
    """The event that a line of a log is, whatever stands in front of it."""
    at = line.find('{"event"')
    if at < 0:
        return None
    try:
        event = json.loads(line[at:])
    except json.JSONDecodeError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def _rank(document: dict[str, Any]) -> tuple[int, int]:
    """Which of two documents of one step is the later one."""
    return int(document.get("attempt") or 1), 0 if document.get("status") == "running" else 1

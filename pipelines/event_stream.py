"""The local runner's output to events: one JSON line each, and all of it in the run's log."""

from __future__ import annotations

import io
import json
import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from contracts.errors import PlatformError
from pipelines.runstate import RunState

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LOGGED_LINES = 200  # of one step: a chatty library must not drown the events


class Translator(io.TextIOBase):
    """Stands in for stdout while KFP runs. Steps print events; KFP indents them and adds its own lines.

    A task of one step that KFP skips prints nothing: the step was cached when a later one starts, or when the run
    succeeds. A step that shares a task with others says so.
    """

    def __init__(self, order: tuple[str, ...], state: RunState, log: TextIO, send: Callable[..., None]) -> None:
        self._order, self._state, self._log, self._send = order, state, log, send
        self._buffer = ""
        self._seen: set[str] = set()
        self._current: str | None = None
        self._lines = 0
        self.tail: deque[str] = deque(maxlen=8)
        self.error: PlatformError | None = None
        self.results: dict[str, Any] = {}

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._buffer = (self._buffer + text).split("\n")
        for line in lines:
            self._line(line)
        return len(text)

    def _line(self, line: str) -> None:
        self._log.write(line + "\n")
        self._log.flush()
        event = _event(line.strip())
        if event is not None:
            self._event(event)
        elif self._current and line.strip() and "[KFP Executor" not in line:
            message = _COLOUR.sub("", line).strip()[:1000]
            self.tail.append(message)
            self._lines += 1
            if self._lines <= _LOGGED_LINES:
                self._send("log", step=self._current, message=message)

    def _event(self, event: dict[str, Any]) -> None:
        kind, step = event.pop("event"), str(event.get("step", ""))
        event.pop("time", None)
        if kind == "step_started":
            self.skipped_before(step)
            self._seen.add(step)
            self._current, self._lines = step, 0
            self.tail.clear()
            self._state.step(step, "running")
        elif kind == "step_cached":
            self.skipped_before(step)
            self._seen.add(step)
            self.results[step] = event.get("result")
            self._state.step(step, "cached", event.get("seconds"), event.get("result"))
        elif kind == "step_finished":
            self._current = None
            self.results[step] = event.get("result")
            self._state.step(step, "finished", event.get("seconds"), event.get("result"), _used(event))
        elif kind == "step_failed":
            self._current = None
            self.error = PlatformError.from_dict(event["error"])
            self._state.step(step, "failed", event.get("seconds"), used=_used(event))
        self._send(kind, **event)

    def skipped_before(self, step: str | None) -> None:
        """Report the steps before `step` (all steps for None) that printed nothing."""
        for name in self._order:
            if name == step:
                return
            if name not in self._seen:
                self._seen.add(name)
                self._state.step(name, "cached", 0.0)
                self._send("step_cached", step=name, seconds=0.0)

    def died(self) -> PlatformError:
        """What to say when KFP reports a failure and the step itself said nothing."""
        if self._current is None:
            return PlatformError(
                "the local runner could not start a step",
                detail=" | ".join(self.tail),
                fix="see log.txt in the run's folder",
                code="runner",
            )
        step, self._current = self._current, None
        self._state.step(step, "failed")
        error = PlatformError(
            f"step {step} ended without a word",
            detail="; ".join(self.tail) or "most likely the system killed it because memory ran out",
            fix="run it with less data or more memory; see log.txt in the run's folder",
            code="step_died",
        )
        self._send("step_failed", step=step, error=error.as_dict())
        return error


def _event(line: str) -> dict[str, Any] | None:
    if not line.startswith('{"event"'):
        return None
    try:
        found = json.loads(line)
    except json.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def sender(stream: TextIO, run_id: str) -> Callable[..., None]:
    """A function that prints one event line to `stream`."""

    def send(event: str, **fields: Any) -> None:
        line = json.dumps({"event": event, "run_id": run_id, **fields, "time": round(time.time(), 3)}, default=str)
        stream.write(line + "\n")
        stream.flush()

    return send


def _used(event: Mapping[str, Any]) -> dict[str, Any]:
    """What a step says that it took: bytes of memory at most, seconds of processor."""
    return {name: event[name] for name in ("memory_peak", "cpu_seconds") if event.get(name) is not None}

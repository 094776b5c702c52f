"""The state of one model's rollouts in a ConfigMap, and what is asked of its keeper over HTTP."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import ValidationError

from contracts.errors import PlatformError
from services.rollout.kubernetes import Kubernetes
from services.rollout.store import Request, Served

KEY = "served.json"
_EVERY = 10.0  # seconds between writes when nothing but counters has changed
_PATIENCE = 20.0


class ConfigMapStore:
    """Writes at once what something follows from, and counters now and then: those can be read again.

    Whoever else has written meanwhile is another keeper; this one then stops with an error.
    """

    def __init__(self, kubernetes: Kubernetes, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._kubernetes, self._name, self._clock = kubernetes, name, clock
        self._version, self._kept, self._written = "", "", 0.0
        self._requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self.asked_for = threading.Event()

    def read(self) -> Served | None:
        """The state; None before the first.

        Raises:
            PlatformError: ``code="bad_rollout"``: it is damaged; or Kubernetes does not answer.
        """
        found = self._kubernetes.get("configmaps", self._name)
        self._version = found["metadata"]["resourceVersion"]
        text = (found.get("data") or {}).get(KEY)
        if not text:
            return None
        try:
            return Served.model_validate_json(text)
        except ValidationError as err:
            raise PlatformError(
                f"the state of the rollouts cannot be read: ConfigMap {self._name}, key {KEY}",
                detail=str(err),
                fix="remove the key: the model is then served by its first version, without a rollout",
                code="bad_rollout",
            ) from err

    def write(self, served: Served) -> None:
        """Replace it whole."""
        kept, now = _matters(served), self._clock()
        if kept == self._kept and now - self._written < _EVERY:
            return
        place = served.places.get(served.version)
        data = {KEY: served.model_dump_json(), "version": served.version}
        if place is not None:
            data |= {"source": place.source, "digest": place.digest}
        change = {"metadata": {"resourceVersion": self._version}, "data": data}
        done = self._kubernetes.patch("configmaps", self._name, change)
        self._version, self._kept, self._written = done["metadata"]["resourceVersion"], kept, now

    def asked(self, model: str) -> Iterator[tuple[Any, Request]]:
        """Requests that wait."""
        self.asked_for.clear()
        while True:
            try:
                yield None, self._requests.get_nowait()
            except queue.Empty:
                return

    def done(self, mark: Any) -> None:
        """Nothing: who asked reads the answer in the state."""

    def ask(self, request: Request, served: Callable[[], Served]) -> Served:
        """Leave a request and wait for its answer; asked again with the same id, it is the same one.

        Raises:
            PlatformError: it was refused; ``code="not_answered"``: not answered in time, ask again.
        """
        if request.id not in served().answers:
            self._requests.put(request)
            self.asked_for.set()
        until = time.monotonic() + _PATIENCE
        while request.id not in (now := served()).answers:
            if time.monotonic() > until:
                raise PlatformError("the keeper is busy", fix="ask again", code="not_answered")
            time.sleep(0.05)
        if (error := now.answers[request.id]) is not None:
            raise PlatformError.from_dict(error)
        return now


def _matters(served: Served) -> str:
    """What must not be lost, as text: all but the counters."""
    rollout = served.rollout
    short: dict[str, Any] = served.model_dump(include={"version", "answers", "outcomes", "places"})
    if rollout is not None:
        short["rollout"] = (
            rollout.id,
            rollout.phase,
            rollout.paused,
            rollout.step,
            rollout.recorded,
            rollout.withdrawn,
        )
        short["noted"] = len(rollout.transitions)
    return repr(short)

"""The process that speaks with Ray for a step: ``python -m pipelines.data_engines.ray_driver SETTINGS``.

Ray ends the process whose head is lost, so it gets one that a step can do without. Each line of stdin is a list of
pieces of work, each line of stdout an answer to one, or that there is nothing more. The end of stdin is the end of the
cluster: workers never outlive their step, however it ends.

As the job of a RayJob (`ray_job_engine`) it is ``python -m pipelines.data_engines.ray_driver ADDRESS``, of a document
that names the step (`Step`); its lines then go through a connection to the step, whose end is the end of the job.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import socket
import sys
import threading
import time
from typing import Any, TextIO

from pydantic import BaseModel

TRIES = 3  # of a piece of work whose worker dies, after the first
_LOOK = 2.0  # seconds between two looks for workers, and for the end
_REACHED = 60.0  # seconds in which the step answers its job
STORE = 100 << 20  # bytes of Ray's own memory for objects: what we pass are names of files


class Step(BaseModel):
    """Where the step of a job listens, and what it knows its job by."""

    host: str
    port: int
    token: str
    patience: float


def main(settings: str) -> int:
    """Answer until stdin ends, or the connection to the step whose address it is."""
    if not settings.startswith("{"):
        return _as_job(settings)
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    import ray

    asked = json.loads(settings)
    _start(ray, asked)
    _answer_all(ray, sys.stdin, out, asked["patience"])
    return 0


def _as_job(place: str) -> int:
    from contracts import storage

    step = Step.model_validate_json(storage.read_bytes(place))
    with socket.create_connection((step.host, step.port), _REACHED) as line:
        line.settimeout(None)
        out = line.makefile("w", encoding="utf-8")
        out.write(step.token + "\n")
        import ray

        ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
        try:
            _answer_all(ray, line.makefile("r", encoding="utf-8"), out, step.patience)
        finally:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)  # the thread that hears has it too
    return 0


def _answer_all(ray: Any, heard: TextIO, out: TextIO, patience: float) -> None:
    try:
        _tell(out, {"address": ray.get_runtime_context().gcs_address})
        asks, ended = _heard(heard)
        while line := asks.get():
            _answer(ray, json.loads(line), patience, out, ended)
    finally:
        ray.shutdown()


def _heard(lines: TextIO) -> tuple[queue.SimpleQueue[str], threading.Event]:
    """The lines as they come, "" at their end, and an event that is set then."""
    asks, ended = queue.SimpleQueue[str](), threading.Event()

    def hear() -> None:
        with contextlib.suppress(OSError):  # a connection that breaks ends as well
            for line in lines:
                asks.put(line)
        ended.set()
        asks.put("")

    threading.Thread(target=hear, daemon=True).start()
    return asks, ended


def _start(ray: Any, asked: dict[str, Any]) -> None:
    """A head with the workers of this machine; where others are to come it has none."""
    ray.init(
        address="local",
        num_cpus=asked["workers"],
        object_store_memory=STORE,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        _node_ip_address=asked["ip"] or None,
        _temp_dir=asked["folder"],
    )


def _answer(ray: Any, items: list[list[str]], patience: float, out: TextIO, ended: threading.Event) -> None:
    from pipelines.data_engines.work import answered

    call = ray.remote(num_cpus=1, max_retries=TRIES)(answered)
    waiting = {call.remote(work, item): number for number, work, item in items}
    seen = time.monotonic()
    while waiting and not ended.is_set():
        ready, _ = ray.wait(list(waiting), num_returns=1, timeout=_LOOK)
        for one in ready:
            number = waiting.pop(one)
            try:
                _tell(out, {"number": number, "answer": ray.get(one)})
            except ray.exceptions.RayError as err:
                _tell(out, {"number": number, "lost": type(err).__name__, "why": str(err)[:600]})
        if ready or ray.cluster_resources().get("CPU"):
            seen = time.monotonic()
        elif (alone := time.monotonic() - seen) > patience:
            _tell(out, {"alone": alone})
            return
    _tell(out, {"done": True})


def _tell(out: TextIO, document: dict[str, Any]) -> None:
    out.write(json.dumps(document) + "\n")
    out.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

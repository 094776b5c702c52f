"""A worker of Ray in a pod of its own: ``python -m pipelines.data_engines.ray_worker HEAD``.

HEAD is the address of a document that names the head (`Head`). The worker joins it, joins the one that takes its place,
and ends when the document is gone, which is the end of the step.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

from pydantic import BaseModel

from contracts import storage
from contracts.errors import PlatformError
from pipelines.data_engines.ray_driver import STORE

IP = "FAIRLEAD_POD_IP"
"""Environment of the worker: the address by which others reach it; empty: Ray finds one."""

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing calls outside
    "RAY_DEDUP_LOGS": "0",
    "RAY_raylet_start_wait_time_s": "120",  # a node that does much else needs more than its 30
    "OMP_NUM_THREADS": "1",
}
_TRIES = 3  # to join one head
_POLL, _LOOK = 0.5, 5.0  # seconds between looks at the process, and at the document
_ENDS = 10.0  # seconds that Ray may take to stop
_ENDED = 128 + signal.SIGTERM


class Head(BaseModel):
    """Where the head of Ray is, and what it admits workers by."""

    address: str
    token: str


def secured(token: str) -> dict[str, str]:
    """Environment of Ray's processes: they speak only with those that know the token."""
    return {**ENVIRONMENT, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}


def main(place: str) -> int:
    """Work for the heads that the document at `place` names, until it is gone; 1 when one cannot be reached.

    A pod that is told to end before that (deleted, evicted, its node drained) fails: its Job makes another.
    """
    # As the first process of a container it has no default. 0 would tell its Job that its work is done for good.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_ENDED))
    known, tried = "", 0
    while text := _read(place, known):
        known, tried = text, tried + 1 if text == known else 1
        if tried > _TRIES:
            sys.stderr.write(f"the head of Ray is not reached: {Head.model_validate_json(text).address}\n")
            return 1
        began = time.monotonic()
        _work(Head.model_validate_json(text), place, known)
        if time.monotonic() - began > _TRIES * _ENDS:
            tried = 0  # it was reached
    return 0


def _read(place: str, known: str) -> str:
    """The document, "" when there is none; what is `known` while the store does not answer."""
    try:
        return storage.read_bytes(place).decode()
    except PlatformError as err:
        return "" if err.code == "not_found" else known


def _work(head: Head, place: str, known: str) -> None:
    """Be a node of the head's cluster until it is lost, or the document says something else."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", f"--address={head.address}"]
    command += ["--num-cpus=1", f"--object-store-memory={STORE}", "--disable-usage-stats"]
    command.append("--include-log-monitor=false")  # nobody reads what it would push to the head
    if own := os.environ.get(IP):
        command.append(f"--node-ip-address={own}")
    node = subprocess.Popen(command, env={**os.environ, **secured(head.token)}, start_new_session=True)
    try:
        looked = time.monotonic()
        while node.poll() is None:
            time.sleep(_POLL)
            if time.monotonic() - looked > _LOOK:
                looked = time.monotonic()
                if _read(place, known) != known:
                    return
    finally:
        _stop(node)


def _stop(node: subprocess.Popen[bytes]) -> None:
    if node.poll() is None:
        node.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            node.wait(_ENDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(node.pid, signal.SIGKILL)
    node.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

"""The process that speaks with Ray for a step: ``python -m pipelines.data_engines.ray_driver SETTINGS``.

Ray ends the process whose head is lost, so it gets one that a step can do without. Each line of stdin is a list of
pieces of work, each line of stdout an answer to one, or that there is nothing more. The end of stdin is the end of the
cluster: workers never outlive their step, however it ends.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, TextIO

TRIES = 3  # of a piece of work whose worker dies, after the first
STORE = 100 << 20  # bytes of Ray's own memory for objects: what we pass are names of files


def main(settings: str) -> int:
    """Answer until stdin ends."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    import ray

    nodes: Any = ray.nodes
    asked = json.loads(settings)
    _start(ray, asked)
    try:
        _tell(out, {"ready": True, "nodes": len(nodes())})
        for line in sys.stdin:
            _answer(ray, json.loads(line), out)
    finally:
        ray.shutdown()
    return 0


def _start(ray: Any, asked: dict[str, Any]) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
    if asked.get("address"):  # of a head that is there
        ray.init(address=asked["address"], **quiet)
        return
    ray.init(
        address="local", num_cpus=asked["workers"], object_store_memory=STORE, _node_ip_address="127.0.0.1",
        _temp_dir=asked["folder"], **quiet,
    )  # fmt: skip


def _answer(ray: Any, items: list[list[str]], out: TextIO) -> None:
    from pipelines.data_engines.work import answered

    call = ray.remote(num_cpus=1, max_retries=TRIES)(answered)
    waiting = {call.remote(work, item): number for number, work, item in items}
    while waiting:
        ready, _ = ray.wait(list(waiting), num_returns=1)
        for one in ready:
            number = waiting.pop(one)
            try:
                _tell(out, {"number": number, "answer": ray.get(one)})
            except ray.exceptions.RayError as err:
                _tell(out, {"number": number, "lost": type(err).__name__, "why": str(err)[:600]})
    _tell(out, {"done": True})


def _tell(out: TextIO, document: dict[str, Any]) -> None:
    out.write(json.dumps(document) + "\n")
    out.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

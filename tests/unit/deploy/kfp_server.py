"""A small HTTP server that speaks the paths of Kubeflow Pipelines (v2beta1) that the command line uses."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Backend:
    """What was posted, and what a run answers: one document per look, the last one again and again."""

    url: str = ""
    posted: dict[str, Any] = field(default_factory=dict)
    looks: list[dict[str, Any]] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)
    refuses: str = ""

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        kind = path.removeprefix("/apis/v2beta1/").partition("?")[0]
        if kind == "healthz":
            return 200, {"multi_user": False}
        if method == "GET" and kind in ("experiments", "recurringruns"):
            return 200, {}
        if method == "POST":
            if self.refuses and kind != "experiments":
                return 400, {"error": self.refuses, "code": 3}
            self.posted[kind] = body
            return 200, {"experiment_id": "e-1", "run_id": "r-1", "recurring_run_id": "c-1", **body}
        if kind == "runs/r-1":
            look = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
            return 200, {"run_id": "r-1", **look}
        if found := re.fullmatch(r"/apis/v1alpha1/runs/r-1/nodes/([\w-]+)/log", path):
            return (200, self.logs[found[1]]) if found[1] in self.logs else (500, "no pod")
        return 404, {"error": f"{method} {path}"}


@contextmanager
def kfp_backend() -> Iterator[Backend]:
    backend = Backend()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply("GET", None)

        def do_POST(self) -> None:
            self._reply("POST", json.loads(self.rfile.read(int(self.headers["content-length"]))))

        def _reply(self, method: str, body: Any) -> None:
            status, document = backend.answer(method, self.path, body)
            data = (document if isinstance(document, str) else json.dumps(document)).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    backend.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield backend
    finally:
        server.shutdown()
        server.server_close()


def task(name: str, state: str, pod: str = "", pod_state: str = "") -> list[dict[str, Any]]:
    """A step as the API server lists it: its node, its driver, and the executor below the node."""
    times = {"start_time": "2026-01-02T03:04:05Z", "end_time": "2026-01-02T03:04:09Z"}
    node = {"task_id": f"t-{name}", "display_name": name, "state": state, "pod_name": f"node-{name}", **times}
    node["child_tasks"] = [{"pod_name": pod or f"pod-{name}"}]
    driver = {"task_id": f"d-{name}", "display_name": f"{name}-driver", "state": "SUCCEEDED", "pod_name": f"drv-{name}"}
    inner = {
        "task_id": f"x-{name}",
        "display_name": "executor",
        "state": pod_state or state,
        "pod_name": pod or f"pod-{name}",
    }
    return [driver, node, inner]

"""A stand-in of Kubeflow Pipelines and of the cluster below it, for tests.

    with kfp_stand_in(speed=20) as cluster:            # 20 seconds of a scenario pass in one
        cluster.put_on_path(tmp_path, monkeypatch)     # the program kubectl
        short = Try(outcome="oom", log=((0.5, event_line("step_started", "train")),))
        cluster.api.scenarios = [Scenario(tasks=each(train={"tries": (short,)}))]   # a KFP task for each step
        cluster.api.scenarios = [Scenario(tasks=grouped("all", all={"tries": (Try(), Try())}))]
        kfp.Client(host=cluster.url)                   # or a port-forward to service ml-pipeline

Each run lives as its scenario says, and kfp.Client and kubectl see it at the moment they look. Of a run that no
scenario was given for every task succeeds. What steps leave in the store is written by the scenario's `actions`.
"""

from __future__ import annotations

import email
import email.policy
import json
import os
import stat
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseServer, StreamRequestHandler, ThreadingTCPServer
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

from tests.argo import NEVER, Scenario, Task, Try, each, grouped
from tests.argo_documents import event_line
from tests.kfp_api import Api, RefusedError
from tests.kfp_run import Run
from tests.kubectl_stand_in import SCRIPT, Kubectl, framed, parsed

__all__ = ["NEVER", "Scenario", "StandIn", "Task", "Try", "each", "event_line", "grouped", "kfp_stand_in"]

Server = TypeVar("Server", bound=BaseServer)
GROUP_CONCAT = "Failed to parse task details: unexpected end of JSON input"


@dataclass
class StandIn:
    """The API server at `url` and the cluster that kubectl asks.

    Attributes:
        requests: of the API, as (time, method, path without what it asks for).  kubectl: the cluster's side.
        queries: what each path was asked for last.
        host: the address that the API is served on.
        breaks: GET of a run answers 500 with this text.  slow: seconds that each answer of the API takes.
    """

    api: Api = field(default_factory=Api)
    url: str = ""
    host: str = "127.0.0.1"
    requests: list[tuple[float, str, str]] = field(default_factory=list)
    queries: dict[str, dict[str, str]] = field(default_factory=dict)
    breaks: str = ""
    slow: float = 0.0
    kubectl: Kubectl = field(init=False)

    def __post_init__(self) -> None:
        self.kubectl = Kubectl(self.api)

    @property
    def run(self) -> Run:
        """The newest run."""
        return list(self.api.runs.values())[-1]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def restart(self, seconds: float) -> None:
        """Refuse connections for a while, as while the server's pod is replaced; port-forwards end."""
        self._server.shutdown()
        self._server.server_close()
        self.kubectl.forwards["ml-pipeline"] = 0

        def again() -> None:
            if not self.kubectl.stopped.wait(seconds):
                self.listen(self.port)

        threading.Thread(target=again, daemon=True).start()

    def busiest(self, window: float = 1.0) -> int:
        """The most requests, of kubectl and kfp.Client together, within any `window` seconds."""
        times = sorted([at for at, *_ in self.requests] + [at for at, _ in self.kubectl.calls])
        return max((sum(1 for other in times if at <= other < at + window) for at in times), default=0)

    def counts(self) -> Counter[str]:
        """How often each path of the API was asked for; ids as ID."""
        return Counter(f"{method} {path}" for _, method, path in self.requests)

    def put_on_path(self, folder: Path, monkeypatch: Any) -> Path:
        """Write the program ``kubectl`` to a folder and put it first on PATH."""
        program = folder / "bin" / "kubectl"
        program.parent.mkdir(parents=True, exist_ok=True)
        address = self.kubectl.address
        program.write_text(f"#!{sys.executable} -IS\nADDRESS = {address!r}\n{SCRIPT}", encoding="utf-8")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
        return program

    def listen(self, port: int = 0) -> None:
        """Serve the API."""
        self._server = _serve(self._reply, port, self.host)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.kubectl.forwards["ml-pipeline"] = self.port

    def _reply(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        path = parts.path.removeprefix("/apis/v2beta1/")
        shown = "/".join("ID" if len(part) == 36 else part for part in path.split("/"))
        self.requests.append((time.monotonic(), handler.command, shown))
        self.queries[shown] = dict(parse_qsl(parts.query))
        body = _body(handler)
        time.sleep(self.slow)
        try:
            if self.breaks and shown == "runs/ID" and handler.command == "GET":
                raise RefusedError(500, self.breaks)
            if path == parts.path:  # another version of the API, whose log of a pod is of no use
                raise RefusedError(404, "Not Found")
            status, document = 200, self.api.answer(handler.command, path, self.queries[shown], body)
        except RefusedError as err:
            status, document = err.status, err.body
        data = json.dumps(document).encode()
        handler.send_response(status)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def _kubectl(self, handler: StreamRequestHandler) -> None:
        for part in self.kubectl.answer(*parsed(handler.rfile.readline())):
            handler.wfile.write(framed(part))
            handler.wfile.flush()


@contextmanager
def kfp_stand_in(**api: Any) -> Iterator[StandIn]:
    """A stand-in that runs; `api` are attributes of `tests.kfp_api.Api`."""
    made = StandIn(Api(**api))
    made.listen()
    control = _serve_kubectl(made._kubectl)
    made.kubectl.address = control.server_address
    stopped = threading.Event()
    ticker = threading.Thread(target=_act, args=(made.api, stopped), daemon=True)
    ticker.start()
    try:
        yield made
    finally:
        stopped.set()
        made.kubectl.stopped.set()
        for server in (made._server, control):
            server.shutdown()
            server.server_close()
        ticker.join()


def _act(api: Api, stopped: threading.Event) -> None:
    """What scenarios do beside the cluster's own doing, each at its time."""
    while not stopped.wait(0.02):
        for run in list(api.runs.values()):
            run.act()


def _serve(reply: Any, port: int, host: str) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(BrokenPipeError, ConnectionResetError):  # the client has gone
                reply(self)

        do_POST = do_DELETE = do_PATCH = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    ThreadingHTTPServer.allow_reuse_address = True
    return _running(ThreadingHTTPServer((host, port), Handler))


def _serve_kubectl(reply: Any) -> ThreadingTCPServer:
    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            with suppress(BrokenPipeError, ConnectionResetError):  # the client has gone
                reply(self)

    ThreadingTCPServer.daemon_threads = True
    return _running(ThreadingTCPServer(("127.0.0.1", 0), Handler))


def _running(server: Server) -> Server:
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server


def _body(handler: BaseHTTPRequestHandler) -> Any:
    """JSON as an object, the file of a multipart upload as bytes."""
    raw = handler.rfile.read(int(handler.headers.get("content-length") or 0))
    kind = handler.headers.get("content-type", "")
    if kind.startswith("multipart/"):
        message = email.message_from_bytes(f"content-type: {kind}\n\n".encode() + raw, policy=email.policy.HTTP)
        return next(part.get_payload(decode=True) for part in message.iter_parts())
    return json.loads(raw) if raw else None

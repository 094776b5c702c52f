"""What `helm test` tries from the pods of parts: the right server passes, and what is wrong is said with its cure."""

from __future__ import annotations

import importlib.util
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import ModuleType
from typing import Any

import pytest

from tests.helm.chart import containers, environment, pods, render
from tests.helm.edges import table
from tests.helm.program import CHARTS

FILE = CHARTS / "pipelines" / "files" / "edges.py"
EVERYTHING = {"pipelines": {"ui": {"enabled": True}}}
SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


@pytest.fixture
def edges(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("edges_of_helm_test", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "PATIENCE", 0)
    monkeypatch.setattr(module, "SECONDS", 0.5)
    return module


@contextmanager
def answering(say: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that says something to whoever connects; yields its port."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                say(connection)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield server.getsockname()[1]
    finally:
        server.close()


@contextmanager
def web(status: int, body: bytes = b"") -> Iterator[int]:
    """A web server that answers everything alike."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - the name that the library looks for

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()


def said(edges: ModuleType, name: str, port: int, host: str = "127.0.0.1", **more: Any) -> str:
    edge = {"name": name, "scheme": "http", "host": host, "port": port, "needed": True, **more}
    answer: str = edges.attempt(edge, time.monotonic())
    return answer


def test_every_edge_of_the_table_has_a_probe(edges: ModuleType) -> None:
    for name, pod in pods(render("platform", EVERYTHING)):
        if name.startswith("Pod/") and "EDGES" in (given := environment(containers(pod)[0])):
            tried = json.loads(given["EDGES"])
            assert {each["name"] for each in tried} <= set(edges.PROBES), name
            wanted = {f"{server}:{port}" for server, port in table().clients[given["FROM"]]}
            assert {each["name"] for each in tried} - {"kubernetes"} == wanted, name


def test_the_parts_without_a_port_are_tried_by_a_pod_with_their_labels() -> None:
    """Nobody else notices that they reach nothing: they have no probe, or restart for ever."""
    objects = dict(pods(render("platform", EVERYTHING)))
    for part, kind in (("persistenceagent", "Deployment"), ("scheduledworkflow", "Deployment"), ("ui", "Deployment")):
        real = objects[f"{kind}/fairlead-{part}"]["metadata"]["labels"]
        assert objects[f"Pod/fairlead-edges-{part}"]["metadata"]["labels"] == real
    step = objects["Pod/fairlead-edges-steps"]["metadata"]["labels"]
    assert step["workflows.argoproj.io/completed"] == "true", "Argo leaves it alone"
    assert "workflows.argoproj.io/workflow" in step
    assert not [key for key in step if key.startswith("fairlead.io/access-")], "drivers have none"


def test_no_service_sends_anything_to_a_pod_that_only_tries() -> None:
    for name, pod in pods(render("platform", EVERYTHING)):
        if name.startswith("Pod/fairlead-edges-"):
            (container,) = containers(pod)
            assert container["readinessProbe"]["exec"] == {"command": ["false"]}, name


def test_what_is_stopped_is_not_tried() -> None:
    made = dict(pods(render("platform", {"pipelines": {"replicas": 0}})))
    assert [name for name in made if "edges" in name] == ["Pod/fairlead-edges-monitor", "Pod/fairlead-edges-loop"]
    tried = json.loads(environment(containers(made["Pod/fairlead-edges-loop"])[0])["EDGES"])
    assert "pipelines:8888" not in {each["name"] for each in tried}


def test_a_server_of_grpc_passes_and_another_one_does_not(edges: ModuleType) -> None:
    with answering(lambda connection: connection.sendall(SETTINGS)) as port:
        assert said(edges, "pipelines:8887", port).startswith("ok in ")
    with answering(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        assert "does not speak HTTP/2" in said(edges, "metadata:8080", port)


@pytest.mark.parametrize(
    ("name", "greeting", "ok"),
    [
        ("redis:6379", b"-NOAUTH Authentication required.\r\n", True),
        ("redis:6379", b"HTTP/1.1 400\r\n", False),
        ("sql:3306", b"\x4a\x00\x00\x00\x0a5.5.5-10.11.11-MariaDB\x00", True),
        ("sql:3306", b"HTTP/1.1 400\r\n", False),
    ],
)
def test_stores_are_known_by_what_they_say(edges: ModuleType, name: str, greeting: bytes, ok: bool) -> None:
    with answering(lambda connection: connection.sendall(greeting)) as port:
        assert said(edges, name, port).startswith("ok") is ok


@pytest.mark.parametrize(
    ("name", "status", "ok"),
    [("pipelines:8888", 200, True), ("pipelines:8888", 503, False), ("s3:9000", 403, True), ("s3:9000", 502, False)],
)
def test_servers_of_http_are_known_by_their_status(edges: ModuleType, name: str, status: int, ok: bool) -> None:
    with web(status) as port:
        assert said(edges, name, port).startswith("ok") is ok


def test_the_proxy_of_the_page_passes_when_the_metadata_store_answers_through_it(edges: ModuleType) -> None:
    with web(200, b"\x80\x00\x00\x00\x0fgrpc-status:0\r\n") as port:
        assert said(edges, "metadata-web:9090", port).startswith("ok")
    with web(200, b"\x80\x00\x00\x00\x10grpc-status:14\r\n") as port:
        assert "the metadata store does not answer" in said(edges, "metadata-web:9090", port)
    with web(503) as port:
        assert "reaches no metadata store. Fix: " in said(edges, "metadata-web:9090", port)


def test_what_is_wrong_is_told_apart(edges: ModuleType) -> None:
    with answering(lambda connection: time.sleep(1) or None) as port:
        assert "network policy" in said(edges, "redis:6379", port)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        free = closed.getsockname()[1]
    assert "nobody listens. Fix: kubectl get pods" in said(edges, "redis:6379", free)
    unknown = said(edges, "redis:6379", 1, host="no-such-part.invalid")
    assert "its name is not known. Fix: " in unknown


def test_a_part_that_need_not_be_there_may_be_missing(edges: ModuleType) -> None:
    assert said(edges, "redis:6379", 1, host="no-such-part.invalid", needed=False) == "ok, it is not installed"


def test_each_line_says_who_reached_whom_and_the_pod_fails_with_one(
    edges: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with web(200) as port:
        good = {"name": "pipelines:8888", "scheme": "http", "host": "127.0.0.1", "port": port, "needed": True}
        bad = good | {"name": "pipelines:8887"}
        monkeypatch.setenv("FROM", "persistenceagent")
        monkeypatch.setenv("EDGES", json.dumps([good, bad]))
        assert edges.run() == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"persistenceagent -> 127.0.0.1:{port}: ok in ")
    assert second.startswith(f"persistenceagent -> 127.0.0.1:{port}: FAILED, ")

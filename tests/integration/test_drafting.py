"""The real router tells a candidate where the champion is, whatever clients send."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from contracts.ports import free_port
from deploy.cli.machine.ports import HOST
from deploy.cli.serving.router import Router
from services.rollout.envoy import DRAFT_HEADER, Address, Routing

pytestmark = pytest.mark.integration


class Version(BaseHTTPRequestHandler):
    """Says which port it has, and what the router told it."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._say({})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self._say({"port": self.server.server_port, "told": self.headers.get(DRAFT_HEADER)})  # type: ignore[attr-defined]

    def _say(self, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def ports() -> Iterator[list[int]]:
    """Of two versions."""
    servers = [ThreadingHTTPServer((HOST, 0), Version) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield [server.server_port for server in servers]
    for server in servers:
        server.shutdown()
        server.server_close()


def test_the_candidate_alone_is_told(tmp_path: Path, ports: list[int]) -> None:
    port = free_port()
    router = Router(tmp_path, (Address(HOST, port),), Address(HOST, free_port()))
    versions = {name: Address(HOST, at) for name, at in zip("12", ports, strict=True)}
    routing = Routing(versions=versions, champion="1", candidate="2", weight=50, drafts=True)
    router.write(routing, Routing(versions=versions, champion=""))
    process = router.start()
    try:
        told: set[tuple[int, str | None]] = set()
        end = time.monotonic() + 60
        while {at for at, _ in told} != set(ports) and time.monotonic() < end:
            told |= asked(port)
        assert told == {(ports[0], None), (ports[1], f"{HOST}:{ports[0]}")}
    finally:
        process.end(now=True)


def asked(port: int) -> set[tuple[int, str | None]]:
    """What a client learns that wants another version to be asked."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("POST", "/recommend", b"{}", {DRAFT_HEADER: "evil:80"})
        answer = connection.getresponse()
        found = json.loads(answer.read()) if answer.status == 200 else {}
    except OSError:
        found = {}
    finally:
        connection.close()
    if not found:
        time.sleep(0.2)
        return set()
    return {(found["port"], found["told"])}

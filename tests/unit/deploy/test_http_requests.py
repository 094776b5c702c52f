"""Requests over several connections, measured."""

from __future__ import annotations

import http.server
import json
import math
import threading
from collections.abc import Iterator
from typing import ClassVar

import pytest

from contracts.ports import free_port
from deploy.cli.machine.ports import is_free
from deploy.cli.serving.http_requests import quantile, send


class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    connections: ClassVar[set[object]] = set()

    def do_POST(self) -> None:
        Echo.connections.add(self.client_address)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(422 if json.loads(body) == "bad" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    Echo.connections = set()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/echo"
        server.shutdown()


def test_answers_come_in_the_order_of_the_requests_over_few_connections(url) -> None:
    seen = []
    answers = send(url, [{"n": n} for n in range(50)], 4, lambda done, total: seen.append((done, total)))
    assert [answer.body["n"] for answer in answers] == list(range(50))
    assert {answer.status for answer in answers} == {200}
    assert 1 <= len(Echo.connections) <= 4
    assert sorted(seen)[-1] == (50, 50)


def test_a_refused_request_is_an_answer_too(url) -> None:
    assert [answer.status for answer in send(url, ["good", "bad"], 1)] == [200, 422]


def test_no_server_gives_status_0_and_the_reason() -> None:
    answer = send(f"http://127.0.0.1:{free_port()}/x", [1], 1)[0]
    assert answer.status == 0
    assert "refused" in answer.body["error"]


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.95, 95), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_quantile_is_the_nearest_rank(share, expected) -> None:
    assert quantile(list(range(100, 0, -1)), share) == expected


def test_quantile_of_nothing_is_nan() -> None:
    assert math.isnan(quantile([], 0.5))


def test_a_listening_port_is_not_free(url) -> None:
    port = int(url.split(":")[2].split("/")[0])
    assert not is_free(port)
    assert is_free(free_port())

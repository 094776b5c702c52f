"""The registry's champion over REST: set once, and taken back only from who is it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from contracts.champions import CHAMPION, HISTORY
from contracts.errors import PlatformError
from services.rollout.champion import Champion


class Registry(BaseHTTPRequestHandler):
    """The part of MLflow's REST API that is asked."""

    alias: str
    tags: dict[str, str]

    def do_GET(self) -> None:
        assert self.path == "/api/2.0/mlflow/registered-models/get?name=toy"
        aliases = [{"alias": CHAMPION, "version": type(self).alias}] if type(self).alias else []
        self._answer({"registered_model": {"name": "toy", "aliases": aliases}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path.endswith("/set-tag"):
            type(self).tags[body["key"]] = body["value"]
        else:
            assert (self.path, body["alias"]) == ("/api/2.0/mlflow/registered-models/alias", CHAMPION)
            type(self).alias = body["version"]
        self._answer({})

    def _answer(self, document: Any) -> None:
        data = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    Registry.alias, Registry.tags = "1", {}
    server = HTTPServer(("127.0.0.1", 0), Registry)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_promotion_is_in_the_history_once(address: str) -> None:
    champion = Champion(address, "toy")
    champion.promote("2")
    champion.promote("2")
    assert Registry.alias == "2"
    ((tag, version),) = Registry.tags.items()
    assert (tag.startswith(HISTORY), version) == (True, "2")


def test_who_is_not_the_champion_cannot_lose_it(address: str) -> None:
    Champion(address, "toy").withdraw("2", "3")
    assert Registry.alias == "1"
    Champion(address, "toy").withdraw("1", "3")
    assert Registry.alias == "3"


def test_a_registry_that_is_away_is_named_and_without_one_nothing_is_asked(address: str) -> None:
    Champion("", "toy").promote("2")
    with pytest.raises(PlatformError) as refused:
        Champion("http://127.0.0.1:1", "toy").promote("2")
    assert refused.value.code == "registry"

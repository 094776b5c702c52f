"""A service with OpenAI's protocol whose answers a test decides, and that counts what it is asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Say = Callable[[dict[str, Any]], Any]  # of the request: the answer's text, or (status, document)


class StandIn:
    """Where it is, and what it was asked."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[dict[str, Any]] = []


@contextmanager
def chat_stand_in(say: Say, model: str = "stand-in") -> Iterator[StandIn]:
    """The service on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(200, {"object": "list", "data": [{"id": model}]})

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            found.asked.append(asked)
            said = say(asked)
            if isinstance(said, tuple):
                return self._send(*said)
            choice = {"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
            return self._send(200, {"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})

        def _send(self, status: int, document: Any) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = StandIn(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()


def last(asked: dict[str, Any]) -> str:
    """The last message of a request."""
    text: str = asked["messages"][-1]["content"]
    return text

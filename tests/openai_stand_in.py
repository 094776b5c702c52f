"""A backend with OpenAI's protocol, in a thread: what it answers is set by a test, what it got is kept."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Backend(ThreadingHTTPServer):
    """One server.

    Attributes:
        got: bodies of the requests, with their headers under ``headers``.
        plan: what the next requests get: ``ok``, a status, ``break`` (in the middle), ``empty`` (no token), ``slow``.
    """

    daemon_threads = True

    def __init__(self, words: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.words, self.got, self.plan = words, [], []
        self.gone = 0

    @property
    def url(self) -> str:
        """Up to /v1."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Backend

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.got.append(asked | {"headers": dict(self.headers.items()), "path": self.path})
        plan = self.server.plan.pop(0) if self.server.plan else "ok"
        if isinstance(plan, int):
            return self._whole({"error": {"message": "secret sk-123", "type": "x", "param": None, "code": "x"}}, plan)
        if plan == "slow":
            time.sleep(1.5)
        usage = {"prompt_tokens": 10, "completion_tokens": len(self.server.words), "total_tokens": 0}
        if not asked.get("stream"):
            message = {"role": "assistant", "content": self.server.words, "refusal": None}
            choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
            return self._whole({"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage})
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self._event(_chunk({"role": "assistant", "content": ""}))
        words = "" if plan == "empty" else self.server.words
        try:
            for at, word in enumerate(words):
                self._event(_chunk({"content": word}))
                if plan == "break" and at == 1:
                    self.close_connection = True
                    return None
                if plan == "endless":
                    while True:
                        self._event(_chunk({"content": word}))
                        time.sleep(0.02)
        except OSError:
            self.server.gone += 1
            self.close_connection = True
            return None
        if plan != "empty":
            self._event({**_chunk({}), "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            if (asked.get("stream_options") or {}).get("include_usage"):
                self._event({**_chunk({}), "choices": [], "usage": usage})
            self._write(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")
        return None

    def _event(self, document: dict[str, Any]) -> None:
        self._write(b"data: " + json.dumps({"model": "as-it-is-called-here", **document}).encode() + b"\n\n")

    def _write(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _whole(self, document: dict[str, Any], status: int = 200) -> None:
        body = json.dumps({"model": "as-it-is-called-here", **document}).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _chunk(delta: dict[str, Any]) -> dict[str, Any]:
    choices = [{"index": 0, "delta": delta, "finish_reason": None}]
    return {"id": "1", "object": "chat.completion.chunk", "choices": choices, "usage": None}


@contextmanager
def standing_in(words: str) -> Iterator[Backend]:
    """A backend that answers with these letters, each a token."""
    server = Backend(words)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()

"""HTTP protocol of uvicorn with a limit on the time for headers, and with answers that are written by one system call.

Without the limit a client that sends a byte of its headers now and then holds a connection for as long as it likes.
This is the one file that knows uvicorn's inside; what that is worth is in docs/adr/0018, and a test names what it uses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from math import inf
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle


class WholeCycle(RequestResponseCycle):
    """One request; it can be answered in one piece."""

    def send_whole(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bool:
        """Write a complete answer whose headers are known to be valid; false when it has to go the long way."""
        if self.flow.write_paused or self.response_started or self.scope["method"] == "HEAD":
            return False
        self.response_started = self.response_complete = True
        self.message_event.set()
        if self.disconnected:
            return True
        parts, closes = [STATUS_LINE[status]], not self.keep_alive
        for name, value in (*self.default_headers, *headers):
            if name == b"connection":
                closes = closes or value == b"close"
            else:
                parts += (name, b": ", value, b"\r\n")
        self.keep_alive = not closes
        parts += (b"connection: close\r\n\r\n" if closes else b"\r\n", body)
        self.transport.write(b"".join(parts))
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
        return True


def impatient(header_seconds: float) -> type[HttpToolsProtocol]:
    """A protocol that closes a connection whose headers take longer."""

    class ImpatientProtocol(HttpToolsProtocol):
        """One timer per connection looks at `_due`, the moment at which the client's time is over."""

        _due = inf
        _watch: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._due = self.loop.time() + header_seconds
            self._look()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            if self.cycle is not None:  # the first request's time runs since the connection was made
                self._due = self.loop.time() + header_seconds

        def on_headers_complete(self) -> None:
            self._due, before = inf, self.cycle
            super().on_headers_complete()
            if self.cycle is before:  # it asks for a WebSocket, which another protocol goes on with
                return
            self.cycle.__class__ = WholeCycle  # uvicorn has no setting for it; the request's task has not begun yet

        def on_response_complete(self) -> None:
            self.server_state.total_requests += 1
            if self.transport.is_closing():
                return
            self.flow.resume_reading()
            if self.pipeline:
                cycle, app = self.pipeline.pop()
                self._start_asgi_task(cycle, app)
            else:
                self._due = self.loop.time() + self.timeout_keep_alive

        def handle_websocket_upgrade(self) -> None:
            if self._watch is not None:
                self._watch.cancel()
            super().handle_websocket_upgrade()

        def connection_lost(self, exc: Exception | None) -> None:
            if self._watch is not None:
                self._watch.cancel()
            super().connection_lost(exc)

        def _look(self) -> None:
            left = self._due - self.loop.time()
            if left <= 0:
                self.transport.close()
            else:  # a request may begin or end meanwhile, hence never later than its time could be over
                shortest = min(left, header_seconds, self.timeout_keep_alive)
                self._watch = self.loop.call_later(shortest, self._look)

    return ImpatientProtocol

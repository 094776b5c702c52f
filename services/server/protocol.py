"""HTTP protocol of uvicorn with a limit on the time for headers, and with answers that are written by one system call.

Without the limit a client that sends a byte of its headers now and then holds a connection for as long as it likes.
This is the one file that knows uvicorn's inside; what that is worth is in docs/adr/0018, and a test names what it uses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from math import inf
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

_CORKED = 1 << 16  # bytes of a stream that wait at most for the end of the loop's turn


class WholeCycle(RequestResponseCycle):
    """One request; it can be answered in one piece, or by pieces of which those of one turn of the loop leave together.

    Attributes:
        when_gone: called once when the client has left before the end of the answer.
    """

    when_gone: Callable[[], None] | None = None
    _parts: list[bytes]
    _size = 0
    _soon: asyncio.Handle | None = None

    def send_whole(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bool:
        """Write a complete answer whose headers are known to be valid; false when it has to go the long way."""
        if self.flow.write_paused or self.response_started or self.scope["method"] == "HEAD":
            return False
        self.response_started = self.response_complete = True
        self.message_event.set()
        if self.disconnected:
            return True
        parts = [*self._head(status, headers), body]
        self.transport.write(b"".join(parts))
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
        return True

    def send_head(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Begin an answer of pieces, whose headers are known to be valid; false when it has to go the long way."""
        if self.response_started or self.scope["method"] == "HEAD":
            return False
        self.response_started = True
        self.waiting_for_100_continue = False
        self._parts = self._head(status, (*headers, (b"transfer-encoding", b"chunked")))
        self._soon = asyncio.get_running_loop().call_soon(self.flush)
        return True

    async def send_piece(self, body: bytes, *, last: bool = False) -> None:
        """Write a piece, and the end behind the `last` one."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if body:
            self._parts += (b"%x\r\n" % len(body), body, b"\r\n")
            self._size += len(body)
        if last:
            self._parts.append(b"0\r\n\r\n")
            self.response_complete = True
            self.message_event.set()
        if last or self._size > _CORKED:
            self.flush()
        elif self._soon is None:
            self._soon = asyncio.get_running_loop().call_soon(self.flush)
        if last:
            if not self.keep_alive:
                self.transport.close()
            self.on_response()

    def flush(self) -> None:
        """Write what waits."""
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        if self._parts and not self.disconnected and not self.transport.is_closing():
            self.transport.write(b"".join(self._parts))
        self._parts, self._size = [], 0

    def watch(self, when_gone: Callable[[], None] | None) -> None:
        """Call this when the client leaves, which is looked for from now on; None: nothing any more."""
        self.when_gone = when_gone
        if when_gone is not None:
            if self.disconnected:
                asyncio.get_running_loop().call_soon(self.left)
            else:
                self.flow.resume_reading()

    def left(self) -> None:
        """Tell who watches that the client has left."""
        when_gone, self.when_gone = self.when_gone, None
        if when_gone is not None and self.disconnected:
            when_gone()

    def _head(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
        """The lines before the body; whether the connection stays is known then."""
        parts, closes = [STATUS_LINE[status]], not self.keep_alive
        for name, value in (*self.default_headers, *headers):
            if name == b"connection":
                closes = closes or value == b"close"
            else:
                parts += (name, b": ", value, b"\r\n")
        self.keep_alive = not closes
        parts.append(b"connection: close\r\n\r\n" if closes else b"\r\n")
        return parts


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
            if isinstance(self.cycle, WholeCycle):
                self.cycle.left()

        def _look(self) -> None:
            left = self._due - self.loop.time()
            if left <= 0:
                self.transport.close()
            else:  # a request may begin or end meanwhile, hence never later than its time could be over
                shortest = min(left, header_seconds, self.timeout_keep_alive)
                self._watch = self.loop.call_later(shortest, self._look)

    return ImpatientProtocol

"""Streams of an engine, llama.cpp or vLLM: requests to it, and the events that it answers with."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any

import orjson

from contracts.llama_process import LlamaProcess
from contracts.remote_engine import RemoteEngine, failure_of

_END = b"[DONE]"
_MOST = 1 << 22  # bytes that may wait to be read


class EngineGoneError(Exception):
    """llama.cpp ended, or closed a stream before its end."""


class EngineRefusedError(Exception):
    """llama.cpp does not answer a request.

    Attributes:
        error: what it says: ``code``, ``message``, ``type``, and more.
    """

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error.get("message", ""))
        self.error = error


class EngineStream(asyncio.Protocol):
    """The events of one request; closing it in the middle stops the work on it."""

    def __init__(self) -> None:
        self._ended: Callable[[], None] | None = None
        self._transport: asyncio.Transport | None = None
        self._come: list[bytes] = []  # that nobody has looked at
        self._size, self._lost, self._paused = 0, False, False
        self._waiter: asyncio.Future[None] | None = None
        self._raw = self._text = b""  # chunks, and events, that are not whole yet
        self._over = False
        self._events: deque[bytes] = deque()

    @classmethod
    async def open(cls, process: LlamaProcess | RemoteEngine, path: str, document: Any) -> EngineStream:
        """Send a request, and read the head of its answer.

        Raises:
            EngineRefusedError, EngineGoneError.
        """
        if isinstance(process, RemoteEngine):
            document = process.translated(path, document)
        body = orjson.dumps(document)
        head = (
            f"POST {path} HTTP/1.1\r\nhost: {process.host}\r\nauthorization: Bearer {process.key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        loop = asyncio.get_running_loop()
        try:
            if process.socket:
                transport, stream = await loop.create_unix_connection(cls, process.socket)
            else:
                transport, stream = await loop.create_connection(cls, process.host, process.port)
        except OSError as err:
            raise EngineGoneError from err
        try:
            transport.write(head.encode() + body)
            await stream._head()
        except BaseException:
            stream.close()
            raise
        return stream

    def when_ended(self, call: Callable[[], None]) -> None:
        """Have this called once the engine has sent all, though perhaps not all of it was read; or has gone."""
        self._ended = call
        if self._lost:
            call()

    def connection_made(self, transport: Any) -> None:
        """See `asyncio.Protocol`."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._come.append(data)
        self._size += len(data)
        if self._size > _MOST and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._lost = True
        self._wake()
        if self._ended is not None:
            self._ended()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _piece(self) -> bytes:
        """What has arrived; b"" after the end."""
        if not self._come and not self._lost:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        whole = b"".join(self._come)
        self._come.clear()
        self._size = 0
        if self._paused and self._transport is not None and not self._lost:
            self._paused = False
            self._transport.resume_reading()
        return whole

    @property
    def waits(self) -> bool:
        """Whether the next event has not arrived yet."""
        return not self._events

    async def next(self) -> dict[str, Any] | None:
        """The next event, None after the last one.

        Raises:
            EngineRefusedError: it gives up in the middle.
            EngineGoneError: it has ended.
        """
        while not self._events:
            await self._more()
        event = self._events.popleft().strip()
        name, _, text = event.partition(b": ")
        if text == _END:
            return None
        document: dict[str, Any] = (orjson.loads(text) if name in (b"data", b"error") else None) or {}  # or null
        if "error" in document:
            raise EngineRefusedError(document["error"])
        return document

    def close(self) -> None:
        """Leave; llama.cpp frees the slot when it notices."""
        if self._transport is not None:
            with contextlib.suppress(RuntimeError):  # the loop may be closed already
                self._transport.close()

    async def _head(self) -> None:
        head, found = b"", b""
        while not found:
            piece = await self._piece()
            if not piece:
                raise EngineGoneError
            head, found, self._raw = (head + piece).partition(b"\r\n\r\n")
        status, _, rest = head.partition(b"\r\n")
        if status.split(b" ")[1] == b"200":
            self._take()
            return
        headers = dict(line.split(b": ", 1) for line in rest.lower().split(b"\r\n") if b": " in line)
        length = int(headers.get(b"content-length", b"0"))
        while len(self._raw) < length:
            piece = await self._piece()
            if not piece:
                raise EngineGoneError
            self._raw += piece
        try:
            document = orjson.loads(self._raw[:length])
        except orjson.JSONDecodeError as err:
            raise EngineGoneError from err
        raise EngineRefusedError(failure_of(document, int(status.split(b" ")[1])))

    async def _more(self) -> None:
        """Take all whole chunks of what has arrived."""
        piece = await self._piece()
        self._raw += piece
        self._take()
        if not self._events and (self._over or not piece):
            raise EngineGoneError

    def _take(self) -> None:
        """The events of the whole chunks."""
        raw, at, parts = self._raw, 0, [self._text]
        while (end := raw.find(b"\r\n", at)) >= 0:
            size = int(raw[at:end], 16)
            after = end + 2 + size + 2
            if len(raw) < after:
                break
            parts.append(raw[end + 2 : after - 2])
            at, self._over = after, not size
        self._raw = raw[at:]
        *whole, self._text = b"".join(parts).split(b"\n\n")
        self._events += [one for one in whole if one.strip()]

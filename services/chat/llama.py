"""Streams of an engine, llama.cpp or vLLM: requests to it, and the events that it answers with."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Any

import orjson

from contracts.llama_process import LlamaProcess
from contracts.remote_engine import RemoteEngine, failure_of

_END = b"[DONE]"
_AT_ONCE = 1 << 16


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


class EngineStream:
    """The events of one request; closing it in the middle stops the work on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
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
        try:
            reader, writer = await asyncio.open_connection(process.host, process.port, limit=1 << 22)
        except OSError as err:
            raise EngineGoneError from err
        stream = cls(reader, writer)
        try:
            writer.write(head.encode() + body)
            await stream._head()
        except BaseException:
            stream.close()
            raise
        return stream

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
        with contextlib.suppress(RuntimeError):  # the loop may be closed already
            self._writer.close()

    async def _head(self) -> None:
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, OSError) as err:
            raise EngineGoneError from err
        status, _, rest = head.partition(b"\r\n")
        if status.split(b" ")[1] == b"200":
            return
        headers = dict(line.split(b": ", 1) for line in rest.lower().split(b"\r\n") if b": " in line)
        length = int(headers.get(b"content-length", b"0"))
        try:
            document = orjson.loads(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, OSError, orjson.JSONDecodeError) as err:
            raise EngineGoneError from err
        raise EngineRefusedError(failure_of(document, int(status.split(b" ")[1])))

    async def _more(self) -> None:
        """Take all whole chunks of what has arrived."""
        try:
            piece = await self._reader.read(_AT_ONCE)
        except OSError as err:
            raise EngineGoneError from err
        self._raw += piece
        while (end := self._raw.find(b"\r\n")) >= 0:
            size = int(self._raw[:end], 16)
            after = end + 2 + size + 2
            if len(self._raw) < after:
                break
            self._text += self._raw[end + 2 : after - 2]
            self._raw = self._raw[after:]
            self._over = not size
        *whole, self._text = self._text.split(b"\n\n")
        self._events += [one for one in whole if one.strip()]
        if not self._events and (self._over or not piece):
            raise EngineGoneError

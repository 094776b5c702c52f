"""Streams of llama.cpp: requests to its process, and the events that it answers with."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import orjson

from contracts.llama_process import LlamaProcess

_END = b"[DONE]"


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
        self._rest = b""
        self._events: list[bytes] = []

    @classmethod
    async def open(cls, process: LlamaProcess, path: str, document: Any) -> EngineStream:
        """Send a request, and read the head of its answer.

        Raises:
            EngineRefusedError, EngineGoneError.
        """
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

    async def next(self) -> dict[str, Any] | None:
        """The next event, None after the last one.

        Raises:
            EngineRefusedError: it gives up in the middle.
            EngineGoneError: it has ended.
        """
        while not self._events:
            *whole, self._rest = (self._rest + await self._chunk()).split(b"\n\n")
            self._events = [one for one in whole if one.strip()]
        event = self._events.pop(0).strip()
        name, _, text = event.partition(b": ")
        if text == _END:
            return None
        document: dict[str, Any] = orjson.loads(text) if name in (b"data", b"error") else {}
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
        raise EngineRefusedError(document.get("error", {}))

    async def _chunk(self) -> bytes:
        try:
            size = int(await self._reader.readuntil(b"\r\n"), 16)
            piece = await self._reader.readexactly(size + 2)
        except (asyncio.IncompleteReadError, OSError, ValueError) as err:
            raise EngineGoneError from err
        if not size:
            raise EngineGoneError
        return piece[:-2]

"""The chat model that writes answers from passages: somebody else's, or one of our own in a process beside this one.

What it is asked, and what is made of what it says, is said by `contracts.written_answers`.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from contracts.errors import PlatformError
from contracts.llama_process import LlamaProcess
from contracts.remote_engine import RemoteEngine
from services.settings import WriterSettings


class WriterFailedError(Exception):
    """The chat model gives no answer."""


@dataclass
class Writer:
    """A chat model behind OpenAI's interface.

    Attributes:
        address: http:// or https://, before ``/v1``.  model: its name there.  process: where it is one of our own.
    """

    settings: WriterSettings
    address: str
    key: str
    model: str = ""
    process: LlamaProcess | RemoteEngine | None = field(default=None, repr=False)

    async def pieces(self, messages: Sequence[dict[str, str]]) -> AsyncIterator[str]:
        """What the model writes, piece by piece; closing the iterator ends the request.

        Raises:
            WriterFailedError: with what went wrong.
        """
        loop, queue = asyncio.get_running_loop(), asyncio.Queue[str | Exception | None]()
        connection = self._connection()

        def read() -> None:
            try:
                for piece in self._read(connection, messages):
                    loop.call_soon_threadsafe(queue.put_nowait, piece)
                loop.call_soon_threadsafe(queue.put_nowait, None)
            except (OSError, http.client.HTTPException, ValueError, KeyError, AttributeError, WriterFailedError) as err:
                with contextlib.suppress(RuntimeError):  # nobody waits any more
                    loop.call_soon_threadsafe(queue.put_nowait, err)

        threading.Thread(target=read, name="writer", daemon=True).start()
        try:
            while (got := await queue.get()) is not None:
                if isinstance(got, Exception):
                    raise WriterFailedError(str(got) or type(got).__name__) from got
                yield got
        finally:
            if connection.sock is not None:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(2)
            connection.close()

    def names(self) -> list[str]:
        """The models that there are."""
        connection = self._connection()
        try:
            connection.request("GET", f"{urlsplit(self.address).path.rstrip('/')}/v1/models", headers=self._headers())
            response = connection.getresponse()
            document = json.loads(response.read())
            if response.status != 200:
                raise ValueError(f"it answers {response.status}")
            return [str(one["id"]) for one in document["data"]]
        finally:
            connection.close()

    def close(self) -> None:
        """End the process, where it is our own."""
        if self.process is not None:
            self.process.stop()

    def _connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.address)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return kind(parts.hostname or "", parts.port, timeout=self.settings.timeout_seconds)

    def _headers(self) -> dict[str, str]:
        key = {"authorization": f"Bearer {self.key}"} if self.key else {}
        return {"content-type": "application/json", "accept": "text/event-stream", **key}

    def _read(self, connection: http.client.HTTPConnection, messages: Sequence[dict[str, str]]) -> Any:
        body = {
            "model": self.model, "messages": list(messages), "stream": True, "temperature": 0,
            "max_tokens": self.settings.max_tokens,
        }  # fmt: skip
        path = f"{urlsplit(self.address).path.rstrip('/')}/v1/chat/completions"
        connection.request("POST", path, json.dumps(body).encode(), self._headers())
        response = connection.getresponse()
        if response.status != 200:
            raise WriterFailedError(f"it answers {response.status}: {response.read(300).decode(errors='replace')}")
        for line in response:
            name, _, text = line.strip().partition(b":")
            if name != b"data" or text.strip() == b"[DONE]":
                continue
            document = json.loads(text)
            if "error" in document:
                raise WriterFailedError(str(document["error"])[:300])
            for choice in document.get("choices", ()):
                if piece := (choice.get("delta") or {}).get("content"):
                    yield str(piece)


def open_writer(settings: WriterSettings) -> Writer | None:
    """Whoever the settings name; None where answers are quoted.

    Raises:
        PlatformError: both an address and a bundle are named, or nobody answers there.
    """
    if settings.url and settings.bundle:
        raise PlatformError(
            "writer.url and writer.bundle name two chat models", fix="leave one of them out", code="bad_settings"
        )
    if settings.bundle:
        return _own(settings)
    if not settings.url:
        return None
    if urlsplit(settings.url).scheme not in ("http", "https") or not urlsplit(settings.url).hostname:
        raise PlatformError(
            f"writer.url {settings.url!r} is no address",
            fix="give one that begins with http:// or https://, before /v1",
            code="bad_settings",
        )
    try:
        key = Path(settings.key_file).read_text(encoding="utf-8").strip() if settings.key_file else ""
    except OSError as err:
        raise PlatformError("writer.key_file cannot be read", detail=str(err), code="bad_settings") from err
    made = Writer(settings, settings.url.removesuffix("/").removesuffix("/v1"), key, settings.model)
    try:
        names = made.names()
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as err:
        raise PlatformError(
            f"no chat model answers at {settings.url}",
            detail=f"{type(err).__name__}: {err}",
            fix="start it, for example: fairlead serve chat; or leave writer.url empty: answers are quoted then",
            code="no_writer",
        ) from err
    if settings.model not in ("", *names):
        raise PlatformError(
            f"there is no model {settings.model!r} at {settings.url}",
            detail=f"there is: {', '.join(names)}",
            fix="name one of these as writer.model",
            code="bad_settings",
        )
    return replace(made, model=settings.model or names[0])


def _own(settings: WriterSettings) -> Writer:
    """A chat model in a process beside this one."""
    from contracts.bundle import read_bundle
    from contracts.engines import load_engine
    from contracts.engines.llamacpp import LlamaEngine

    engine = load_engine(read_bundle(settings.bundle), threads=settings.threads, slots=settings.slots)
    if not isinstance(engine, LlamaEngine):
        raise PlatformError(
            "writer.bundle has no chat model", fix="name the folder of a bundle of task chat", code="bad_settings"
        )
    process = engine.process
    made = Writer(settings, f"http://{process.host}:{process.port}", process.key, process=process)
    return replace(made, model=made.names()[0])

"""Answers that leave while they are made, such as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

import orjson

from services.server.requests import Answer, DisconnectedError, Receive, Send

T = TypeVar("T")


def server_sent(events: AsyncIterator[Any]) -> Answer:
    """An answer of server-sent events; each has one JSON document."""
    return Answer(_lines(events), media="text/event-stream", headers=(("cache-control", "no-store"),))


class Closable(Protocol):
    """Work that a stream belongs to."""

    def close(self, outcome: str) -> None:
        """Leave it; may be called more than once."""


class ClosedWith:
    """Events of some work, which is closed with them, also when nobody ever asked for the first one."""

    def __init__(self, events: AsyncGenerator[bytes, None], work: Closable) -> None:
        self._events, self._work = events, work

    def __aiter__(self) -> ClosedWith:
        return self

    async def __anext__(self) -> bytes:
        return await anext(self._events)

    async def aclose(self) -> None:
        """Stop the work."""
        try:
            await self._events.aclose()
        finally:
            self._work.close("cancelled")


async def send_stream(pieces: AsyncIterator[bytes], receive: Receive, send: Send) -> None:
    """Send each piece when it is there, and the end of the body after the last one.

    The iterator is closed in every case. When the client goes away, it is cancelled where it waits.

    Raises:
        DisconnectedError: the client went away before the end.
    """
    try:
        await unless_gone(receive, _produce(pieces, send))
    finally:  # also when the producer is cancelled before it has begun
        close = getattr(pieces, "aclose", None)
        if close is not None:
            await close()


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled where it waits when the client goes away.

    Raises:
        DisconnectedError: the client went away before the end.
    """
    task, gone, watcher = asyncio.current_task(), False, None
    assert task is not None

    def leave(_: asyncio.Task[None] | None = None) -> None:
        nonlocal gone
        gone = True
        task.cancel()

    watch = getattr(getattr(receive, "__self__", None), "watch", None)  # of `services.server.protocol`: no task more
    if watch is not None:
        watch(leave)
    else:
        watcher = asyncio.create_task(_gone(receive))
        watcher.add_done_callback(leave)
    try:
        found = await work
    except asyncio.CancelledError:
        if gone and task.uncancel() == 0:
            raise DisconnectedError from None
        raise
    else:
        if gone:  # what was cancelled has gone on to its end
            task.uncancel()
        return found
    finally:
        if watch is not None:
            watch(None)
        if watcher is not None:
            watcher.remove_done_callback(leave)
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)


@asynccontextmanager
async def closing(pieces: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """Close a generator at the end; other iterators have nothing to close."""
    try:
        yield pieces
    finally:
        close = getattr(pieces, "aclose", None)
        if close is not None:
            await close()


async def _produce(pieces: AsyncIterator[bytes], send: Send) -> None:
    cycle: Any = getattr(send, "__self__", None)
    if hasattr(cycle, "send_piece"):  # of `services.server.protocol`
        try:
            async for piece in pieces:
                await cycle.send_piece(piece)
            await cycle.send_piece(b"", last=True)
        finally:
            cycle.flush()
        return
    async for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _lines(events: AsyncIterator[Any]) -> AsyncIterator[bytes]:
    async with closing(events):
        async for event in events:
            yield b"data: " + orjson.dumps(event, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n\n"

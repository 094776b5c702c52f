"""What travels over a connection: whole answers, and patience that ends."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest
from uvicorn import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from services.server.http import App
from services.server.protocol import WholeCycle, impatient
from services.server.requests import Answer as HttpAnswer
from services.server.requests import Request, Route
from services.server.streams import unless_gone
from tests.plain_modality import plain

Story = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[Any]]
GET = b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n"


def talk(story: Story, header_seconds: float = 5.0, keep_alive: int = 5, more: Sequence[Route] = ()) -> Any:
    """Run `story` as the client of one connection to an application that greets."""

    async def hello(request: Request) -> HttpAnswer:
        return HttpAnswer(b"hello", headers=(("x-more", "1"),))

    app = App(plain(), [Route("/hello", {"GET": hello}), *more])

    async def both() -> Any:
        config = Config(app, timeout_keep_alive=keep_alive, log_config=None, access_log=False)
        config.load()
        kind, state = impatient(header_seconds), ServerState()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: kind(config, state, {}), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            return await asyncio.wait_for(story(reader, writer), 10)
        finally:
            writer.close()
            server.close()

    return asyncio.run(both())


async def answer(reader: asyncio.StreamReader, body: int = 5) -> tuple[list[bytes], bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    return sorted(head.lower().split(b"\r\n")[:-2]), await reader.readexactly(body)


def test_a_connection_is_used_again_and_closed_when_the_client_asks_for_it() -> None:
    async def story(reader: Any, writer: Any) -> None:
        writer.write(GET + GET)  # the second one does not wait for the first one's answer
        for _ in range(2):
            head, body = await answer(reader)
            assert body == b"hello"
            assert b"http/1.1 200 ok" in head
            assert {b"content-length: 5", b"content-type: application/json", b"x-more: 1"} <= set(head)
            assert not any(line.startswith(b"connection") for line in head)
        writer.write(GET.replace(b"host: x", b"host: x\r\nconnection: close"))
        head, _ = await answer(reader)
        assert head.count(b"connection: close") == 1
        assert await reader.read() == b""

    talk(story)


def test_head_and_body_leave_together(monkeypatch: Any) -> None:
    sizes: list[int] = []
    send = WholeCycle.send_whole

    def counted(self: Any, *given: Any) -> bool:
        write = self.transport.write
        self.transport = type("Counted", (), {"write": lambda _, data: (sizes.append(len(data)), write(data))})()
        return send(self, *given)

    monkeypatch.setattr(WholeCycle, "send_whole", counted)

    async def story(reader: Any, writer: Any) -> None:
        writer.write(GET)
        await answer(reader)

    talk(story)
    assert len(sizes) == 1


async def chunk(reader: asyncio.StreamReader) -> bytes:
    size = int(await reader.readuntil(b"\r\n"), 16)
    return (await reader.readexactly(size + 2))[:-2]


def counted_writes(monkeypatch: Any) -> list[bytes]:
    written: list[bytes] = []
    send_head = WholeCycle.send_head

    def counted(self: Any, *given: Any) -> bool:
        transport = self.transport

        class Counted:
            def __getattr__(self, name: str) -> Any:
                return getattr(transport, name)

            def write(self, data: bytes) -> None:
                written.append(data)
                transport.write(data)

        self.transport = Counted()
        return send_head(self, *given)

    monkeypatch.setattr(WholeCycle, "send_head", counted)
    return written


def streamed(pieces: Callable[[], AsyncIterator[bytes]]) -> Route:
    async def stream(request: Request) -> HttpAnswer:
        return HttpAnswer(pieces(), media="text/plain")

    return Route("/stream", {"GET": stream})


STREAM = GET.replace(b"hello", b"stream")


def test_pieces_of_one_moment_leave_together_and_no_piece_waits_for_the_next_one(monkeypatch: Any) -> None:
    written, go = counted_writes(monkeypatch), asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"
        await go.wait()
        yield b"three"

    async def story(reader: Any, writer: Any) -> None:
        writer.write(STREAM)
        head, _ = await answer(reader, 0)
        assert {b"http/1.1 200 ok", b"transfer-encoding: chunked", b"content-type: text/plain"} <= set(head)
        assert [await chunk(reader) for _ in range(2)] == [b"one", b"two"]
        assert len(written) == 1
        go.set()
        assert [await chunk(reader) for _ in range(2)] == [b"three", b""]
        assert len(written) == 2
        writer.write(GET)  # the connection is used again
        assert (await answer(reader))[1] == b"hello"

    talk(story, more=[streamed(pieces)])


def test_a_head_does_not_wait_for_the_first_piece() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        await asyncio.sleep(60)
        yield b"never"

    async def story(reader: Any, writer: Any) -> None:
        writer.write(STREAM)
        await asyncio.wait_for(answer(reader, 0), 2)

    talk(story, more=[streamed(pieces)])


def test_a_stream_that_never_waits_does_not_gather_in_memory() -> None:
    made = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal made
        for _ in range(2_000):
            made += 1
            yield b"x" * 100_000

    async def story(reader: Any, writer: Any) -> None:
        writer.write(STREAM)
        await answer(reader, 0)
        await asyncio.sleep(0.1)  # nobody reads
        assert made < 500
        while await chunk(reader):
            pass
        assert made == 2_000

    talk(story, more=[streamed(pieces)])


def test_a_stream_that_breaks_tells_what_it_had_and_has_no_end() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        raise ValueError("broken")

    async def story(reader: Any, writer: Any) -> None:
        writer.write(STREAM)
        await answer(reader, 0)
        assert await chunk(reader) == b"one"
        assert await reader.read() == b""

    talk(story, more=[streamed(pieces)])


@pytest.mark.parametrize("when", ["waits", "writes"])
def test_who_leaves_in_the_middle_ends_the_work(when: str) -> None:
    ended = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        try:
            yield b"one"
            while True:
                await asyncio.sleep(60 if when == "waits" else 0.001)
                yield b"more"
        finally:
            ended.set()

    async def story(reader: Any, writer: Any) -> None:
        writer.write(STREAM)
        await answer(reader, 0)
        await chunk(reader)
        writer.close()
        await asyncio.wait_for(ended.wait(), 2)

    talk(story, more=[streamed(pieces)])


def test_who_leaves_before_the_answer_ends_the_work_and_who_stays_is_answered() -> None:
    ended = asyncio.Event()

    async def work(seconds: float) -> bytes:
        try:
            await asyncio.sleep(seconds)
        finally:
            ended.set()
        return b"hello"

    async def slow(request: Request) -> HttpAnswer:
        await request.body()
        return HttpAnswer(await unless_gone(request.receive, work(0.01 if request.header(b"x-short") else 60)))

    async def story(reader: Any, writer: Any) -> None:
        slow = GET.replace(b"hello", b"slow")
        writer.write(slow.replace(b"host: x", b"host: x\r\nx-short: 1"))
        assert (await answer(reader))[1] == b"hello"
        ended.clear()
        writer.write(slow)
        await asyncio.sleep(0.05)
        assert not ended.is_set()
        writer.close()
        await asyncio.wait_for(ended.wait(), 2)

    talk(story, more=[Route("/slow", {"GET": slow})])


def test_head_has_no_body() -> None:
    async def story(reader: Any, writer: Any) -> None:
        writer.write(GET.replace(b"GET", b"HEAD") + GET)
        head, _ = await answer(reader, 0)
        assert b"content-length: 5" in head
        assert (await answer(reader))[1] == b"hello"

    talk(story)


def test_a_connection_that_asks_nothing_is_closed() -> None:
    async def story(reader: Any, writer: Any) -> float:
        writer.write(GET)
        await answer(reader)
        start = time.monotonic()
        assert await reader.read() == b""
        return time.monotonic() - start

    assert 0.9 < talk(story, keep_alive=1) < 3


def test_headers_that_do_not_end_close_the_connection_also_of_a_later_request() -> None:
    async def story(reader: Any, writer: Any) -> float:
        writer.write(GET)
        await answer(reader)
        start = time.monotonic()
        writer.write(GET[:20])
        assert await reader.read() == b""
        return time.monotonic() - start

    assert 0.1 < talk(story, header_seconds=0.2) < 2


def test_uvicorn_inside_is_what_the_protocol_was_written_for() -> None:
    """When this fails: read what changed, adapt `services.server.protocol`, and note the new digest."""
    inside = (
        RequestResponseCycle.__init__,
        RequestResponseCycle.receive,
        RequestResponseCycle.run_asgi,
        RequestResponseCycle.send,
        FlowControl,
        HttpToolsProtocol.connection_made,
        HttpToolsProtocol.connection_lost,
        HttpToolsProtocol.on_message_begin,
        HttpToolsProtocol.on_headers_complete,
        HttpToolsProtocol.on_response_complete,
    )
    text = "".join(inspect.getsource(function) for function in inside)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "da3e44fb993716d3"


def test_a_connection_becomes_a_websocket_and_its_clock_stops() -> None:
    async def echo(socket: Any) -> None:
        await socket.accept()
        while (text := await socket.receive()) is not None:
            await socket.send({"said": text})

    async def story(reader: Any, writer: Any) -> bytes:
        key = b"dGhlIHNhbXBsZSBub25jZQ=="
        writer.write(
            b"GET /echo HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: " + key + b"\r\n\r\n"
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        await asyncio.sleep(0.4)  # longer than headers may take
        writer.write(bytes([0x81, 0x82, 0, 0, 0, 0]) + b"hi")  # a text of two letters, masked with zeros
        length = (await reader.readexactly(2))[1]
        return bytes(await reader.readexactly(length))

    said = talk(story, header_seconds=0.2, keep_alive=1, more=[Route("/echo", {}, socket=echo)])
    assert said == b'{"said":"hi"}'

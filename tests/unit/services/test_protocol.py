"""What travels over a connection: whole answers, and patience that ends."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from services.server.http import App
from services.server.protocol import WholeCycle, impatient
from services.server.requests import Answer as HttpAnswer
from services.server.requests import Request, Route
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
        RequestResponseCycle.send,
        HttpToolsProtocol.connection_made,
        HttpToolsProtocol.connection_lost,
        HttpToolsProtocol.on_message_begin,
        HttpToolsProtocol.on_headers_complete,
        HttpToolsProtocol.on_response_complete,
    )
    text = "".join(inspect.getsource(function) for function in inside)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "e75814c8cc2864d9"


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

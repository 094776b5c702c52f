"""The chat service alone: the engine is another process, which answers every request at once.

``python -m tests.bench.language_front engine PORT TOKENS`` is that engine, ``... service PORT ENGINE`` the service,
``... router PORT ENGINE`` the router of models, which then is what is measured.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import psutil

from contracts.ports import free_port
from deploy.cli.machine.subprocesses import stop_group
from services.chat.llama import EngineStream
from tests.bench.report import Row
from tests.bench.serving_load import closed_loop

CLIENTS, SECONDS, TOKENS = 16, 5.0, 500
BODY = {"model": "front", "messages": [{"role": "user", "content": "hello"}], "stream": True}


def answer(tokens: int) -> bytes:
    """What llama.cpp would send of so many tokens, an event a chunk."""
    usage = {"prompt_tokens": 9, "completion_tokens": tokens, "total_tokens": 9 + tokens}
    word = {"choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}]}
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}
    events = [orjson.dumps(one) for one in [*[word] * tokens, end, {"choices": [], "usage": usage}]]
    lines = [b"data: " + one + b"\n\n" for one in (*events, b"[DONE]")]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(line), line) for line in lines)
    return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


class _Engine(asyncio.Protocol):
    """Answers a request as soon as it is whole; the connection may be kept."""

    def __init__(self, whole: bytes) -> None:
        self._whole, self._come = whole, b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._come += data
        head, found, body = self._come.partition(b"\r\n\r\n")
        if found and len(body) >= int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]):
            self._come = b""
            self._transport.write(self._whole)


def _socket(port: int) -> str:
    """The file of a socket on which the engine answers as well, as llama.cpp does."""
    return str(Path(tempfile.gettempdir()) / f"fairlead-front-{port}.sock")


def engine(port: int, tokens: int) -> None:
    """Answer whatever comes on a port."""
    import uvloop

    whole = answer(tokens)

    async def story() -> None:
        server = await asyncio.get_running_loop().create_server(lambda: _Engine(whole), "127.0.0.1", port, backlog=1024)
        await asyncio.get_running_loop().create_unix_server(lambda: _Engine(whole), _socket(port), backlog=1024)
        await server.serve_forever()

    uvloop.run(story())


def service(port: int, engine_port: int) -> None:
    """The routes and the runtime of the chat service over that engine, with no model of its own."""
    import uvicorn

    from contracts.guard_rules import RULES
    from services.chat.admission import Admission
    from services.chat.guard import Guard
    from services.chat.routes import OPENAI
    from services.chat.runtime import ChatRuntime, ChatSettings
    from services.metrics.token_metrics import TokenMetrics
    from services.server.bento import asgi_app
    from services.server.lifecycle import Modality
    from services.server.protocol import impatient

    class Front(ChatRuntime):
        """Opened without a bundle."""

        def opened(self) -> Any:
            return None

    runtime = Front(Modality(name="chat", runtime=Front, apis=(OPENAI,)))
    runtime.settings = ChatSettings(bundle="none")
    runtime.name, runtime.version, runtime.window = "front", "1", 4096
    runtime.process = SimpleNamespace(host="127.0.0.1", port=engine_port, key="none", socket=_socket(engine_port))  # type: ignore[assignment]
    runtime.admission = Admission(CLIENTS, 1 << 30, runtime.metrics)
    runtime.guard = Guard(runtime.settings.guard)
    runtime.tokens = TokenMetrics(runtime.metrics, "front", "1", CLIENTS, [rule.name for rule in RULES])
    config = uvicorn.Config(
        asgi_app(runtime), host="127.0.0.1", port=port, loop="uvloop", http=impatient(10), lifespan="off",
        log_config=None, access_log=False, proxy_headers=False, server_header=False,
    )  # fmt: skip
    uvicorn.Server(config).run()


def router(port: int, engine_port: int) -> None:
    """The router of models with that engine as its only backend."""
    import json

    from services.router.__main__ import main

    settings = {
        "backends": {"engine": {"url": f"http://127.0.0.1:{engine_port}/v1"}},
        "routes": {"front": {"targets": [{"backend": "engine", "model": "front"}]}},
    }
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(json.dumps(settings))
        file.flush()
        main(["--file", file.name, "--port", str(port)])


def alone(folder: Path) -> list[Row]:
    """Streams a second, and what a token costs, of the service and of the router."""
    rows = []
    for part in ("service", "router"):
        starts, processor = measured(1, SECONDS, part)
        _, per_stream = measured(TOKENS, SECONDS, part)
        token = (per_stream - processor) / (TOKENS - 1) * 1e6
        made = [
            ("streams started", "by the clock", starts, "1/s", ">= 2000"),
            ("streams started", "by its processor time", 1 / processor, "1/s", ""),
            ("a token", "processor time", token, "us", "<= 40"),
        ]
        rows += [
            Row(case=case, contestant=f"fairlead's {part}, {who}", value=value, unit=unit, goal=goal)
            for case, who, value, unit, goal in made
        ]
    return rows + first_tokens()


def first_tokens(rounds: int = 100) -> list[Row]:
    """How much later the first token comes through the service, of requests at once, in turn with the engine alone.

    Of llama.cpp it is told by which of them share its first batch of prompts, which are whole steps; here it is not.
    """
    rows = []
    with _started("service", 1) as (front, engine, _):
        for at_once in (1, 4, 8):
            took: dict[Any, list[float]] = {"front": [], "engine": []}
            for _ in range(rounds):
                for name, address in (("front", front), ("engine", engine)):
                    took[name] += asyncio.run(_firsts(address, at_once))
            late = 1000 * (statistics.median(took["front"]) - statistics.median(took["engine"]))
            case = f"first token, {at_once} at once, later by"
            rows.append(Row(case=case, contestant="fairlead's service", value=late, unit="ms", goal="<= 15"))
    return rows


async def _firsts(address: Any, at_once: int) -> list[float]:
    """Seconds to the first token of each."""

    async def one() -> float:
        start = time.perf_counter()
        stream = await EngineStream.open(address, "/v1/chat/completions", BODY)
        try:
            while (event := await stream.next()) is not None:
                if any(choice["delta"].get("content") for choice in event["choices"]):
                    return time.perf_counter() - start
        finally:
            stream.close()
        raise SystemExit("an answer has no token")

    return await asyncio.gather(*(one() for _ in range(at_once)))


def measured(tokens: int, seconds: float, part: str = "service") -> tuple[float, float]:
    """Streams a second by the clock, and the processor seconds of one, of the service or of the router.

    They have the first core; the clients, which are wrk, and the engine share the second one.
    """
    with _started(part, tokens) as (front, _, child):
        process, cores = psutil.Process(child), sorted(os.sched_getaffinity(0))
        url, body = f"http://127.0.0.1:{front.port}/v1/chat/completions", orjson.dumps(BODY).decode()
        closed_loop(url, body, connections=CLIENTS, seconds=1, cpu=cores[-1])
        used = sum(process.cpu_times()[:2])
        found = closed_loop(url, body, connections=CLIENTS, seconds=seconds, cpu=cores[-1])
        if found.errors:
            raise SystemExit(f"{found.errors} streams failed")
        return found.rate, (sum(process.cpu_times()[:2]) - used) / (found.rate * seconds)


@contextmanager
def _started(part: str, tokens: int) -> Iterator[tuple[Any, Any, int]]:
    """The addresses of the service or the router and of the engine, and the process of the former."""
    ports = [free_port(), free_port()]
    commands = [["engine", str(ports[0]), str(tokens)], [part, str(ports[1]), str(ports[0])]]
    children = [
        subprocess.Popen([sys.executable, "-m", "tests.bench.language_front", *one], start_new_session=True)
        for one in commands
    ]
    cores = sorted(os.sched_getaffinity(0))
    try:
        engine, front = (SimpleNamespace(host="127.0.0.1", port=port, key="none", socket="") for port in ports)
        asyncio.run(_until_it_answers(front))
        for child, core in zip(children, (cores[-1], cores[0]), strict=True):
            os.sched_setaffinity(child.pid, {core})
        yield front, engine, children[1].pid
    finally:
        for child in children:
            stop_group(child)
        Path(_socket(ports[0])).unlink(missing_ok=True)


async def _until_it_answers(address: Any) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            stream = await EngineStream.open(address, "/v1/chat/completions", BODY)
            while await stream.next() is not None:
                pass
        except Exception:  # noqa: BLE001 - not there yet, in whatever way
            await asyncio.sleep(0.1)
        else:
            stream.close()
            return
    raise SystemExit("the service alone did not start")


if __name__ == "__main__":
    ROLES = {"engine": engine, "service": service, "router": router}
    ROLES[sys.argv[1]](*map(int, sys.argv[2:]))

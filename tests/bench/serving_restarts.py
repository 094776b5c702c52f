"""Minutes of load on two servers, one of which is stopped and started every minute; no request is sent twice.

The client looks at readiness, as a Kubernetes Service does, and opens a new connection when it is asked to.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench import report

if TYPE_CHECKING:
    from tests.bench.serving import Arena

RATE = 150.0
PERIOD = 60.0
DRAIN = "2"
BODY = b'{"instances":[{"a":0.5,"b":1.5,"c":-2.0,"d":3.0}]}'


class Backend:
    """One server process, the connections to it, and whether it says that it is ready."""

    def __init__(self, arena: Arena, port: int) -> None:
        self.arena, self.port, self.ready = arena, port, False
        self.process: asyncio.subprocess.Process | None = None
        self.pool: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.growth: list[float] = []
        self._begun, self._early = 0.0, 0

    async def start(self) -> None:
        env = {**self.arena.env, "FAIRLEAD_SERVICE_DRAIN_SECONDS": DRAIN}
        argv = [sys.executable, "-m", "services.server.launch", "tabular", "--port", str(self.port)]
        self.process = await asyncio.create_subprocess_exec(*argv, env=env, stderr=asyncio.subprocess.DEVNULL)
        self._begun, self._early = time.monotonic(), 0

    async def stop(self) -> int:
        assert self.process is not None
        self.grown()
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), 30)

    def grown(self) -> None:
        """Note the growth of this life's memory, from its 15th second on."""
        if self._early and time.monotonic() - self._begun > 30:
            self.growth.append(100 * (self._rss() / self._early - 1))

    async def look(self) -> None:
        """Ask whether it is ready."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(b"GET /readyz HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")
            self.ready = b" 200 " in await asyncio.wait_for(reader.readline(), 2)
            writer.close()
            if not self._early and time.monotonic() - self._begun > 15:
                self._early = self._rss()
            return
        self.ready = False

    async def ask(self) -> int:
        """The status of one prediction."""
        while self.pool and self.pool[-1][0].at_eof():  # idle for longer than the server keeps one
            self.pool.pop()[1].close()
        reader, writer = self.pool.pop() if self.pool else await asyncio.open_connection("127.0.0.1", self.port)
        head = f"POST /predict HTTP/1.1\r\nhost: b\r\ncontent-type: application/json\r\ncontent-length: {len(BODY)}"
        writer.write(head.encode() + b"\r\n\r\n" + BODY)
        header = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
        length = re.search(rb"content-length: (\d+)", header, re.IGNORECASE)
        await reader.readexactly(int(length[1]) if length else 0)
        if b"connection: close" in header.lower():
            writer.close()
        elif self.ready:
            self.pool.append((reader, writer))
        return int(header.split(b" ", 2)[1])

    def _rss(self) -> int:
        assert self.process is not None
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages)


async def _story(arena: Arena, seconds: float) -> tuple[Counter[str], list[float], int]:
    backends = [Backend(arena, port) for port in (4311, 4312)]
    for one in backends:
        await one.start()
    answers: Counter[str] = Counter()
    end = [time.monotonic() + 60]

    async def watch() -> None:
        while time.monotonic() < end[0]:
            await asyncio.gather(*(one.look() for one in backends))
            if not any(one.ready for one in backends):
                answers["nobody ready"] += 0
            for one in backends:
                if not one.ready:
                    for _, writer in one.pool:
                        writer.close()
                    one.pool.clear()
            await asyncio.sleep(0.1)

    async def ask(at: int) -> None:
        ready = [backend for backend in backends if backend.ready]
        try:
            answers[str(await ready[at % len(ready)].ask()) if ready else "nobody ready"] += 1
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as err:
            answers[type(err).__name__] += 1

    watching = asyncio.create_task(watch())
    while not all(backend.ready for backend in backends):
        await asyncio.sleep(0.1)
    begin = time.monotonic()
    end[0] = begin + seconds + 40

    async def restart() -> int:
        count = 0
        while time.monotonic() - begin < seconds - PERIOD / 2:
            await asyncio.sleep(PERIOD)
            await backends[count % 2].stop()
            await backends[count % 2].start()
            count += 1
        return count

    restarting, tasks, at = asyncio.create_task(restart()), set(), 0
    while time.monotonic() - begin < seconds:
        at += 1
        tasks.add(task := asyncio.create_task(ask(at)))
        task.add_done_callback(tasks.discard)
        await asyncio.sleep(max(0.0, begin + at / RATE - time.monotonic()))
    await asyncio.gather(*tasks)
    restarts = await restarting
    watching.cancel()
    for backend in backends:
        await backend.stop()
    return answers, [grown for backend in backends for grown in backend.growth], restarts


def restarts(arena: Arena, rounds: int, seconds: float) -> list[report.Row]:
    """`rounds` minutes of it; the growth is the median of the lives of a server."""
    answers, growth, count = asyncio.run(_story(arena, rounds * 60.0))
    case, unit = f"{rounds} minutes with {count} restarts", "requests"
    failed = sum(number for status, number in answers.items() if status != "200")
    kinds = [
        report.Row(case=f"{case}, {kind}", contestant="fairlead", value=number, unit=unit)
        for kind, number in answers.items()
        if kind != "200" and number
    ]
    middle = statistics.median(growth) if growth else 0.0
    return [
        report.Row(case=f"{case}, answered", contestant="fairlead", value=answers["200"], unit=unit),
        report.Row(case=f"{case}, failed", contestant="fairlead", value=failed, unit=unit, goal="<= 0"),
        *kinds,
        report.Row(case="growth of memory", contestant="fairlead", value=middle, unit="%", goal="<= 5"),
    ]

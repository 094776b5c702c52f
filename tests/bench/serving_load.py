"""Load on 127.0.0.1: closed loops by wrk for throughput, open loops with Poisson arrivals for latency."""

from __future__ import annotations

import asyncio
import math
import random
import re
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_TIMER = 0.0015  # seconds before a moment until which a timer of the loop is trusted
_SCRIPT = """wrk.method = "POST"; wrk.body = [[{body}]]; wrk.headers["content-type"] = "application/json"
"""
_DONE = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %.0f %.0f\\n", summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Requests per second, latencies in milliseconds, and answers that were no 200."""

    rate: float
    p50: float
    p99: float
    errors: int


def closed_loop(url: str, body: str, *, connections: int, seconds: float, cpu: int) -> Result:
    """`connections` clients, each sends its next request when the last one is answered."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "load.lua"
        script.write_text((_SCRIPT.format(body=body) if body else "") + _DONE)
        argv = [
            "taskset",
            "-c",
            str(cpu),
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{max(1, round(seconds))}s",
            "--timeout",
            "10s",
        ]
        ran = subprocess.run([*argv, "-s", str(script), url], capture_output=True, text=True, timeout=60, check=True)
    found = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\d+)", ran.stdout)
    assert found is not None, ran.stdout + ran.stderr
    count, micros, errors, p50, p99 = (int(one) for one in found.groups())
    return Result(rate=count / micros * 1e6, p50=p50 / 1e3, p99=p99 / 1e3, errors=errors)


def _message(path: str, body: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: bench", "content-type: application/json", f"content-length: {len(body)}"]
    return ("\r\n".join([*lines, "", body])).encode()


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of them do not exceed; infinite for none."""
    return sorted(values)[min(len(values) - 1, math.ceil(share * len(values)) - 1)] if values else math.inf


async def open_loop(
    port: int, path: str, body: str | Sequence[str], *, rate: float, seconds: float, warm: float = 1.0
) -> Result:
    """Requests at random moments, `rate` per second, whether or not earlier ones are answered; several bodies in turn.

    A latency counts from the moment at which a request was due. Requests of the first `warm` seconds do not count.
    """
    pool: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    messages = [_message(path, one) for one in ([body] if isinstance(body, str) else body)]
    latencies: list[float] = []
    errors = 0

    async def one(message: bytes, due: float, counts: bool) -> None:
        nonlocal errors
        try:
            reader, writer = pool.pop() if pool else await asyncio.open_connection("127.0.0.1", port)
            writer.write(message)
            header = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
            length = re.search(rb"content-length: (\d+)", header, re.IGNORECASE)
            await reader.readexactly(int(length[1]) if length else 0)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            errors += counts
            return
        if b"connection: close" not in header.lower():
            pool.append((reader, writer))
        if not header.startswith(b"HTTP/1.1 200"):
            errors += counts
        elif counts:
            latencies.append(time.perf_counter() - due)

    rng, tasks = random.Random(7), []
    begin = due = time.perf_counter()
    while due - begin < warm + seconds:
        due += rng.expovariate(rate)
        # The loop's timers are late by up to a millisecond, which is no time of the server's.
        if (left := due - time.perf_counter()) > _TIMER:
            await asyncio.sleep(left - _TIMER)
        while time.perf_counter() < due:
            await asyncio.sleep(0)
        tasks.append(asyncio.create_task(one(messages[len(tasks) % len(messages)], due, due - begin > warm)))
    await asyncio.gather(*tasks)
    took = max(seconds, time.perf_counter() - begin - warm)
    for _, writer in pool:
        writer.close()
    p50, p99 = (percentile(latencies, share) * 1e3 for share in (0.5, 0.99))
    return Result(rate=len(latencies) / took, p50=p50, p99=p99, errors=errors)

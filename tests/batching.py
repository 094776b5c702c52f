"""A model that tests hold and watch while requests for it gather into batches."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from services.batching.batcher import Batcher
from services.batching.executor import Executor
from services.batching.queue_items import BatchLimits
from services.request_options import RequestOptions


class Bench:
    """A model that doubles its items, can be held, and refuses what is negative; and notes what was observed."""

    def __init__(self, workers: int = 1, **limits: Any) -> None:
        self.held = threading.Event()
        self.held.set()
        self.seconds = 0.0
        self.calls: list[list[int]] = []
        self.refused: list[str] = []
        self.batches: list[tuple[int, list[int]]] = []
        self.crashes: list[BaseException] = []
        self.executor = Executor(workers, self.crashes.append)
        self.batcher = Batcher(self.call, self.executor, BatchLimits(**limits), self)

    def call(self, items: Sequence[int]) -> list[int]:
        self.calls.append(list(items))
        assert self.held.wait(5)
        time.sleep(self.seconds)
        if any(item < 0 for item in items):
            raise ValueError("a negative item")
        return [item * 2 for item in items]

    def shed(self, reason: str) -> None:
        self.refused.append(reason)

    def batched(self, waits: Sequence[float], rows: int, lengths: Sequence[int]) -> None:
        self.batches.append((rows, list(lengths)))

    async def ask(self, item: int, rows: int = 1, lengths: Sequence[int] = (), **more: Any) -> int:
        options = more.pop("options", RequestOptions())
        kind = more.pop("kind", "k")
        return await self.batcher.submit(item, kind=kind, rows=rows, lengths=lengths, options=options, **more)

    async def hold(self, item: int = 0) -> asyncio.Task[int]:
        """Occupy a worker with `item` until `held` is set."""
        self.held.clear()
        before = len(self.calls)
        task = asyncio.create_task(self.ask(item))
        while len(self.calls) == before:
            await asyncio.sleep(0.001)
        return task


def run(bench: Bench, story: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    try:
        return asyncio.run(asyncio.wait_for(story(), 10))
    finally:
        bench.held.set()
        bench.executor.stop()


def release(bench: Bench, *waiting: Awaitable[int]) -> Any:
    bench.held.set()
    return asyncio.gather(*waiting, return_exceptions=True)


def later(bench: Bench, *items: int, **more: Any) -> list[asyncio.Task[int]]:
    return [asyncio.create_task(bench.ask(item, **more)) for item in items]

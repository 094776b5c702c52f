"""The threads that call the model: a fixed number of them, each with its own CPUs when that is asked for.

Own threads and not an executor of the standard library: one hop costs about 110 us instead of 160, and what ends a
thread ends the service's readiness instead of one request.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
# What is called, and who gets (result, failure) on the thread that ran it.
_Job = tuple[Callable[[], Any], Callable[[Any, BaseException | None], object]]


class Executor:
    """Runs calls on `workers` threads.

    Args:
        on_crash: called once, on the thread that ends, when something other than an Exception leaves a call.
        cpus: per thread the CPUs that it may run on; None leaves them where they are.
    """

    def __init__(
        self, workers: int, on_crash: Callable[[BaseException], None], cpus: list[frozenset[int]] | None = None
    ) -> None:
        self.workers, self._on_crash = workers, on_crash
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, args=(cpus[at] if cpus else None,), name=f"model-{at}", daemon=True)
            for at in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, call: Callable[[], Any], done: Callable[[Any, BaseException | None], object]) -> None:
        """Queue `call`; `done` gets its result or its failure, on the thread that ran it."""
        self._queue.put((call, done))

    async def run(self, call: Callable[[], T]) -> T:
        """The result of `call`; raises what it raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(result: T, failure: BaseException | None) -> None:
            if future.done():
                return
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)

        self.put(call, lambda result, failure: loop.call_soon_threadsafe(settle, result, failure))
        return await future

    def crashed(self, err: BaseException) -> RuntimeError:
        """Report what left a call that was made elsewhere; returns what its caller gets."""
        self._on_crash(err)
        return RuntimeError("the model's thread ended")

    def stop(self) -> None:
        """Finish what is queued and end the threads."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(timeout=10)

    def _work(self, cpus: frozenset[int] | None) -> None:
        if cpus:
            os.sched_setaffinity(0, cpus)
        while (job := self._queue.get()) is not None:
            call, done = job
            try:
                done(call(), None)
            except Exception as err:  # noqa: BLE001 - it is the caller's, and is raised there
                done(None, err)
            except BaseException as err:  # noqa: BLE001 - reported, and the thread ends
                done(None, self.crashed(err))
                return
            del job, call, done  # else the last request stays alive until the next one


def cpu_shares(workers: int, threads: int) -> list[frozenset[int]] | None:
    """CPUs per worker, `threads` each, disjoint; None when this process may not use that many."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(allowed) < workers * threads:
        return None
    return [frozenset(allowed[at * threads : (at + 1) * threads]) for at in range(workers)]

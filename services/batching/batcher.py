"""Gathers requests into batches for the model: bounded, by deadline and priority, and nobody pays for a neighbour.

A batch leaves as soon as a thread is free: under load requests gather by themselves while the model works, and an idle
service answers at once. Only items of the same kind and of similar length share a batch, so that little is padded.
Short calls need no thread: they are made on the loop, for all requests of one turn of it together.
"""

from __future__ import annotations

import asyncio
import math
from bisect import insort
from collections.abc import Callable, Sequence
from time import perf_counter, thread_time
from typing import Any, Generic, TypeVar

from services.batching.calltime import CallTime, Learned
from services.batching.executor import Executor
from services.batching.queue_items import BatchLimits, Observer, Part, Waiting
from services.errors import Problem, deadline_exceeded
from services.request_options import RequestOptions

T = TypeVar("T")
R = TypeVar("R")
_AHEAD_SECONDS = 0.5  # a high priority is worth this much of waiting, hence nobody starves
_LOOKED_AT = 256  # waiting items that are looked at when a batch is gathered
_CROWD = 2.0  # requests per turn of the loop from which on gathering them costs less than a call for each


class Batcher(Generic[T, R]):
    """Feeds `call`, which answers a list of items of one kind with as many results, from the executor's threads."""

    def __init__(
        self, call: Callable[[Sequence[T]], Sequence[R]], executor: Executor, limits: BatchLimits, observer: Observer
    ) -> None:
        self._call, self._executor, self._limits, self._observer = call, executor, limits, observer
        self._queue: list[Waiting[T, R]] = []
        self._kinds: dict[str, Learned] = {}
        self._running: dict[int, tuple[float, float]] = {}  # batch -> when it began, and when it should end
        self._numbers = self._pending = self._extra = self._inlined = self._arrived = self._before = 0
        self._crowd = 0.0  # how many requests arrive in one turn of the loop, by the last turns
        self._closed = self._turning = False
        self._timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def depth(self) -> int:
        """How many requests wait for a thread."""
        return len(self._queue)

    @property
    def oldest_call(self) -> float:
        """Seconds that the oldest running call has taken so far."""
        return perf_counter() - min(start for start, _ in self._running.values()) if self._running else 0.0

    def learn(self, kind: str, size: float, seconds: float) -> None:
        """What a call of `size` rows, or tokens, took elsewhere; for the time before the first request."""
        known = self._kind(kind)
        known.times.saw(size, seconds)
        known.short.saw(size, seconds)

    async def submit(
        self,
        item: T,
        *,
        kind: str,
        rows: int,
        lengths: Sequence[int] = (),
        alone: bool = False,
        options: RequestOptions,
    ) -> R:
        """The result of one item.

        Args:
            kind: only items of one kind share a batch; there are few kinds.
            lengths: tokens of each row, empty for models without tokens.
            alone: shares its batch with nobody.

        Raises:
            Problem: 429 when too much waits, 503 when the deadline cannot be met or the service stops, 504 when it
                has passed; or what `call` raises for this item alone.
        """
        now = perf_counter()
        known = self._kind(kind)
        size = _size(rows, lengths)
        self._admit(now, known.times, size, options)
        here = self._crowd < _CROWD and not self._queue and not self._running and known.short(size)
        if not here or self._arrived % 8 == 0:  # to look at the turn costs a tenth of a short call
            self._turn()
        self._arrived += 1
        if here:
            return self._inline(item, known, size, rows, lengths)
        order = now + options.priority * _AHEAD_SECONDS
        waiting = self._enqueue(Part(item=item, rows=rows, lengths=lengths), order, kind, now, options, alone)
        try:
            return await waiting.future
        except asyncio.CancelledError:
            self._forget(waiting)
            raise

    async def submit_parts(
        self, parts: Sequence[Part[T]], *, kind: str, alone: bool = False, options: RequestOptions
    ) -> list[R]:
        """The results of the parts of one request, which counts once; other requests go between its parts.

        Raises:
            Problem: as `submit`; or what `call` raises for the first part that fails, the others are then given up.
        """
        now = perf_counter()
        known = self._kind(kind)
        sizes = [_size(part.rows, part.lengths) for part in parts]
        self._admit(now, known.times, sum(sizes), options)
        self._turn()
        order = now + options.priority * _AHEAD_SECONDS
        waiting = []
        for part, size in zip(parts, sizes, strict=True):
            waiting.append(self._enqueue(part, order, kind, now, options, alone))
            order += known.times(size)  # as if it came when the part before it is done
        self._extra += len(parts) - 1
        try:
            return await asyncio.gather(*(one.future for one in waiting))
        except BaseException:
            for one in waiting:
                one.future.cancel()
                self._forget(one)
            raise
        finally:
            self._extra -= len(parts) - 1

    def _kind(self, kind: str) -> Learned:
        known = self._kinds.get(kind)
        if known is None:
            known = self._kinds[kind] = Learned(self._limits.inline)
        return known

    def _turn(self) -> None:
        """See to it that what arrives in this turn of the loop is looked at when all of it is there."""
        if not self._turning:
            self._turning, self._before = True, self._arrived
            asyncio.get_running_loop().call_soon(self._turned)

    def _turned(self) -> None:
        self._turning = False
        if arrived := self._arrived - self._before:
            self._crowd += (arrived - self._crowd) / 8
        if self._queue:
            self._dispatch()

    def _enqueue(
        self, part: Part[T], order: float, kind: str, now: float, options: RequestOptions, alone: bool
    ) -> Waiting[T, R]:
        self._numbers += 1
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        waiting = Waiting(
            order, self._numbers, part.item, kind, part.rows, part.lengths, now, options.deadline, alone, future
        )
        insort(self._queue, waiting)
        self._pending += 1
        self._idle.clear()
        return waiting

    async def drain(self) -> None:
        """Refuse new items, and wait until those that were accepted are answered."""
        self._closed = True
        await self._idle.wait()

    def _admit(self, now: float, times: CallTime, size: float, options: RequestOptions) -> None:
        if self._closed:
            raise self._refuse("stopping", 503, "stopping", "the service is stopping", "", 1.0)
        if now >= options.deadline:
            self._observer.shed("deadline_passed")
            raise deadline_exceeded()
        if self._pending - self._extra >= self._limits.pending:
            detail = f"at most {self._limits.pending} at a time are accepted; try again"
            wait = self._backlog(now, times, self._queue)
            raise self._refuse("queue_full", 429, "overloaded", "too many requests are waiting", detail, wait)
        # While nothing runs a request is always tried: otherwise one slow call could end the service for good.
        if self._running and times.known and options.deadline < math.inf:
            order = now + options.priority * _AHEAD_SECONDS
            ahead = [one for one in self._queue if one.order <= order]
            wait = self._backlog(now, times, ahead)
            needed = wait + times(size)
            if now + needed > options.deadline:
                detail = f"{(options.deadline - now) * 1e3:.0f} ms are left, about {needed * 1e3:.0f} ms are needed"
                title = "the deadline cannot be met"
                raise self._refuse("deadline_unreachable", 503, "deadline-unreachable", title, detail, wait)

    def _refuse(self, reason: str, status: int, code: str, title: str, detail: str, wait: float) -> Problem:
        self._observer.shed(reason)
        return Problem(status, code, title, detail, headers={"retry-after": str(max(1, math.ceil(wait)))})

    def _backlog(self, now: float, times: CallTime, ahead: Sequence[Waiting[T, R]]) -> float:
        """Seconds until what runs and what waits `ahead` is done, by what calls took until now."""
        rows = sum(one.rows for one in ahead)
        seconds = sum(self._kinds[one.kind].times.each * _size(one.rows, one.lengths) for one in ahead)
        seconds += times.start * math.ceil(rows / self._limits.rows)
        seconds += sum(max(0.0, end - now) for _, end in self._running.values())
        return seconds / self._executor.workers

    def _inline(self, item: T, known: Learned, size: float, rows: int, lengths: Sequence[int]) -> R:
        self._observer.batched((), rows, lengths)
        start = perf_counter()
        try:
            result = self._call((item,))[0]
        except SystemExit as err:
            raise self._executor.crashed(err) from err
        seconds = perf_counter() - start
        known.short.saw(size, seconds)
        self._inlined += 1
        if self._inlined % 8 == 0:  # the line is fitted at a tenth of the cost of a short call
            known.times.saw(size, seconds)
        return result

    def _dispatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        spent = 0.0
        while self._queue and len(self._running) < self._executor.workers:
            if spent > self._limits.inline:  # many short calls are long: the loop's other duties come first
                self._turn()
                return
            now = perf_counter()
            batch, rows, full = self._gather(now)
            if not batch:
                continue
            left = batch[0].arrived + self._limits.wait - now
            if left > 0 and not full and not self._closed:
                self._queue.extend(batch)
                self._queue.sort()
                if self._timer is None:
                    self._timer = asyncio.get_running_loop().call_later(left, self._dispatch)
                return
            spent += self._begin(batch, rows, now)

    def _gather(self, now: float) -> tuple[list[Waiting[T, R]], int, bool]:
        """The next batch, taken out of the queue: the first item, and others like it that fit."""
        batch: list[Waiting[T, R]] = []
        kept: list[Waiting[T, R]] = []
        rows = longest = 0
        full = False
        for at, one in enumerate(self._queue):
            if full or at >= _LOOKED_AT:
                kept += self._queue[at:]
                break
            if one.future.done():  # nobody waits any more
                self._done_with(1)
            elif now >= one.deadline:
                self._expire(one)
            elif not batch:
                batch, rows, longest = [one], one.rows, one.longest
            elif one.group == batch[0].group and self._fits(rows + one.rows, max(longest, one.longest)):
                batch.append(one)
                rows, longest = rows + one.rows, max(longest, one.longest)
            else:
                kept.append(one)
            full = rows >= self._limits.rows
        self._queue = kept
        return batch, rows, full

    def _fits(self, rows: int, longest: int) -> bool:
        return rows <= self._limits.rows and rows * longest <= self._limits.tokens

    def _expire(self, one: Waiting[T, R]) -> None:
        self._observer.shed("deadline_passed")
        one.future.set_exception(deadline_exceeded())
        self._done_with(1)

    def _begin(self, batch: list[Waiting[T, R]], rows: int, now: float) -> float:
        """Call the model for a batch, here or on a thread; returns the seconds that it took here."""
        lengths = [length for one in batch for length in one.lengths]
        self._observer.batched([now - one.arrived for one in batch], rows, lengths)
        size, known = _size(rows, lengths), self._kinds[batch[0].kind]
        items = [one.item for one in batch]
        if known.short(size):  # a thread would cost more than the call
            start = perf_counter()
            results: Sequence[R | BaseException]
            try:
                results = self._isolated(items)
            except SystemExit as err:
                results = [self._executor.crashed(err)] * len(batch)
            seconds = perf_counter() - start
            known.short.saw(size, seconds)
            self._settle(batch, size, seconds, results)
            return seconds
        self._numbers += 1
        number, loop = self._numbers, asyncio.get_running_loop()
        self._running[number] = (now, now + known.times(size))

        def finish(answer: Any, failure: BaseException | None) -> None:
            results: Sequence[R | BaseException]
            seconds = processor = 0.0
            if failure is None:
                results, seconds, processor = answer
            else:
                results = [failure] * len(batch)
            loop.call_soon_threadsafe(self._finish, number, batch, size, seconds, processor, results)

        self._executor.put(lambda: self._timed(items), finish)
        return 0.0

    def _timed(self, items: Sequence[T]) -> tuple[list[R | Exception], float, float]:
        start, processor = perf_counter(), thread_time()
        results = self._isolated(items)
        return results, perf_counter() - start, thread_time() - processor

    def _isolated(self, items: Sequence[T]) -> list[R | Exception]:
        """A result or an error per item: when a batch fails its halves are tried, so that the bad one fails alone."""
        try:
            results: list[R | Exception] = list(self._call(items))
            if len(results) != len(items):
                raise RuntimeError(f"the model answered {len(results)} of {len(items)} items")
        except Exception as err:  # noqa: BLE001 - it is raised for the item that it belongs to
            if len(items) == 1:
                return [err]
            half = len(items) // 2
            return self._isolated(items[:half]) + self._isolated(items[half:])
        return results

    def _finish(
        self,
        number: int,
        batch: list[Waiting[T, R]],
        size: float,
        seconds: float,
        processor: float,
        results: Sequence[R | BaseException],
    ) -> None:
        del self._running[number]
        if seconds:
            self._kinds[batch[0].kind].short.saw_on_thread(size, seconds, processor)
        self._settle(batch, size, seconds, results)
        self._dispatch()

    def _settle(
        self, batch: list[Waiting[T, R]], size: float, seconds: float, results: Sequence[R | BaseException]
    ) -> None:
        if not any(isinstance(result, BaseException) for result in results):  # else it was called several times
            self._kinds[batch[0].kind].times.saw(size, seconds)
        for one, result in zip(batch, results, strict=True):
            if one.future.done():
                continue
            if isinstance(result, BaseException):
                one.future.set_exception(result)
            else:
                one.future.set_result(result)
        self._done_with(len(batch))

    def _forget(self, waiting: Waiting[T, R]) -> None:
        if waiting in self._queue:  # else it runs, and keeps its place until the model is done with it
            self._queue.remove(waiting)
            self._done_with(1)

    def _done_with(self, count: int) -> None:
        self._pending -= count
        if self._pending == 0:
            self._idle.set()


def _size(rows: int, lengths: Sequence[int]) -> float:
    return float(sum(lengths)) if lengths else float(rows)

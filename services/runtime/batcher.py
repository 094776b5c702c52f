"""Gathers requests into batches for the model: bounded, by deadline and priority, and nobody pays for a neighbour.

A batch leaves as soon as a thread is free: under load requests gather by themselves while the model works, and an idle
service answers at once. Only items of the same kind and of similar length share a batch, so that little is padded.
"""

from __future__ import annotations

import asyncio
import math
from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Generic, Protocol, TypeVar

from services.runtime.calltime import CallTime
from services.runtime.errors import Problem, deadline_exceeded
from services.runtime.executor import Executor

T = TypeVar("T")
R = TypeVar("R")
PRIORITIES = {"high": -1.0, "normal": 0.0, "low": 1.0}
_AHEAD_SECONDS = 0.5  # a high priority is worth this much of waiting, hence nobody starves
_LENGTH_STEP = math.log(1.15)  # neighbours in a batch differ in length by at most 15 %
_LOOKED_AT = 256  # waiting items that are looked at when a batch is gathered


@dataclass(frozen=True, kw_only=True)
class BatchLimits:
    """What one batch may hold, and how much may wait.

    Attributes:
        rows, tokens: of one batch; a larger request is a batch of its own. Tokens count with their padding.
        pending: requests that wait or run; more are refused.
        wait: seconds that the first item of a batch that is not full waits for others.
        inline: a call that is expected to take less (seconds) runs where it is: a hop to a thread takes longer.
    """

    rows: int = 64
    tokens: int = 16_384
    pending: int = 64
    wait: float = 0.0
    inline: float = 0.0


class Observer(Protocol):
    """Gets what is worth a metric."""

    def shed(self, reason: str) -> None:
        """A request was refused."""
        ...

    def batched(self, waits: Sequence[float], rows: int, lengths: Sequence[int]) -> None:
        """A batch left: seconds that each item waited, its rows, and the length in tokens of each row, if any."""
        ...


@dataclass(kw_only=True, slots=True)
class Terms:
    """How a request wants to be treated: `deadline` by `time.perf_counter`, `priority` by `PRIORITIES`."""

    deadline: float = math.inf
    priority: float = 0.0


@dataclass(order=True, slots=True)
class _Waiting(Generic[T]):
    order: float
    number: int
    item: T = field(compare=False)
    kind: str = field(compare=False)
    rows: int = field(compare=False)
    lengths: Sequence[int] = field(compare=False)
    arrived: float = field(compare=False)
    deadline: float = field(compare=False)
    alone: bool = field(compare=False)
    future: asyncio.Future[Any] = field(compare=False)
    longest: int = field(init=False, compare=False)
    group: tuple[str, int] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        self.longest = max(self.lengths, default=0)
        self.group = (self.kind, int(math.log(self.longest) / _LENGTH_STEP) if self.longest else 0)
        if self.alone:
            self.group = (self.kind, -self.number)


class Batcher(Generic[T, R]):
    """Feeds `call`, which answers a list of items of one kind with as many results, from the executor's threads."""

    def __init__(
        self, call: Callable[[Sequence[T]], Sequence[R]], executor: Executor, limits: BatchLimits, observer: Observer
    ) -> None:
        self._call, self._executor, self._limits, self._observer = call, executor, limits, observer
        self._queue: list[_Waiting[T]] = []
        self._times: dict[str, CallTime] = {}
        self._running: dict[int, tuple[float, float]] = {}  # batch -> when it began, and when it should end
        self._numbers = self._pending = self._inlined = 0
        self._closed = self._scheduled = False
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

    async def submit(
        self, item: T, *, kind: str, rows: int, lengths: Sequence[int] = (), alone: bool = False, terms: Terms
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
        times = self._times.get(kind)
        if times is None:
            times = self._times[kind] = CallTime()
        self._admit(now, times, kind, rows, lengths, terms)
        idle = not self._queue and not self._running
        if idle and times.known and times(_size(rows, lengths)) < self._limits.inline:
            return self._inline(item, times, rows, lengths)
        self._numbers += 1
        order = now + terms.priority * _AHEAD_SECONDS
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(order, self._numbers, item, kind, rows, lengths, now, terms.deadline, alone, future)
        insort(self._queue, waiting)
        self._pending += 1
        self._idle.clear()
        if not self._scheduled:  # requests that arrive in the same turn of the loop go together
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._dispatch)
        try:
            return await future
        except asyncio.CancelledError:
            self._forget(waiting)
            raise

    async def drain(self) -> None:
        """Refuse new items, and wait until those that were accepted are answered."""
        self._closed = True
        await self._idle.wait()

    def _admit(self, now: float, times: CallTime, kind: str, rows: int, lengths: Sequence[int], terms: Terms) -> None:
        if self._closed:
            raise self._refuse("stopping", 503, "stopping", "the service is stopping", "", 1.0)
        if now >= terms.deadline:
            self._observer.shed("deadline_passed")
            raise deadline_exceeded()
        if self._pending >= self._limits.pending:
            detail = f"at most {self._limits.pending} at a time are accepted; try again"
            wait = self._backlog(now, times, self._queue)
            raise self._refuse("queue_full", 429, "overloaded", "too many requests are waiting", detail, wait)
        # While nothing runs a request is always tried: otherwise one slow call could end the service for good.
        if self._running and times.known and terms.deadline < math.inf:
            order = now + terms.priority * _AHEAD_SECONDS
            ahead = [one for one in self._queue if one.order <= order]
            wait = self._backlog(now, times, ahead)
            needed = wait + times(_size(rows, lengths))
            if now + needed > terms.deadline:
                detail = f"{(terms.deadline - now) * 1e3:.0f} ms are left, about {needed * 1e3:.0f} ms are needed"
                title = "the deadline cannot be met"
                raise self._refuse("deadline_unreachable", 503, "deadline-unreachable", title, detail, wait)

    def _refuse(self, reason: str, status: int, code: str, title: str, detail: str, wait: float) -> Problem:
        self._observer.shed(reason)
        return Problem(status, code, title, detail, headers={"retry-after": str(max(1, math.ceil(wait)))})

    def _backlog(self, now: float, times: CallTime, ahead: Sequence[_Waiting[T]]) -> float:
        """Seconds until what runs and what waits `ahead` is done, by what calls took until now."""
        rows = sum(one.rows for one in ahead)
        seconds = sum(self._times[one.kind].each * _size(one.rows, one.lengths) for one in ahead)
        seconds += times.start * math.ceil(rows / self._limits.rows)
        seconds += sum(max(0.0, end - now) for _, end in self._running.values())
        return seconds / self._executor.workers

    def _inline(self, item: T, times: CallTime, rows: int, lengths: Sequence[int]) -> R:
        self._observer.batched((), rows, lengths)
        self._inlined += 1
        if self._inlined % 8:  # learning costs as much as a tenth of the call
            return self._call((item,))[0]
        start = perf_counter()
        result = self._call((item,))[0]
        times.saw(_size(rows, lengths), perf_counter() - start)
        return result

    def _dispatch(self) -> None:
        self._scheduled = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._queue and len(self._running) < self._executor.workers:
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
            self._begin(batch, rows, now)

    def _gather(self, now: float) -> tuple[list[_Waiting[T]], int, bool]:
        """The next batch, taken out of the queue: the first item, and others like it that fit."""
        batch: list[_Waiting[T]] = []
        kept: list[_Waiting[T]] = []
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

    def _expire(self, one: _Waiting[T]) -> None:
        self._observer.shed("deadline_passed")
        one.future.set_exception(deadline_exceeded())
        self._done_with(1)

    def _begin(self, batch: list[_Waiting[T]], rows: int, now: float) -> None:
        lengths = [length for one in batch for length in one.lengths]
        self._observer.batched([now - one.arrived for one in batch], rows, lengths)
        size, times = _size(rows, lengths), self._times[batch[0].kind]
        items = [one.item for one in batch]
        if times.known and times(size) < self._limits.inline:  # a thread would cost more than the call
            results, seconds = self._timed(items)
            self._settle(batch, size, seconds, results)
            return
        self._numbers += 1
        number, loop = self._numbers, asyncio.get_running_loop()
        self._running[number] = (now, now + times(size))

        def finish(answer: Any, failure: BaseException | None) -> None:
            results, seconds = answer or ([failure] * len(batch), 0.0)
            loop.call_soon_threadsafe(self._finish, number, batch, size, seconds, results)

        self._executor.put(lambda: self._timed(items), finish)

    def _timed(self, items: Sequence[T]) -> tuple[list[R | Exception], float]:
        start = perf_counter()
        results = self._isolated(items)
        return results, perf_counter() - start

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
        batch: list[_Waiting[T]],
        size: float,
        seconds: float,
        results: Sequence[R | BaseException],
    ) -> None:
        del self._running[number]
        self._settle(batch, size, seconds, results)
        self._dispatch()

    def _settle(
        self, batch: list[_Waiting[T]], size: float, seconds: float, results: Sequence[R | BaseException]
    ) -> None:
        if not any(isinstance(result, BaseException) for result in results):  # else it was called several times
            self._times[batch[0].kind].saw(size, seconds)
        for one, result in zip(batch, results, strict=True):
            if one.future.done():
                continue
            if isinstance(result, BaseException):
                one.future.set_exception(result)
            else:
                one.future.set_result(result)
        self._done_with(len(batch))

    def _forget(self, waiting: _Waiting[T]) -> None:
        if waiting in self._queue:  # else it runs, and keeps its place until the model is done with it
            self._queue.remove(waiting)
            self._done_with(1)

    def _done_with(self, count: int) -> None:
        self._pending -= count
        if self._pending == 0:
            self._idle.set()


def _size(rows: int, lengths: Sequence[int]) -> float:
    return float(sum(lengths)) if lengths else float(rows)

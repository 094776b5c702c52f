"""Who may use the engine now: slots, and a queue that is bounded by the tokens that wait in it.

llama.cpp computes answers of one adapter at a time: those of another one get no token until the last of the first has
ended, whatever slots are free, so an adapter that is always asked for would keep all others away for ever. Requests are
therefore admitted by one adapter at a time. While it is computed its requests go before older ones for others, so that
slots are full, but before at most `ahead` of them; then it ends, and the oldest request says whose turn is next.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from itertools import count
from time import perf_counter

from services.errors import Problem
from services.metrics.service_metrics import ServiceMetrics

_OLD = 0.9  # weight of what the speed was before


@dataclass(order=True)
class _Waiter:
    """A request in the queue; the smallest one is the first."""

    priority: float
    number: int
    places: int = field(compare=False)
    group: Hashable = field(compare=False)
    turn: asyncio.Future[None] = field(compare=False)


class Admission:
    """Gives slots to requests in the order of their priority, then of their arrival, and one group at a time.

    A group is what the engine computes by itself, as an adapter of llama.cpp; None is compatible with every other. Each
    other group goes before a request that came earlier, with the same priority, at most `ahead` times.

    Args:
        slots: answers at a time.
        most_tokens: of requests that wait.
        ahead: requests of a group that may go before older ones of others, while its turn lasts.

    Attributes:
        busy: slots in use.  waiting: requests in the queue.
    """

    def __init__(self, slots: int, most_tokens: int, metrics: ServiceMetrics, ahead: int = 0) -> None:
        self.slots, self.busy, self.waiting = slots, 0, 0
        self._most, self._tokens, self._metrics, self._ahead = most_tokens, 0, metrics, ahead
        self._queue: list[_Waiter] = []
        self._by_group: dict[Hashable, list[_Waiter]] = {}  # the same ones; those that wait no more leave either lazily
        self._number = count()
        self._speed = 100.0  # tokens a second of the engine; measured as answers end
        self._group: Hashable = None  # that is computed
        self._computed, self._left = 0, 0  # answers of it; requests that it may still take ahead of others

    async def enter(self, places: int, tokens: int, priority: float, group: Hashable = None) -> None:
        """Wait for `places` slots; `tokens` is what the request is estimated to cost.

        Raises:
            Problem: 429 when too much waits already.
        """
        if not self._queue and self._fits(places) and self._may(group):
            self._take(places, group)
            self._metrics.stage["queue"].observe(0.0)
            return
        if self._queue and self._tokens + tokens > self._most:
            self._metrics.shed("queue_full")
            seconds = str(min(60, max(1, math.ceil(self._tokens / self._speed))))
            detail = f"about {self._tokens} tokens wait, at most {self._most} may"
            raise Problem(
                429, "rate_limit_exceeded", "too many requests are waiting", detail, headers={"retry-after": seconds}
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(priority, next(self._number), places, group, turn)
        heapq.heappush(self._queue, waiter)
        heapq.heappush(self._by_group.setdefault(group, []), waiter)
        self._tokens, self.waiting = self._tokens + tokens, self.waiting + 1
        start = perf_counter()
        self._next()  # it may go before those that wait for another group to end
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # its turn came while it was given up
                self.computed(places, group)
                self.leave(places)
            else:
                turn.cancel()
                self._first_of(group)
                self._next()
            raise
        finally:
            self._tokens, self.waiting = self._tokens - tokens, self.waiting - 1
            self._metrics.stage["queue"].observe(perf_counter() - start)

    def computed(self, places: int, group: Hashable) -> None:
        """Take note that the engine has ended these answers, though a client may not have read all of them."""
        if group is not None:
            self._computed -= places
            self._next()

    def leave(self, places: int, tokens: int = 0, seconds: float = 0.0) -> None:
        """Give slots back; `tokens` were made of them in these `seconds`."""
        self.busy -= places
        if tokens and seconds > 0:
            self._speed = _OLD * self._speed + (1 - _OLD) * tokens / seconds * self.slots / places
        self._next()

    def _next(self) -> None:
        while (waiter := self._choice()) is not None and self._fits(waiter.places):
            if waiter is not self._queue[0]:
                self._left -= waiter.group is not None
            self._take(waiter.places, waiter.group)
            waiter.turn.set_result(None)
            self._first_of(waiter.group)  # which lets go of this one

    def _choice(self) -> _Waiter | None:
        """The first of those who may go now."""
        first = _first(self._queue)
        if first is None or self._may(first.group):
            return first
        found = [one for group in (None, self._group) if (one := self._first_of(group)) is not None]
        found = [one for one in found if one.priority == first.priority and (one.group is None or self._left)]
        return min(found, default=None)

    def _first_of(self, group: Hashable) -> _Waiter | None:
        queue = self._by_group.get(group, [])
        found = _first(queue)
        if not queue:
            self._by_group.pop(group, None)
        return found

    def _may(self, group: Hashable) -> bool:
        """Whether the engine can compute a group beside what it computes."""
        return group is None or not self._computed or group == self._group

    def _fits(self, places: int) -> bool:
        return self.busy + places <= self.slots

    def _take(self, places: int, group: Hashable) -> None:
        self.busy += places
        if group is None:
            return
        if not self._computed:
            self._group, self._left = group, self._ahead
        self._computed += places


def _first(queue: list[_Waiter]) -> _Waiter | None:
    """The first one that still waits."""
    while queue and queue[0].turn.done():
        heapq.heappop(queue)
    return queue[0] if queue else None

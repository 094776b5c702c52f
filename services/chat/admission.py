"""Who may use the engine now: slots, and a queue that is bounded by the tokens that wait in it."""

from __future__ import annotations

import asyncio
import heapq
import math
from itertools import count
from time import perf_counter

from services.errors import Problem
from services.metrics.service_metrics import ServiceMetrics

_OLD = 0.9  # weight of what the speed was before


class Admission:
    """Gives slots to requests in the order of their priority, then of their arrival.

    Attributes:
        busy: slots in use.  waiting: requests in the queue.
    """

    def __init__(self, slots: int, most_tokens: int, metrics: ServiceMetrics) -> None:
        self.slots, self.busy, self.waiting = slots, 0, 0
        self._most, self._tokens, self._metrics = most_tokens, 0, metrics
        self._queue: list[tuple[float, int, int, asyncio.Future[None]]] = []
        self._number = count()
        self._speed = 100.0  # tokens a second of the engine; measured as answers end

    async def enter(self, places: int, tokens: int, priority: float) -> None:
        """Wait for `places` slots; `tokens` is what the request is estimated to cost.

        Raises:
            Problem: 429 when too much waits already.
        """
        if not self._queue and self.busy + places <= self.slots:
            self.busy += places
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
        heapq.heappush(self._queue, (priority, next(self._number), places, turn))
        self._tokens, self.waiting = self._tokens + tokens, self.waiting + 1
        start = perf_counter()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # its turn came while it was given up
                self.leave(places)
            else:
                turn.cancel()
                self._next()
            raise
        finally:
            self._tokens, self.waiting = self._tokens - tokens, self.waiting - 1
            self._metrics.stage["queue"].observe(perf_counter() - start)

    def leave(self, places: int, tokens: int = 0, seconds: float = 0.0) -> None:
        """Give slots back; `tokens` were made of them in these `seconds`."""
        self.busy -= places
        if tokens and seconds > 0:
            self._speed = _OLD * self._speed + (1 - _OLD) * tokens / seconds * self.slots / places
        self._next()

    def _next(self) -> None:
        while self._queue:
            _, _, places, turn = self._queue[0]
            if turn.done():  # nobody waits any more
                heapq.heappop(self._queue)
            elif self.busy + places <= self.slots:
                heapq.heappop(self._queue)
                self.busy += places
                turn.set_result(None)
            else:
                return

"""Items of a batcher's queue, its limits, and the observer that it reports to."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")
_LENGTH_STEP = math.log(1.15)  # neighbours in a batch differ in length by at most 15 %


@dataclass(frozen=True, kw_only=True)
class BatchLimits:
    """What one batch may hold, and how much may wait.

    Attributes:
        rows, tokens: of one batch; a larger item is a batch of its own. Tokens count with their padding.
        pending: requests that wait or run; more are refused.
        wait: seconds that the first item of a batch that is not full waits for others.
        inline: a call that is expected to take less (seconds) runs on the loop: a hop to a thread takes longer.
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
class Part(Generic[T]):
    """A piece of a request that is too large for one batch; `lengths` as for `Batcher.submit`."""

    item: T
    rows: int
    lengths: Sequence[int] = ()


@dataclass(order=True, slots=True)
class Waiting(Generic[T, R]):
    """An item in the queue; those of one `group` may share a batch."""

    order: float
    number: int
    item: T = field(compare=False)
    kind: str = field(compare=False)
    rows: int = field(compare=False)
    lengths: Sequence[int] = field(compare=False)
    arrived: float = field(compare=False)
    deadline: float = field(compare=False)
    alone: bool = field(compare=False)
    future: asyncio.Future[R] = field(compare=False)
    longest: int = field(init=False, compare=False)
    group: tuple[str, int] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        self.longest = max(self.lengths, default=0)
        self.group = (self.kind, int(math.log(self.longest) / _LENGTH_STEP) if self.longest else 0)
        if self.alone:
            self.group = (self.kind, -self.number)

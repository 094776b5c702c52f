"""What a key may use: about what a request will take is reserved, and set right when it has ended."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from services.errors import Problem
from services.ledger import Ledger, day

MILLION = 1_000_000
ANYBODY = "anybody"  # who asks, where there are no keys
_MINUTE, _DAY = 60, 86_400


class Budget(Protocol):
    """What one key may ask for; 0: any number. Money is in millionths."""

    @property
    def requests_per_minute(self) -> int:
        """Requests that begin."""

    @property
    def tokens_per_minute(self) -> int:
        """Tokens read and written."""

    @property
    def tokens_per_day(self) -> int:
        """Tokens read and written."""

    @property
    def millionths_per_day(self) -> int:
        """Money."""


@dataclass(frozen=True, kw_only=True)
class Reserved:
    """What is taken from a budget for one request.

    Attributes:
        minute, day: names of the numbers that it was added to; "" where nothing is limited.
    """

    tokens: int
    minute: str = ""
    day: str = ""


class Budgets:
    """The budgets of all keys over one ledger.

    Args:
        of: the budget of a key, by its name.
        denied: is told why a request was refused: rate or budget.
    """

    def __init__(self, of: Callable[[str], Budget], ledger: Ledger, denied: Callable[[str], None]) -> None:
        self._of, self._ledger, self._denied = of, ledger, denied

    async def reserve(self, caller: str, tokens: int) -> Reserved:
        """Take about so many tokens of what a key may use.

        Raises:
            Problem: 429, with the time after which there is more.
        """
        budget, now = self._of(caller), time.time()
        minute = each_day = ""
        if budget.requests_per_minute or budget.tokens_per_minute:
            minute = f"minute:{int(now // _MINUTE)}:{caller}"
            had = await self._ledger.add(minute, {"requests": 1, "tokens": tokens}, 2 * _MINUTE)
            over = 0 < budget.requests_per_minute < had["requests"], 0 < budget.tokens_per_minute < had["tokens"]
            if any(over):
                await self._ledger.add(minute, {"requests": 0, "tokens": -tokens}, 2 * _MINUTE)
                raise self._refused("rate", f"key {caller} has used up this minute", _MINUTE - now % _MINUTE)
        if budget.tokens_per_day or budget.millionths_per_day:
            each_day = f"day:{day(now)}:{caller}"
            had = await self._ledger.add(each_day, {"tokens": tokens, "cost": 0}, 2 * _DAY)
            if 0 < budget.tokens_per_day < had["tokens"] or 0 < budget.millionths_per_day <= had["cost"]:
                await self._ledger.add(each_day, {"tokens": -tokens}, 2 * _DAY)
                if minute:
                    await self._ledger.add(minute, {"tokens": -tokens}, 2 * _MINUTE)
                raise self._refused("budget", f"key {caller} has used up this day", _DAY - now % _DAY)
        return Reserved(tokens=tokens, minute=minute, day=each_day)

    async def settle(self, reserved: Reserved, tokens: int, cost: int = 0) -> None:
        """Count what a request has taken in place of what was reserved, in the minute and on the day of its begin.

        Args:
            cost: in millionths.
        """
        more = tokens - reserved.tokens
        if reserved.minute:
            await self._ledger.add(reserved.minute, {"tokens": more}, 2 * _MINUTE)
        if reserved.day:
            await self._ledger.add(reserved.day, {"tokens": more, "cost": cost}, 2 * _DAY)

    def _refused(self, reason: str, detail: str, seconds: float) -> Problem:
        self._denied(reason)
        wait = str(max(1, math.ceil(seconds)))
        return Problem(
            429, "budget_exceeded", "this key may not ask for more now", detail, headers={"retry-after": wait}
        )

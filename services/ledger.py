"""What was used and spent, by day and key, and what may be: in memory, or in a Redis that several servers share."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Protocol

from services.logs import log_event

KEPT_DAYS = 35


class Ledger(Protocol):
    """Numbers by name that are added to, and forgotten after a time; money is in millionths."""

    async def add(self, name: str, parts: Mapping[str, int], seconds: int) -> dict[str, int]:
        """Add to parts of a number's name; returns their new values."""

    async def read(self, name: str) -> dict[str, int]:
        """All parts."""


class MemoryLedger:
    """Of this process."""

    def __init__(self) -> None:
        self._parts: dict[str, dict[str, int]] = {}
        self._until: dict[str, float] = {}

    async def add(self, name: str, parts: Mapping[str, int], seconds: int) -> dict[str, int]:
        """See `Ledger`."""
        now = time.monotonic()
        if name not in self._parts:
            for old in [one for one, until in self._until.items() if until < now]:
                del self._parts[old], self._until[old]
            self._parts[name], self._until[name] = defaultdict(int), now + seconds
        own = self._parts[name]
        for part, amount in parts.items():
            own[part] += amount
        return {part: own[part] for part in parts}

    async def read(self, name: str) -> dict[str, int]:
        """See `Ledger`."""
        return dict(self._parts.get(name, {}))


class RedisLedger:
    """In Redis; while it does not answer, this process counts for itself, and says so.

    Args:
        prefix: of all keys.
    """

    def __init__(self, url: str, prefix: str) -> None:
        from redis import asyncio as redis

        self._redis: Any = redis.from_url(url, socket_timeout=0.5, socket_connect_timeout=0.5, decode_responses=True)
        self._own, self._quiet_until, self._prefix = MemoryLedger(), 0.0, prefix

    async def add(self, name: str, parts: Mapping[str, int], seconds: int) -> dict[str, int]:
        """See `Ledger`."""
        own = await self._own.add(name, parts, seconds)
        if time.monotonic() < self._quiet_until:
            return own
        try:
            async with self._redis.pipeline(transaction=False) as work:
                for part, amount in parts.items():
                    work.hincrby(f"{self._prefix}:{name}", part, amount)
                work.expire(f"{self._prefix}:{name}", seconds)
                values = await work.execute()
        except Exception as err:  # noqa: BLE001 - whatever it is, requests go on
            self._away(err)
            return own
        return dict(zip(parts, map(int, values), strict=False))

    async def read(self, name: str) -> dict[str, int]:
        """See `Ledger`."""
        try:
            found = await self._redis.hgetall(f"{self._prefix}:{name}")
        except Exception as err:  # noqa: BLE001
            self._away(err)
            return await self._own.read(name)
        return {part: int(value) for part, value in found.items()}

    def _away(self, err: Exception) -> None:
        self._quiet_until = time.monotonic() + 1.0
        log_event("ledger_unreachable", logging.WARNING, error=type(err).__name__, fix="see redis")


def day(moment: float | None = None) -> str:
    """The day of a moment in UTC, as 2026-05-17."""
    return time.strftime("%Y-%m-%d", time.gmtime(moment))

"""Jobs of images that the servers of one model share through Redis: any of them says how a job is, and can end it.

The server that took a job does it and writes down how it is, at its end with the images; what others ask of it stands
beside that. A job whose server is gone is said to have failed. Addresses are those of
`feature_repo.stores.redis_address`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import orjson

from contracts.errors import PlatformError
from feature_repo.stores.redis_address import connect, parse_address
from services.drawing.jobs import ENDED, Job, Jobs
from services.errors import Problem
from services.logs import log_event

T = TypeVar("T")
Described = Callable[[Job], Awaitable[dict[str, Any]]]
CANCEL, COLLECTED = "cancel", "collected"
_SECONDS = 0.5  # between two looks at a job that has not ended
_LATER = 5.0  # and at one whose images nobody has fetched
_ALIVE = 15  # seconds after which a server that says nothing is gone
_DOCUMENT = "document"


class SharedJobs:
    """What servers tell each other of the jobs of one model. Redis may lose it: then only its own server knows a job.

    Args:
        seconds: for which a job is known after it was last written.
    """

    def __init__(self, address: str, model: str, seconds: float) -> None:
        self._address = parse_address(address)
        self._head, self._seconds = f"fl-image-job:{model}", max(1, math.ceil(seconds))
        self._tasks: dict[asyncio.Task[None], Job] = {}
        self._closing = asyncio.Event()
        self._known: Any = None

    def follow(self, job: Job, jobs: Jobs, described: Described, collected: Callable[[Job], None]) -> None:
        """Write down how a job of this server is until it has ended, and do what others ask of it.

        Args:
            collected: is told when another server has given its images away.
        """
        task = asyncio.create_task(self._follow(job, jobs, described, collected))
        self._tasks[task] = job
        task.add_done_callback(self._tasks.pop)

    async def read(self, identifier: str) -> dict[str, Any] | None:
        """How a job of any server is, as `follow` was told to describe it; None where nothing is known of it.

        Raises:
            Problem: 503.
        """
        document, alive = await self._asked(lambda: self._read(identifier))
        if document is None:
            return None
        found: dict[str, Any] = orjson.loads(document)
        if found["status"] not in ENDED and not alive:
            error = {"message": "the server that took this job is gone", "type": "server_error", "code": "server_gone"}
            found |= {"status": "failed", "estimated_seconds": 0.0, "error": {**error, "param": None}}
        return found

    async def ask(self, identifier: str, what: str) -> None:
        """Ask the server of a job for `CANCEL`, or tell it `COLLECTED`.

        Raises:
            Problem: 503.
        """
        await self._asked(lambda: self._client().hset(self._key(identifier), what, 1))

    async def settle(self) -> None:
        """See once more whose images were fetched, before their jobs are let go of."""
        self._closing.set()
        await asyncio.gather(
            *(task for task, job in self._tasks.items() if job.status in ENDED), return_exceptions=True
        )

    async def close(self) -> None:
        """Write down how the last jobs have ended."""
        self._closing.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._known is not None:
            await asyncio.to_thread(self._known.close)

    async def _follow(self, job: Job, jobs: Jobs, described: Described, collected: Callable[[Job], None]) -> None:
        ended = False
        while not ended:
            ended = job.status in ENDED
            document = orjson.dumps(await described(job))
            if CANCEL in await self._told(job, document):
                jobs.cancel(job)
            await _waited(job.over, _SECONDS)
        while jobs.keeps(job) and not job.collected:
            await _waited(self._closing, _LATER)
            if COLLECTED in await self._told(job):
                collected(job)
            if self._closing.is_set():
                break

    async def _told(self, job: Job, document: bytes | None = None) -> set[str]:
        """What others ask of a job; nothing while Redis does not answer."""
        with contextlib.suppress(Problem):
            return await self._asked(lambda: self._tell(job.id, document))
        return set()

    def _tell(self, identifier: str, document: bytes | None) -> set[str]:
        key = self._key(identifier)
        pipe = self._client().pipeline(transaction=False)
        if document is not None:
            pipe.set(f"{key}:alive", 1, ex=_ALIVE)
            pipe.hset(key, _DOCUMENT, document)
            pipe.expire(key, self._seconds)
        pipe.hmget(key, CANCEL, COLLECTED)
        return {name for name, value in zip((CANCEL, COLLECTED), pipe.execute()[-1], strict=True) if value}

    def _read(self, identifier: str) -> tuple[bytes | None, bool]:
        key = self._key(identifier)
        pipe = self._client().pipeline(transaction=False)
        pipe.hget(key, _DOCUMENT)
        pipe.exists(f"{key}:alive")
        document, alive = pipe.execute()
        return document, bool(alive)

    def _key(self, identifier: str) -> str:
        return f"{self._head}:{{{identifier}}}"  # in braces: both keys of a job are on one server of a cluster

    def _client(self) -> Any:
        if self._known is None:
            self._known = connect(self._address, writing=True)
        return self._known

    async def _asked(self, ask: Callable[[], T]) -> T:
        from redis.exceptions import RedisClusterException, RedisError

        try:
            return await asyncio.to_thread(ask)
        except (RedisError, RedisClusterException, OSError, PlatformError) as err:
            log_event("jobs_unavailable", logging.WARNING, place=self._address.place, error=type(err).__name__)
            fix = "check that Redis runs and can be reached (drawing.redis); the server that took a job knows it too"
            raise Problem(503, "jobs_unavailable", "what other servers do is not known now", fix=fix) from err


async def _waited(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)

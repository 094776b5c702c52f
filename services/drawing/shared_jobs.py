"""Jobs of images that the servers of one model share through Redis: any of them says how a job is, and can end it.

The server that took a job does it and writes down how it is, at its end with the images; what others ask of it stands
beside that. What was asked for stands there until the job has ended: when its server is gone, or leaves it, another one
takes it over and begins it anew. How often that was says whose it is: a server that was only slow sees that it was more
often than it knows of, and lets go of it.
Addresses are those of `feature_repo.stores.redis_address`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import secrets
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Protocol, TypeVar

import orjson

from contracts.errors import PlatformError
from feature_repo.stores.redis_address import connect, parse_address
from services.drawing.jobs import ENDED, Job, Jobs
from services.errors import Problem
from services.logs import log_event
from services.settings import DrawingSettings

T = TypeVar("T")
CANCEL, COLLECTED = "cancel", "collected"
_SECONDS = 0.5  # between two looks at a job that has not ended
_LATER = 5.0  # and at one whose images nobody has fetched
_ALIVE = 15  # seconds after which a server that says nothing is gone
_PATIENCE = 2.0  # seconds that a job waits for Redis to say that it may begin
_TAKE_SECONDS = 3.0  # between two looks for jobs that a server left
_LOOKED = 100  # that have waited longest, of which each is looked at
_DOCUMENT, _REQUEST, _TAKEN = "document", "request", "taken"


class Taker(Protocol):
    """What makes jobs of requests, and answers for them."""

    def remade(self, identifier: str, request: bytes, taken: int) -> Job:
        """A job of another server, not submitted yet; raises `Problem` where it is none that this server does."""

    async def document(self, job: Job) -> dict[str, Any]:
        """How a job is, for who asks."""

    def collected(self, job: Job) -> None:
        """Is told when another server has given its images away."""


class SharedJobs:
    """What servers tell each other of the jobs of one model. Redis may lose it: then only its own server knows a job.

    Args:
        settings: how long a job is known after it was last written, and how often it is taken over.
    """

    def __init__(self, address: str, model: str, settings: DrawingSettings) -> None:
        self._address = parse_address(address)
        self._head, self._seconds = f"fl-image-job:{model}", max(1, math.ceil(settings.keep_seconds))
        self._waiting, self._most = f"fl-image-jobs-waiting:{model}", settings.max_takeovers
        self._name = secrets.token_hex(8).encode()  # of this server
        self._tasks: dict[asyncio.Task[None], Job] = {}
        self._taking: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._known: Any = None

    def follow(self, job: Job, jobs: Jobs, taker: Taker) -> None:
        """Write down how a job of this server is until it has ended, and do what others ask of it."""
        task = asyncio.create_task(self._follow(job, jobs, taker))
        self._tasks[task] = job
        task.add_done_callback(self._tasks.pop)

    async def read(self, identifier: str) -> dict[str, Any] | None:
        """How a job of any server is, as `follow` was told to describe it; None where nothing is known of it.

        Raises:
            Problem: 503.
        """
        document, has_server = await self._asked(lambda: self._read(identifier))
        if document is None:
            return None
        found: dict[str, Any] = orjson.loads(document)
        if found["status"] not in ENDED and not has_server:
            error = {"message": "the server that took this job is gone", "type": "server_error", "code": "server_gone"}
            found |= {"status": "failed", "estimated_seconds": 0.0, "error": {**error, "param": None}}
        return found

    async def ask(self, identifier: str, what: str) -> None:
        """Ask the server of a job for `CANCEL`, or tell it `COLLECTED`.

        Raises:
            Problem: 503.
        """
        await self._asked(lambda: self._client().hset(self._key(identifier), what, 1))

    async def begins(self, job: Job) -> bool:
        """Whether it is this server that does a job. Where Redis does not answer, it is."""
        if job.request:
            with contextlib.suppress(Problem, TimeoutError):
                async with asyncio.timeout(_PATIENCE), job.writing:
                    return await self._asked(partial(self._holds, job.id, job.taken))
        return True

    def take_over(self, jobs: Jobs, taker: Taker) -> None:
        """From now on take over jobs that have not ended and whose servers are gone, where `jobs` have room."""
        if self._most:
            self._taking = asyncio.create_task(self._take_over(jobs, taker))

    async def leave(self, jobs: Jobs) -> None:
        """Leave the jobs that have not ended to other servers, or to the one that comes after this."""
        for job in [one for one in self._tasks.values() if one.request and one.taken < self._most]:
            with contextlib.suppress(Problem):
                async with job.writing:
                    known = job.status not in ENDED and await self._asked(partial(self._release, job.id))
                    if known and job.status not in ENDED:
                        jobs.pass_on(job)

    async def settle(self) -> None:
        """Take over no more, and see once more whose images were fetched, before their jobs are let go of."""
        self._closing.set()
        if self._taking is not None:
            await asyncio.gather(self._taking, return_exceptions=True)
        await asyncio.gather(
            *(task for task, job in self._tasks.items() if job.status in ENDED), return_exceptions=True
        )

    async def close(self) -> None:
        """Write down how the last jobs have ended."""
        self._closing.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._known is not None:
            await asyncio.to_thread(self._known.close)

    async def _follow(self, job: Job, jobs: Jobs, taker: Taker) -> None:
        ended = False
        while not ended:
            ended = job.status in ENDED
            document = orjson.dumps(await taker.document(job))
            asked = await self._told(job, document)
            if job.passed:
                return
            if _TAKEN in asked:
                jobs.pass_on(job)
                return
            if CANCEL in asked:
                jobs.cancel(job)
            await _waited(job.over, _SECONDS)
        while jobs.keeps(job) and not job.collected:
            await _waited(self._closing, _LATER)
            asked = await self._told(job)
            if _TAKEN in asked:
                jobs.pass_on(job)
                return
            if COLLECTED in asked:
                taker.collected(job)
            if self._closing.is_set():
                break

    async def _take_over(self, jobs: Jobs, taker: Taker) -> None:
        while not self._closing.is_set():
            await _waited(self._closing, _TAKE_SECONDS)
            refused = set[str]()
            with contextlib.suppress(Problem):
                while not self._closing.is_set() and jobs.has_room:
                    mine = refused | {job.id for job in self._tasks.values()}
                    found = await self._asked(partial(self._take_one, mine))
                    if found is None:
                        break
                    identifier, request, taken, is_cancelled = found
                    try:
                        job = taker.remade(identifier, request, taken)
                        jobs.submit(job, keep=True)
                    except Problem as err:  # another version, or another policy: another server may do it
                        refused.add(identifier)
                        log_event("job_refused", logging.WARNING, job=identifier, error=err.title)
                        await self._asked(partial(self._release, identifier))
                        continue
                    if is_cancelled:
                        jobs.cancel(job)  # before it begins
                    log_event("job_taken_over", logging.INFO, job=identifier, times=taken)
                    self.follow(job, jobs, taker)

    def _take_one(self, mine: Collection[str]) -> tuple[str, bytes, int, bool] | None:
        """The oldest of the jobs without a server: its id, request, how often it was taken now, and whether it is to be
        cancelled."""
        client = self._client()
        for raw in client.zrange(self._waiting, 0, _LOOKED - 1):
            identifier = raw.decode()
            key = self._key(identifier)
            if identifier in mine or not client.set(f"{key}:alive", self._name, nx=True, ex=_ALIVE):
                continue
            request, taken, cancel = client.hmget(key, _REQUEST, _TAKEN, CANCEL)
            if request is not None and int(taken or 0) < self._most:
                return identifier, request, int(client.hincrby(key, _TAKEN, 1)), bool(cancel)
            client.zrem(self._waiting, raw)
            client.delete(f"{key}:alive")
            client.hdel(key, _REQUEST)
        return None

    def _holds(self, identifier: str, taken: int) -> bool:
        """Whether a job was not taken over since; Redis may have lost it."""
        known = self._client().hget(self._key(identifier), _TAKEN)
        return known is None or int(known) == taken

    def _release(self, identifier: str) -> bool:
        """Leave a job to others; whether they can know what it is."""
        key = self._key(identifier)
        self._client().delete(f"{key}:alive")
        return bool(self._client().hexists(key, _REQUEST))

    async def _told(self, job: Job, document: bytes | None = None) -> set[str]:
        """What others ask of a job, and `_TAKEN` where another server does it; nothing while Redis does not answer."""
        async with job.writing:
            with contextlib.suppress(Problem):
                if not job.passed:
                    return await self._asked(partial(self._tell, job, document))
        return set()

    def _tell(self, job: Job, document: bytes | None) -> set[str]:
        identifier, key = job.id, self._key(job.id)
        if job.request and not self._holds(identifier, job.taken):
            return {_TAKEN}
        request = job.request if document is not None and orjson.loads(document)["status"] not in ENDED else b""
        if request:
            self._client().zadd(self._waiting, {identifier: job.created})
            self._client().expire(self._waiting, self._seconds)
        elif job.request and document is not None:
            self._client().zrem(self._waiting, identifier)
        pipe = self._client().pipeline(transaction=False)
        if document is not None:
            pipe.set(f"{key}:alive", self._name, ex=_ALIVE)
            pipe.hset(key, _DOCUMENT, document)
            if request:
                pipe.hset(key, _REQUEST, request)
            else:
                pipe.hdel(key, _REQUEST)
            pipe.expire(key, self._seconds)
        pipe.hmget(key, CANCEL, COLLECTED)
        return {name for name, value in zip((CANCEL, COLLECTED), pipe.execute()[-1], strict=True) if value}

    def _read(self, identifier: str) -> tuple[bytes | None, bool]:
        """How it is, and whether a server does it, or one can take it over."""
        key = self._key(identifier)
        pipe = self._client().pipeline(transaction=False)
        pipe.hmget(key, _DOCUMENT, _REQUEST, _TAKEN)
        pipe.exists(f"{key}:alive")
        (document, request, taken), alive = pipe.execute()
        left = request is not None and int(taken or 0) < self._most
        return document, bool(alive) or left

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

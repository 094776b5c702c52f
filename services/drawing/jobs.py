"""Jobs of images: a queue by what they are estimated to cost, progress, and an end before they are done."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import math
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from time import perf_counter, time
from typing import Any, Literal

from contracts.drawing_engine import FlaggedError, Wish
from contracts.problems.image import Drawn
from services.errors import Problem
from services.metrics.service_metrics import ServiceMetrics
from services.model.prediction_log import new_id
from services.problems.image import REFUSED
from services.settings import DrawingSettings

_SECONDS = 60.0  # between two looks at what is kept, while nothing is asked
_OLD = 0.7  # weight of what the speed was before
Draw = Callable[[Sequence[Wish], Callable[[int], None]], list[Drawn]]
FLAGGED = "flagged"  # the error of a job whose images the model's own check refuses
ENDED = ("succeeded", "failed", "cancelled")


class CancelledJobError(Exception):
    """Ends a job between two steps."""


@dataclass(eq=False, kw_only=True)
class Job:
    """Images that are asked for together.

    Attributes:
        ids: of the images in the log.
        work, done: evaluations of the network, all and those that were made.
        about: what belongs to its answer; nothing here reads it.
        over: is set when the job has ended.
        collected: whether its images were given to who asked.  recorded: whether they stand in the log.
        request: what was asked for, by which another server can do it; b"" where none may.
        taken: how often a server took it over from another.  passed: whether another server does it.
        writing: held while what it is is written down for other servers.
    """

    wishes: Sequence[Wish]
    work: int
    about: Any = None
    id: str = field(default_factory=lambda: f"imgjob-{secrets.token_hex(12)}")
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"] = "queued"
    done: int = 0
    created: float = field(default_factory=time)
    started: float | None = None
    ended: float | None = None
    images: list[Drawn] = field(default_factory=list)
    error: str = ""
    stopped: bool = False
    collected: bool = False
    recorded: bool = False
    request: bytes = b""
    taken: int = 0
    passed: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    ids: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.ids = [new_id() for _ in self.wishes]


class Jobs:
    """Does one job after the other. The next is the one with the least sum of arrival and estimated time: short ones
    go before long ones, which nevertheless have their turn.

    Args:
        draw: makes images on a thread; is told to report the evaluations that are done.
        speed: evaluations a second, until jobs have shown it.
        settings: how long, and how many, jobs stay that somebody may look at again.
        gone: is told of each job that is kept no longer.
        begins: says before a job begins whether it is this server that is to do it.
    """

    def __init__(
        self,
        draw: Draw,
        speed: float,
        settings: DrawingSettings,
        metrics: ServiceMetrics,
        gone: Callable[[Job], None] = lambda job: None,
        begins: Callable[[Job], Awaitable[bool]] | None = None,
    ) -> None:
        self._draw, self._settings, self._metrics, self._begins = draw, settings, metrics, begins
        self.speed, self._gone = max(speed, 1e-6), gone
        self._queue: list[tuple[float, int, Job]] = []
        self._number = count()
        self._kept: dict[str, Job] = {}
        self._running: Job | None = None
        self._more = asyncio.Event()
        self._worker = asyncio.create_task(self._work())

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return sum(one.status == "queued" for _, _, one in self._queue)

    @property
    def waiting_seconds(self) -> float:
        """The estimated time of what is queued and of what is left of the job that runs."""
        queued = sum(one.work for _, _, one in self._queue if one.status == "queued")
        left = self._running.work - self._running.done if self._running else 0
        return (queued + left) / self.speed

    @property
    def has_room(self) -> bool:
        """Whether jobs of others can be taken over: less waits than half of what may."""
        return 2 * self.waiting_seconds <= self._settings.max_waiting_seconds and (
            len(self._kept) < self._settings.max_jobs
        )

    def submit(self, job: Job, keep: bool) -> Job:
        """Put a job into the queue; with `keep` it can be found by its id until some time after its end.

        Raises:
            Problem: 429 when too much waits, or too many jobs are kept.
        """
        waits, cost = self.waiting_seconds, job.work / self.speed
        if waits and waits + cost > self._settings.max_waiting_seconds:
            self._metrics.shed("queue_full")
            detail = f"about {waits:.0f} s of work wait, at most {self._settings.max_waiting_seconds:g} may"
            seconds = str(min(60, max(1, math.ceil(waits / 2))))
            raise Problem(
                429, "rate_limit_exceeded", "too many images are waiting", detail, headers={"retry-after": seconds}
            )
        if keep:
            self._forget(1)
            if len(self._kept) >= self._settings.max_jobs:
                self._metrics.shed("queue_full")
                raise Problem(429, "rate_limit_exceeded", "too many jobs have not ended", headers={"retry-after": "5"})
            self._kept[job.id] = job
        heapq.heappush(self._queue, (perf_counter() + cost, next(self._number), job))
        self._more.set()
        return job

    def find(self, identifier: str) -> Job:
        """The job of an id.

        Raises:
            Problem: 404.
        """
        self._forget()
        if identifier not in self._kept:
            fix = f"jobs are kept for {self._settings.keep_seconds:g} s, by the server that made them"
            raise Problem(404, "job_not_found", "there is no such job", fix=fix)
        return self._kept[identifier]

    def keeps(self, job: Job) -> bool:
        """Whether a job can still be found here."""
        return job.id in self._kept

    def place(self, job: Job) -> int:
        """How many jobs go before it."""
        order = [one for _, _, one in sorted(self._queue, key=lambda item: item[:2]) if one.status == "queued"]
        return order.index(job) + (self._running is not None) if job in order else 0

    def cancel(self, job: Job) -> None:
        """End a job: at once where it waits, after its step where it runs; one that has ended stays as it is."""
        if job.status == "queued":
            self._end(job, "cancelled")
        elif job.status == "running":
            job.stopped = True

    def pass_on(self, job: Job) -> None:
        """Let go of a job that another server does; here it counts as nothing, and ends after its step."""
        job.passed = True
        self._kept.pop(job.id, None)
        self.cancel(job)

    async def close(self) -> None:
        """End all jobs."""
        for _, _, job in self._queue:
            self.cancel(job)
        if self._running is not None:
            self._running.stopped = True
            await self._running.over.wait()
        self._worker.cancel()
        await asyncio.gather(self._worker, return_exceptions=True)
        for job in self._kept.values():
            self.cancel(job)  # one that was about to begin
            self._gone(job)
        self._kept.clear()

    async def _work(self) -> None:
        while True:
            while self._queue:
                _, _, job = heapq.heappop(self._queue)
                if job.status == "queued":
                    await self._do(job)
            self._more.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._more.wait(), min(_SECONDS, self._settings.keep_seconds))
            self._forget()

    async def _do(self, job: Job) -> None:
        def report(done: int) -> None:
            job.done = done
            if job.stopped:
                raise CancelledJobError

        if self._begins is not None and not await self._begins(job) and job.status == "queued":
            self.pass_on(job)
        if job.status != "queued":  # it may have been cancelled meanwhile
            return
        job.status, job.started, self._running = "running", time(), job
        self._metrics.stage["queue"].observe(max(0.0, job.started - job.created))
        start = perf_counter()
        try:
            job.images = await asyncio.to_thread(self._draw, job.wishes, report)
            self._end(job, "cancelled" if job.stopped else "succeeded")
        except CancelledJobError:
            self._end(job, "cancelled")
        except FlaggedError:
            job.error = FLAGGED
            self._metrics.labels[REFUSED].inc()
            self._end(job, "failed")
        except Exception as err:  # noqa: BLE001 - a job that fails must not end the others
            job.error = type(err).__name__
            self._end(job, "failed")
        finally:
            self._running = None
            seconds = perf_counter() - start
            self._metrics.stage["infer"].observe(seconds)
            if job.done and seconds > 0:
                self.speed = _OLD * self.speed + (1 - _OLD) * job.done / seconds

    def _end(self, job: Job, status: Literal["succeeded", "failed", "cancelled"]) -> None:
        job.status, job.ended = status, time()
        if status == "cancelled":
            job.images = []
        job.over.set()

    def _forget(self, room: int = 0) -> None:
        """Let go of jobs that ended long ago, and, where `room` is needed for more, of those that ended first."""
        oldest = time() - self._settings.keep_seconds
        over = [job for job in self._kept.values() if job.ended is not None]
        more = len(self._kept) - self._settings.max_jobs + room
        for at, job in enumerate(sorted(over, key=lambda one: one.ended or 0.0)):
            if at < more or (job.ended or 0.0) < oldest:
                del self._kept[job.id]
                self._gone(job)

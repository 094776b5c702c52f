"""The runtime of models that draw: rows as every model has them, and a queue of jobs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from pydantic import Field

from contracts import metric_names as names
from contracts.bundle import Bundle
from contracts.drawing_engine import DrawingEngine, Wish
from contracts.engine import Engine
from contracts.errors import PlatformError
from contracts.problems.image import GUIDANCE, PROMPT, SEED, STEPS, UnnamedError
from services.drawing.jobs import Job, Jobs
from services.drawing.request import DeniedError, Policy
from services.drawing.shared_jobs import SharedJobs, Taker
from services.errors import Problem, invalid
from services.logs import log_event
from services.metrics.series import Counter
from services.model.predict import record
from services.model.request_schema import Batch
from services.model.rows import Rows
from services.model.runtime import RowRuntime
from services.model.scoring import Scored
from services.problems.image import REFUSED
from services.server.lifecycle import Modality
from services.settings import ServiceSettings

_FIRST_STEPS = 2  # of the image that shows how fast the model is


class DrawingServiceSettings(ServiceSettings):
    """Images take longer than other answers."""

    timeout_seconds: float = Field(300.0, gt=0, description="an answer that takes longer is refused with 504")


class DrawingRows(Rows):
    """Prompts of ``/predict`` and ``/v2``, by the same rules as those of OpenAI's interface."""

    threads = 1

    def __init__(self, engine: Engine, settings: ServiceSettings) -> None:
        super().__init__(engine, settings)
        self._drawer: DrawingEngine = engine  # type: ignore[assignment]
        output = self._drawer.output
        self.policy, self._output = Policy(settings.drawing, output), output
        self.count_refusal: Callable[[], None] | None = None

    def is_quick(self, batch: Batch) -> bool:
        """Always: prompts are short."""
        return True

    def prepared(self, batch: Batch) -> Batch:
        """The rows as they are.

        Raises:
            Problem: 422, naming the rows that ask for nothing that is drawn, and numbers outside of what is computed.
        """
        errors, denied = [], []
        most = {SEED: (0, None), STEPS: (1, self._output.max_steps), GUIDANCE: (1, self._output.max_guidance)}
        for row, prompt in enumerate(batch.columns[PROMPT]):
            where = batch.where.format(row=row, name=PROMPT)
            try:
                self.policy.label(str(prompt))
                self._drawer.check(str(prompt))
            except DeniedError as err:
                denied.append((where, str(err)))
            except UnnamedError as err:
                errors.append((where, str(err)))
            for name, (low, high) in most.items():
                value = batch.columns[name][row] if name in batch.columns else low
                if value < low or (high is not None and value > high):
                    limit = f"from {low} to {high:g}" if high is not None else f"of at least {low}"
                    errors.append((batch.where.format(row=row, name=name), f"expected a number {limit}"))
        if denied:
            if self.count_refusal is not None:
                self.count_refusal()
            raise Problem(422, "content-policy", "the request asks for what this service does not draw", errors=denied)
        if errors:
            raise invalid(errors)
        return batch


class DrawingRuntime(RowRuntime):
    """One served model that draws.

    Attributes:
        jobs: its queue.  shared: those of other servers, None where they are not known.
        engine: the model.  policy: what it refuses.  key: of the seal, b"" without one.
        taker: what answers for jobs that are taken over, None where no routes do.
    """

    jobs: Jobs
    shared: SharedJobs | None
    engine: DrawingEngine
    policy: Policy
    key: bytes
    taker: Taker | None = None

    def __init__(self, modality: Modality) -> None:
        super().__init__(modality, rows=DrawingRows)
        self._drawing = False

    async def open(self, bundle: Bundle) -> Mapping[str, Any]:
        """Load the engine and replay the golden examples, see `RowRuntime.open`, and start the queue."""
        self.key = await asyncio.to_thread(_key, self.settings.drawing.seal_file)
        said = await super().open(bundle)
        model = self.model()
        engine: Any = model.engine
        rows: Any = model.rows
        self.engine, self.policy = engine, rows.policy
        rows.count_refusal = self.refused
        speed = await asyncio.to_thread(self._measure)
        text, labels = "Jobs of images that are kept no longer.", names.DRAWING_LABELS[names.IMAGE_JOBS]
        counter = Counter(names.IMAGE_JOBS, text, labels, self.metrics.registry)
        self._outcomes = {name: counter.labels(self.name, self.version, name) for name in names.IMAGE_JOB_OUTCOMES}
        given = self.settings.drawing
        self.shared = SharedJobs(given.redis, self.name, given) if given.redis else None
        begins = self.shared.begins if self.shared is not None else None
        self.jobs = jobs = Jobs(engine.draw, speed, given, self.metrics, self._gone, begins)
        if self.shared is not None and self.taker is not None:
            self.shared.take_over(jobs, self.taker)
        self._drawing = True
        self.metrics.queue_depth.set_function(lambda: jobs.waiting + self.batcher.depth)
        return {**said, "evaluations_per_second": round(speed, 1)}

    async def close(self) -> None:
        """End the jobs, and finish the rows, see `RowRuntime.close`."""
        if self._drawing:
            self._drawing = False
            if self.shared is not None:
                await self.shared.settle()
                await self.shared.leave(self.jobs)
            await self.jobs.close()
            if self.shared is not None:
                await self.shared.close()
        await super().close()

    def refused(self) -> None:
        """Count a request that the policy forbids."""
        self.metrics.labels[REFUSED].inc()

    def _gone(self, job: Job) -> None:
        """Count a job that is kept no longer; of images that nobody has fetched the log and the metrics say so."""
        outcome = job.status if job.status in ("failed", "cancelled") else "uncollected"
        self._outcomes["collected" if job.collected else outcome].inc()
        if job.status == "succeeded" and not job.collected:
            seconds = round((job.ended or 0.0) - (job.started or 0.0), 3)
            log_event("images_uncollected", logging.WARNING, job=job.id, images=len(job.images), seconds=seconds)
            self.record(job)

    def record(self, job: Job) -> None:
        """Count and log the images of a job, once and without the images."""
        if job.recorded:
            return
        job.recorded = True
        prompt, job.about = job.about.prompt, replace(job.about, prompt="")
        arrived = perf_counter() - max(0.0, (job.ended or 0.0) - job.created)
        model = self.model()
        answers = np.empty(len(job.images), dtype=object)
        answers[:] = job.images
        wishes = job.wishes
        columns = {
            PROMPT: np.array([prompt] * len(wishes), dtype=object),
            SEED: np.array([one.seed for one in wishes], np.int64),
            STEPS: np.array([one.steps for one in wishes], np.int64),
            GUIDANCE: np.array([one.guidance for one in wishes], np.float64),
        }
        batch = Batch(schema="by_features", rows=len(wishes), columns=columns, flags=[[] for _ in wishes])
        decided = model.problem.decide(model.output, model.decision, answers)
        scored = Scored(inputs=columns, answers=answers, decided=decided, reasons=[])
        record(self, model, batch, scored, arrived, job.ids)

    def _measure(self) -> float:
        wish = Wish(label=self.engine.output.labels[0], seed=0, steps=_FIRST_STEPS, guidance=1.0)
        start = perf_counter()
        self.engine.draw([wish])
        return self.engine.evaluations(wish) / max(perf_counter() - start, 1e-6)


def _key(file: str) -> bytes:
    """The key of the seal.

    Raises:
        PlatformError: ``code="bad_settings"``: the file cannot be read, or has too little for a key.
    """
    if not file:
        return b""
    try:
        key = Path(file).read_bytes().strip()
    except OSError as err:
        raise PlatformError(
            f"cannot read drawing.seal_file {file}",
            detail=str(err),
            fix="give a file that is there",
            code="bad_settings",
        ) from err
    if len(key) < 16:
        raise PlatformError(
            f"drawing.seal_file {file} has {len(key)} bytes",
            fix="give a key of 16 bytes or more: head -c 32 /dev/urandom | base64",
            code="bad_settings",
        )
    return key

"""``/v1/images``: images as OpenAI's clients ask for them, at once or as jobs."""

from __future__ import annotations

import asyncio
import base64
import time
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from contracts.problems.image import UnnamedError
from contracts.provenance import marked_png
from services.drawing.jobs import ENDED, FLAGGED, Job
from services.drawing.request import (
    DeniedError,
    ImageRequest,
    factor_of,
    largest,
    parsed,
    refused,
    wishes_of,
)
from services.drawing.shared_jobs import CANCEL, COLLECTED
from services.errors import Problem, openai_body
from services.server.lifecycle import Api
from services.server.openapi import operation, schema
from services.server.requests import Answer, Request, Route
from services.server.streams import unless_gone

if TYPE_CHECKING:
    from services.drawing.runtime import DrawingRuntime

GENERATIONS, JOBS = "/v1/images/generations", "/v1/images/jobs"
_LOOK = 0.2  # seconds between two looks at a job that another server is to end


@dataclass(frozen=True, kw_only=True)
class _About:
    """What the answer of a job needs beside its images."""

    prompt: str
    factor: int
    visible: bool


def image_routes(runtime: DrawingRuntime) -> list[Route]:
    """All routes; what they refuse is in OpenAI's form."""
    served = runtime.taker = _Served(runtime)
    made = [
        (GENERATIONS, "POST", served.generate),
        (JOBS, "POST", served.begin),
        (JOBS + "/{job}", "GET", served.look),
        (JOBS + "/{job}/cancel", "POST", served.cancel),
        ("/v1/models", "GET", served.models),
        ("/v1/models/{model}", "GET", served.model),
    ]
    return [Route(path, {method: handler}, refusal=openai_body) for path, method, handler in made]


class _Served:
    def __init__(self, runtime: DrawingRuntime) -> None:
        self._runtime, self._since = runtime, int(time.time())

    async def generate(self, request: Request) -> Answer:
        """Images, or with ``async`` the job that makes them."""
        self._runtime.opened()
        document = await request.json()
        asked = parsed(document)
        if asked.deferred:
            return self._begun(asked, document)
        job = self._runtime.jobs.submit(self._job(asked), keep=False)
        try:
            await unless_gone(request.receive, _over(job))
        except BaseException:  # the client went away, or its time is over
            self._runtime.jobs.cancel(job)
            raise
        if job.status != "succeeded":
            raise _failure(job)
        self.collected(job)
        return Answer(orjson.dumps(await self._result(job)))

    async def begin(self, request: Request) -> Answer:
        """The job that makes the images of a request."""
        self._runtime.opened()
        document = await request.json()
        return self._begun(parsed(document), document)

    async def look(self, request: Request) -> Answer:
        """What has become of a job, with its images when it has succeeded."""
        self._runtime.opened()
        job = self._found(request.params["job"])
        if job is not None:
            return Answer(orjson.dumps(await self._described(job)))
        return Answer(orjson.dumps(await self._of_another(request.params["job"])))

    async def cancel(self, request: Request) -> Answer:
        """End a job; where it runs, after its step."""
        self._runtime.opened()
        identifier = request.params["job"]
        job = self._found(identifier)
        if job is None:
            return Answer(orjson.dumps(await self._cancelled_by_another(identifier)))
        _refuse_if_over(job.status)
        self._runtime.jobs.cancel(job)
        await job.over.wait()
        if job.passed:
            return Answer(orjson.dumps(await self._cancelled_by_another(identifier)))
        return Answer(orjson.dumps(await self._described(job)))

    async def models(self, request: Request) -> Answer:
        """The one model that is served."""
        self._runtime.opened()
        return Answer(orjson.dumps({"object": "list", "data": [self._model()]}))

    async def model(self, request: Request) -> Answer:
        """It by its name."""
        self._runtime.opened()
        self._check_name(request.params["model"])
        return Answer(orjson.dumps(self._model()))

    def _found(self, identifier: str) -> Job | None:
        """The job, or None where another server may have it."""
        try:
            return self._runtime.jobs.find(identifier)
        except Problem:
            if self._runtime.shared is None:
                raise
            return None

    async def _of_another(self, identifier: str) -> dict[str, Any]:
        """What another server says of a job, which is told when its images are given away."""
        shared = self._runtime.shared
        found = await shared.read(identifier) if shared is not None else None
        if shared is None or found is None:
            fix = f"jobs are kept for {self._runtime.settings.drawing.keep_seconds:g} s"
            raise Problem(404, "job_not_found", "there is no such job", fix=fix)
        if found["status"] == "succeeded":
            await shared.ask(identifier, COLLECTED)
        return found

    async def _cancelled_by_another(self, identifier: str) -> dict[str, Any]:
        found = await self._of_another(identifier)
        _refuse_if_over(found["status"])
        if (shared := self._runtime.shared) is not None and found["status"] not in ENDED:
            await shared.ask(identifier, CANCEL)
        while found["status"] not in ENDED:
            await asyncio.sleep(_LOOK)
            found = await self._of_another(identifier)
        return found

    def _model(self) -> dict[str, Any]:
        return {"id": self._runtime.name, "object": "model", "created": self._since, "owned_by": "fairlead"}

    def _check_name(self, name: str | None) -> None:
        if name is not None and name != self._runtime.name:
            message = f"there is no model of this name; there is {self._runtime.name!r}"
            raise Problem(404, "model_not_found", "unknown model", errors=[("model", message)])

    def remade(self, identifier: str, request: bytes, taken: int) -> Job:
        """A job of another server.

        Raises:
            Problem: 400 and 404: it is none that this server does.
        """
        said = orjson.loads(request)
        job = self._job(parsed(said["asked"]))
        job.id, job.created, job.request, job.taken = identifier, float(said["created"]), request, taken
        return job

    def _job(self, asked: ImageRequest) -> Job:
        runtime = self._runtime
        settings, engine = runtime.settings.drawing, runtime.engine
        self._check_name(asked.model)
        try:
            label = runtime.policy.label(asked.prompt)
            engine.check(asked.prompt)
        except DeniedError as err:
            runtime.refused()
            raise Problem(
                400, "content_policy_violation", "the request is refused", errors=[("prompt", str(err))]
            ) from None
        except UnnamedError as err:
            raise refused("prompt", str(err)) from None
        factor = factor_of(asked.size, engine.output, settings.max_side)
        prompt = engine.prompt_of(asked.prompt, label)
        wishes = wishes_of(asked, label, prompt, engine.output, (engine.spec.steps, engine.spec.guidance), settings)
        about = _About(
            prompt=asked.prompt,
            factor=factor,
            visible=settings.visible_mark or bool(asked.visible_mark),
        )
        return Job(wishes=wishes, work=sum(map(engine.evaluations, wishes)), about=about)

    def _begun(self, asked: ImageRequest, document: Any) -> Answer:
        runtime = self._runtime
        job = self._job(asked)
        if runtime.shared is not None and runtime.settings.drawing.max_takeovers:
            job.request = orjson.dumps({"asked": document, "created": job.created})
        runtime.jobs.submit(job, keep=True)
        if runtime.shared is not None:
            runtime.shared.follow(job, runtime.jobs, self)
        body = orjson.dumps(self._state(job))
        return Answer(body, status=202, headers=(("location", f"{JOBS}/{job.id}"), ("retry-after", "1")))

    def _state(self, job: Job) -> dict[str, Any]:
        jobs = self._runtime.jobs
        return {
            "id": job.id,
            "object": "image.job",
            "status": job.status,
            "progress": round(job.done / job.work, 4) if job.status != "succeeded" else 1.0,
            "before": jobs.place(job),
            "estimated_seconds": round((job.work - job.done) / jobs.speed, 3) if job.status not in ENDED else 0.0,
            "created": int(job.created),
            "started": job.started and int(job.started),
            "ended": job.ended and int(job.ended),
            "error": openai_error(job),
            "result": None,
        }

    async def _described(self, job: Job) -> dict[str, Any]:
        """How a job is, for who asks; images that are given away are counted and logged once."""
        state = await self.document(job)
        if job.status == "succeeded":
            self.collected(job)
        return state

    async def document(self, job: Job) -> dict[str, Any]:
        """How a job is, with its images when it has succeeded."""
        state = self._state(job)
        if job.status == "succeeded":
            state["result"] = await self._result(job)
        return state

    def collected(self, job: Job) -> None:
        """Count and log images that were given to who asked."""
        self._runtime.record(job)
        job.collected = True

    async def _result(self, job: Job) -> dict[str, Any]:
        """The answer of a job that succeeded, as OpenAI has it."""
        runtime, about = self._runtime, job.about
        start = perf_counter()
        data = await asyncio.to_thread(self._files, job)
        runtime.metrics.stage["encode"].observe(perf_counter() - start)
        output = runtime.engine.output
        size = f"{output.width * about.factor}x{output.height * about.factor}"
        return {
            "created": int(job.ended or time.time()),
            "data": data,
            "output_format": "png",
            "size": size,
            "quality": "standard",
            "model": runtime.name,
            "version": runtime.version,
        }

    def _files(self, job: Job) -> list[dict[str, Any]]:
        runtime, about = self._runtime, job.about
        made = []
        for one, wish, identifier in zip(job.images, job.wishes, job.ids, strict=True):
            pixels = np.kron(one.pixels, np.ones((about.factor, about.factor, 1), np.uint8))
            said = {**one.made, "model": runtime.name, "version": runtime.version}
            file = marked_png(pixels, said, key=runtime.key, visible=about.visible)
            read = wish.prompt or one.label
            drawn = {"b64_json": base64.b64encode(file).decode(), "revised_prompt": read, "seed": wish.seed}
            made.append({**drawn, "id": identifier})
        return made


def _refuse_if_over(status: str) -> None:
    if status in ENDED and status != "cancelled":
        raise Problem(409, "job_has_ended", f"the job has {status} already")


async def _over(job: Job) -> None:
    await job.over.wait()


def openai_error(job: Job) -> dict[str, Any] | None:
    """What failed, as OpenAI has it; None where nothing did."""
    if job.status not in ("failed", "cancelled"):
        return None
    found: dict[str, Any] = orjson.loads(openai_body(_failure(job)))["error"]
    return found


def _failure(job: Job) -> Problem:
    if job.status == "cancelled":
        return Problem(503, "cancelled", "the images were cancelled")
    if job.error == FLAGGED:
        return Problem(400, "content_policy_violation", "the model's own check refuses what it has drawn")
    return Problem(500, "engine-failed", "the model failed to draw", job.error, fix="see the service's log")


def _paths(runtime: DrawingRuntime) -> dict[str, Any]:
    output = runtime.engine.output
    ask = {"$ref": "#/components/schemas/ImageRequest"}
    sizes = f"{output.width}x{output.height}, or up to {largest(output, runtime.settings.drawing.max_side)} times that"
    whole: dict[str, Any] = {"type": "object", "description": f"as OpenAI documents it; sizes: {sizes}"}
    job: dict[str, Any] = {"type": "object", "description": "status, progress and, at the end, the result"}
    by_id = {"parameters": [{"name": "job", "in": "path", "required": True, "schema": {"type": "string"}}]}
    return {
        GENERATIONS: {"post": operation("Draw images", "generate_images", whole, ask)},
        JOBS: {"post": operation("Begin to draw images", "begin_images", job, ask)},
        JOBS + "/{job}": {**by_id, "get": operation("A job", "image_job", job)},
        JOBS + "/{job}/cancel": {**by_id, "post": operation("End a job", "cancel_image_job", job)},
        "/v1/models": {"get": operation("The model", "models", {"type": "object"})},
    }


IMAGES = Api(
    routes=image_routes,
    busy=(GENERATIONS, JOBS),
    paths=_paths,
    schemas=lambda runtime: schema("ImageRequest", ImageRequest),
)

"""``/stream``: a WebSocket over which a client sends frames, and gets the objects of each, which keep their ids.

A message of bytes is a frame, an image file. Messages of text are JSON objects: ``{"settings": {...}}`` before the
first frame (`contracts.video.settings.VideoSettings`), ``{"time": 1.25}``, the moment of the next frame in seconds, and
``{"end": true}``. Answers are in the order of the frames; frames that were dropped are counted in the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections import Counter
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import orjson
from PIL import Image
from pydantic import ValidationError

from contracts.bundle import Bundle
from contracts.errors import PlatformError
from contracts.images import BROKEN, FORMATS
from contracts.problems.detection import DetectionOutput
from contracts.video.settings import VideoSettings
from contracts.video.stream import Following, FrameQueue, Sampler, check_places
from services.errors import Problem, invalid
from services.image.video_metrics import VideoMetrics
from services.model.predict import record, run
from services.model.runtime import RowRuntime
from services.request_options import RequestOptions
from services.server.lifecycle import Api
from services.server.openapi import operation
from services.server.requests import Answer, Request, Route
from services.server.sockets import GOING_AWAY, NORMAL, Socket

_LOOK_SECONDS = 0.5  # between two looks at whether the service stops, while no frame comes
_LONGEST_TEXT = 65_536


class ImageRuntime(RowRuntime):
    """One served model of images.

    Attributes:
        video: the metrics of its streams; None of a model that finds no objects.
        streams: that are open.
    """

    video: VideoMetrics | None = None
    streams = 0

    async def open(self, bundle: Bundle) -> Any:
        """See `RowRuntime.open`."""
        said = await super().open(bundle)
        if isinstance(bundle.document.signature.output, DetectionOutput):
            self.video = VideoMetrics(self.name, self.version, self.metrics.registry)
            self.video.streams.set_function(lambda: self.streams)
        return said


class StreamHandler:
    """Serves ``/stream`` of one runtime."""

    def __init__(self, runtime: ImageRuntime) -> None:
        self._runtime = runtime

    async def __call__(self, socket: Socket) -> None:
        """Talk until the client ends, goes away, or is silent for too long.

        Raises:
            Problem: 404 where the model finds no objects; 429 when there are enough streams; 503 when it is not ready.
        """
        runtime = self._runtime
        runtime.model()
        if runtime.video is None:
            raise Problem(404, "no-stream", "this model finds no objects in frames", fix="POST each image to /predict")
        if runtime.state == "draining":
            raise runtime.not_ready()
        most = runtime.settings.stream.connections
        if runtime.streams >= most:
            runtime.metrics.shed("queue_full")
            raise Problem(
                429, "overloaded", "too many streams are open", f"at most {most}", headers={"retry-after": "5"}
            )
        runtime.streams += 1
        try:
            await socket.accept()
            await _Stream(runtime, runtime.video, socket).talk()
        finally:
            runtime.streams -= 1


@dataclass(slots=True)
class _Given:
    number: int
    time: float
    file: bytes
    arrived: float


class _Stream:
    def __init__(self, runtime: ImageRuntime, metrics: VideoMetrics, socket: Socket) -> None:
        self._runtime, self._metrics, self._socket = runtime, metrics, socket
        self._limits = runtime.settings.stream
        self._waiting: FrameQueue[_Given] = FrameQueue(self._limits.queue)
        self._came, self._left = asyncio.Event(), asyncio.Event()  # a frame; room for one
        self._ended = self._gone = False
        self._counts = Counter[str]()
        self._received = self._passed_over = self._tracks = 0
        self._began: float | None = None
        self._told_time: float | None = None
        self._last_time = -1.0
        self._last_frame = perf_counter()
        self._still: float | None = None
        self._begin(self._limits.video)

    def _begin(self, video: VideoSettings) -> None:
        output = self._runtime.model().output
        assert isinstance(output, DetectionOutput)
        self._video, self._following, self._sampler = video, Following(output, video), Sampler(video)

    async def talk(self) -> None:
        """Receive and answer at the same time.

        Raises:
            Problem: the client says what cannot be read; the connection is closed with it.
        """
        reader = asyncio.create_task(self._read())
        try:
            await self._answer_all(reader)
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _read(self) -> None:
        while not self._ended:
            message = await self._socket.receive()
            if message is None:
                self._gone = True
            elif isinstance(message, str):
                self._told(message)
            else:
                await self._frame(message)
            self._came.set()
            if self._gone:
                return

    async def _frame(self, file: bytes) -> None:
        now = perf_counter()
        self._last_frame = now
        self._began = now if self._began is None else self._began
        time = now - self._began if self._told_time is None else self._told_time
        if time <= self._last_time:
            raise invalid([("time", "expected a moment after that of the frame before")])
        self._told_time, self._last_time = None, time
        number, self._received = self._received, self._received + 1
        if not self._sampler.due(time):
            self._passed_over += 1
            self._count("passed_over")
            return
        if self._limits.full == "wait":
            while self._waiting.full:
                self._left.clear()
                await self._left.wait()
        before = self._waiting.dropped
        self._waiting.put(_Given(number, time, file, now))
        self._count("dropped", self._waiting.dropped - before)

    def _told(self, text: str) -> None:
        try:
            said = orjson.loads(text) if len(text) <= _LONGEST_TEXT else None
        except orjson.JSONDecodeError:
            said = None
        if type(said) is not dict or len(said) != 1 or not said.keys() <= {"settings", "time", "end"}:
            raise invalid([("(message)", 'expected bytes, {"settings": {...}}, {"time": seconds} or {"end": true}')])
        if "settings" in said:
            self._begin(self._chosen(said["settings"]))
        elif "end" in said:
            self._ended = True
        else:
            moment = said["time"]
            if type(moment) not in (int, float) or not 0 <= moment < 1e9:
                raise invalid([("time", "expected seconds from 0 on")])
            self._told_time = float(moment)

    def _chosen(self, given: Any) -> VideoSettings:
        if self._received:
            raise invalid([("settings", "expected before the first frame")])
        if type(given) is not dict:
            raise invalid([("settings", "expected an object")])
        whole = self._limits.video.model_dump()
        if type(given.get("track")) is dict:
            given = {**given, "track": {**whole["track"], **given["track"]}}
        try:
            return VideoSettings.model_validate({**whole, **given})
        except ValidationError as err:
            told = [(".".join(map(str, one["loc"])) or "settings", one["msg"]) for one in err.errors()]
            raise invalid(told) from None

    async def _answer_all(self, reader: asyncio.Task[None]) -> None:
        while not self._gone:
            if len(self._waiting):
                given, dropped = self._waiting.take()
                self._left.set()
                await self._answer(given, dropped)
                continue
            if reader.done() and reader.exception() is not None:
                raise reader.exception()  # type: ignore[misc]
            if self._ended:
                await self._socket.send({"end": self._totals()})
                await self._socket.close(NORMAL)
                return
            if self._runtime.state in ("draining", "stopped"):
                await self._socket.close(GOING_AWAY, "the service stops; connect again")
                return
            if perf_counter() - self._last_frame > self._limits.idle_seconds:
                await self._socket.close(GOING_AWAY, f"no frame for {self._limits.idle_seconds:g} s")
                return
            self._came.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._came.wait(), min(_LOOK_SECONDS, self._limits.idle_seconds))

    async def _answer(self, given: _Given, dropped: int) -> None:
        """Answer one frame; its failure is its answer, and the stream goes on."""
        about = {"frame": given.number, "dropped": dropped}
        try:
            if self._video.change and not await self._runtime.prepare(lambda: self._changed(given.file)):
                self._still = given.time if self._still is None else self._still
                self._count("passed_over")
                return
            limit = self._runtime.settings.timeout_seconds
            said = await asyncio.wait_for(self._said(given, limit), limit)
        except Problem as err:
            problem = err
        except TimeoutError:
            problem = Problem(504, "timeout", "the frame took too long")
        else:
            self._count("answered")
            self._metrics.lag.observe(perf_counter() - given.arrived)
            await self._socket.send({**about, **said})
            return
        self._count("refused")
        await self._socket.send({**about, "time": given.time, "error": orjson.loads(problem.body())})

    async def _said(self, given: _Given, limit: float) -> dict[str, Any]:
        runtime, model = self._runtime, self._runtime.model()
        schema = model.schemas.by_features
        batch = schema.batch({schema.fields[0].name: [given.file]}, where="frame")
        options = RequestOptions(deadline=perf_counter() + limit, arrived=given.arrived)
        scored = await run(runtime, model, batch, 0, options)
        if not self._following.frames:
            self._check_places(next(iter(scored.inputs.values()))[0])
        if self._still is not None:
            self._following.still(max(0.0, given.time - self._still))
            self._still = None
        said = self._following.frame(given.time, scored.answers[0])
        for event in said["events"]:
            self._metrics.events[event["event"]].inc()
        tracks = self._following.count
        self._metrics.tracks.inc(tracks - self._tracks)
        self._tracks = tracks
        identifier = record(runtime, model, batch, scored, given.arrived)[0]
        return {"id": identifier, **said, "flags": batch.flags[0]}

    def _check_places(self, picture: Any) -> None:
        try:
            check_places(self._video, *getattr(picture, "shown", (1_000_000, 1_000_000)))
        except PlatformError as err:
            raise Problem(422, "bad-zone", err.headline, err.detail, fix=err.fix) from None

    def _changed(self, file: bytes) -> bool:
        try:
            image = Image.open(io.BytesIO(file), formats=FORMATS)
            if image.width * image.height > self._runtime.settings.max_image_pixels:
                return True  # which says so
            return self._sampler.changed(image)
        except (*BROKEN, Image.DecompressionBombError):
            return True

    def _count(self, outcome: str, frames: int = 1) -> None:
        if frames:
            self._counts[outcome] += frames
            self._metrics.frames[outcome].inc(frames)

    def _totals(self) -> dict[str, Any]:
        totals = {**self._following.totals(), **{key: self._counts[key] for key in self._metrics.frames}}
        return {**totals, "frames": self._received}


async def _upgrade(request: Request) -> Answer:
    raise Problem(
        426,
        "upgrade-required",
        "this path talks over a WebSocket",
        fix="connect with a WebSocket client, ws://HOST/stream; frames are messages of bytes",
        headers={"upgrade": "websocket"},
    )


def _paths(runtime: ImageRuntime) -> dict[str, Any]:
    if runtime.video is None:
        return {}
    answer = {"type": "object", "description": "never: connect with a WebSocket client"}
    about = operation("Find and follow objects in frames, over a WebSocket", "stream", answer)
    return {"/stream": {"get": {**about, "description": " ".join((__doc__ or "").split())}}}


STREAM = Api(routes=lambda runtime: [Route("/stream", {"GET": _upgrade}, socket=StreamHandler(runtime))], paths=_paths)

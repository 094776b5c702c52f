"""Modalities, and the lifecycle of a served model: loading, ready, draining, stopped.

Another package adds a modality in its pyproject.toml::

    [project.entry-points."fairlead.modalities"]
    audio = "my_package.audio:MODALITY"
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from types import FrameType
from typing import Any, Literal

from contracts.bundle import Bundle, read_bundle
from contracts.errors import PlatformError
from contracts.plugins import Rooms
from services.errors import Problem, unavailable
from services.logs import NAME, log_event
from services.metrics.held import Held
from services.metrics.service_metrics import ServiceMetrics
from services.request_options import Holder
from services.server.auth import KeyRing
from services.server.cors import Cors
from services.server.requests import Route
from services.settings import ServiceSettings, load_settings

logger = logging.getLogger(NAME)
MODALITIES = Rooms("modality", "services", "MODALITY", folders=True, module="modality")
Stop = Callable[[], Awaitable[None]]


def _nothing(_: Any) -> dict[str, Any]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Api:
    """One way to ask a model.

    Attributes:
        routes: of a runtime.
        busy: templates of the routes that are counted from the start, before the first request.
        paths, schemas: of the OpenAPI document, once the model is loaded.
        listen: opens a port beside HTTP's, and returns what closes it; None when there is none.
    """

    routes: Callable[[Any], Sequence[Route]]
    busy: tuple[str, ...] = ()
    paths: Callable[[Any], Mapping[str, Any]] = _nothing
    schemas: Callable[[Any], Mapping[str, Any]] = _nothing
    listen: Callable[[Any], Awaitable[Stop | None]] | None = None


@dataclass(frozen=True, kw_only=True)
class Modality:
    """A kind of model that the server can serve.

    Attributes:
        name: as in bundle.json.
        runtime: makes the runtime, which opens a bundle of this modality.
        apis: the ways to ask it.
        settings: of its service.
    """

    name: str
    runtime: Callable[[Modality], Runtime]
    apis: tuple[Api, ...]
    settings: type[ServiceSettings] = ServiceSettings

    def make(self) -> Runtime:
        """A runtime that is not started yet."""
        return self.runtime(self)


class Runtime(ABC):
    """One served model, from start to stop; a modality says how its bundles are opened and closed."""

    settings: ServiceSettings

    def __init__(self, modality: Modality) -> None:
        self.modality = modality
        self.state: Literal["stopped", "loading", "ready", "failed", "draining"] = "stopped"
        self.failure: PlatformError | None = None
        self.name = self.version = ""
        self.bundle: Bundle | None = None
        self.keys: KeyRing | None = None
        self.cors: Cors | None = None
        self.inflight = 0
        self.metrics = ServiceMetrics("", "")
        self.started = False  # whether the model has proven itself once
        self.on_ready: Callable[[], None] | None = None
        self._loading: asyncio.Task[None] | None = None
        self.on_stop: list[Stop] = []
        self.learn: Callable[[Sequence[Any]], int] | None = None  # from labels, where there are adapters

    @abstractmethod
    async def open(self, bundle: Bundle) -> Mapping[str, Any]:
        """Load and prove the model of a verified bundle; returns what the log says when it is ready.

        Raises:
            PlatformError: the service does not become ready, and says why.
        """

    @abstractmethod
    async def close(self) -> None:
        """Finish what was accepted; also called when the model was not loaded."""

    @property
    def stuck(self) -> bool:
        """Whether the model does not come back from a call."""
        return False

    def describe(self) -> str:
        """The model in a sentence, for the documentation."""
        return ""

    async def start(self, settings: ServiceSettings | None = None) -> None:
        """Begin to load the bundle in the background, so that liveness answers meanwhile."""
        self.settings = settings or load_settings(kind=self.modality.settings)
        self.state, self.failure, self.started = "loading", None, False
        self.bundle = self.keys = None
        if self.settings.keys_file:
            self.keys = KeyRing(self.settings.keys_file)
        self.cors = Cors(self.settings.cors) if self.settings.cors.origins else None
        self._loading = asyncio.create_task(self._load())

    async def listen(self) -> None:
        """Open the ports of the modality's APIs beside HTTP's."""
        for api in self.modality.apis:
            if api.listen is not None and (stop := await api.listen(self)) is not None:
                self.on_stop.append(stop)

    async def stop(self) -> None:
        """Finish the work that was accepted."""
        self.state = "stopped"
        while self.on_stop:
            await self.on_stop.pop()()
        if self._loading is not None:
            self._loading.cancel()
        await self.close()
        log_event("stopped", model=self.name)

    async def loaded(self) -> None:
        """Wait until loading has ended, well or not."""
        if self._loading is not None:
            await self._loading

    def authorise(self, headers: Mapping[bytes, bytes]) -> Holder:
        """Let a request with these headers pass, or raise the Problem that refuses it; whose key it has."""
        assert self.keys is not None
        try:
            return self.keys.check(headers)
        except Problem as err:
            if err.status == 429:
                self.metrics.shed("rate_limited")
            raise

    @property
    def ready(self) -> bool:
        """Whether this server should get new requests."""
        return self.state == "ready" and not self.stuck

    @property
    def alive(self) -> bool:
        """Whether this process can ever answer again."""
        return self.failure is None or self.failure.code != "crashed"

    def opened(self) -> Bundle:
        """The bundle that answers requests.

        Raises:
            Problem: 503, with the reason, while there is none.
        """
        if self.bundle is None or not self.started or self.failure is not None:
            raise self.not_ready()
        return self.bundle

    def not_ready(self) -> Problem:
        """Why this server is not ready, as an answer."""
        if self.failure is not None:
            return unavailable(self.failure)
        if self.state == "ready" and self.stuck:
            return Problem(503, "stuck", "a call of the model does not come back", headers={"retry-after": "5"})
        return Problem(503, self.state, f"the service is {self.state}", headers={"retry-after": "1"})

    async def _load(self) -> None:
        start = perf_counter()
        try:
            self.bundle = bundle = await asyncio.to_thread(self._read)
            self.name = self.settings.name or bundle.document.name
            self.version = self.settings.version or bundle.digest[:12]
            busy = tuple(route for api in self.modality.apis for route in api.busy)
            self.metrics = ServiceMetrics(self.name, self.version, busy)
            Held(self.name, self.settings.asked, self.metrics.registry)
            said = await self.open(bundle)
        except PlatformError as err:
            self.refuse(err)
        except Exception as err:
            logger.exception("load_failed")
            self.refuse(
                PlatformError(
                    f"could not load {self.settings.bundle}",
                    detail=f"{type(err).__name__} in the model's library",
                    fix="see the log for where, and publish the model again",
                    code="load_failed",
                )
            )
        else:
            seconds = perf_counter() - start
            self.metrics.inflight.set_function(lambda: self.inflight)
            self.metrics.loaded(bundle.digest, bundle.document.recipe, seconds)
            self.started = True
            if self.state == "loading":  # else it is being stopped already
                self.state = "ready"
            if self.on_ready is not None:
                self.on_ready()
            log_event("ready", model=self.name, version=self.version, seconds=round(seconds, 3), **said)

    def _read(self) -> Bundle:
        bundle = read_bundle(self.settings.bundle)
        document = bundle.document
        if document.modality != self.modality.name:
            raise PlatformError(
                f"{document.name} is a {document.modality} model",
                detail=f"this is the {self.modality.name} service",
                fix=f"start the {document.modality} service",
                code="wrong_modality",
            )
        return bundle

    def refuse(self, err: PlatformError) -> None:
        """Stop answering, with `err` as the reason."""
        self.state, self.failure = "failed", err
        log_event("not_ready", logging.ERROR, **err.as_dict())

    def drain_on_sigterm(self) -> None:
        """At SIGTERM first become not ready, and hand over to the server after `drain_seconds`."""
        server = signal.getsignal(signal.SIGTERM)
        if threading.current_thread() is not threading.main_thread() or not callable(server):
            return  # nobody to hand over to, as in tests
        loop = asyncio.get_running_loop()

        def drain(number: int, frame: FrameType | None) -> None:
            self.state = "draining"
            loop.call_soon_threadsafe(loop.call_later, self.settings.drain_seconds, server, number, None)

        signal.signal(signal.SIGTERM, drain)

"""Loading, proving, draining: what a model server does around its requests."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from types import FrameType
from typing import Literal, TypeVar

from contracts.bundle import Bundle, read_bundle
from contracts.engines import load_engine
from contracts.errors import PlatformError
from services.batching.batcher import Batcher
from services.batching.executor import Executor, cpu_shares
from services.batching.terms import BatchLimits
from services.errors import Problem, unavailable
from services.logs import NAME, log_event
from services.metrics.service_metrics import ServiceMetrics
from services.model.forms import Forms
from services.model.prediction_log import PredictionLog
from services.model.scoring import Lookup, Model, Scored, Work, replay, warm
from services.problems import get_serving
from services.server.auth import KeyRing
from services.server.cors import Cors
from services.settings import ServiceSettings, load_settings

logger = logging.getLogger(NAME)
T = TypeVar("T")
OpenLookup = Callable[[Bundle, ServiceSettings], "Lookup | None"]
BUSY_ROUTES = ("/predict", "/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer")


class Runtime:
    """One served model, from start to stop.

    Args:
        modality: what bundles it serves.
        open_lookup: opens the online features of a bundle; None for modalities without any.
    """

    settings: ServiceSettings
    executor: Executor
    batcher: Batcher[Work, Scored]

    def __init__(self, modality: str, open_lookup: OpenLookup | None = None) -> None:
        self.modality, self._open_lookup = modality, open_lookup
        self.state: Literal["stopped", "loading", "ready", "failed", "draining"] = "stopped"
        self.failure: PlatformError | None = None
        self.name = self.version = ""
        self.log: PredictionLog | None = None
        self.keys: KeyRing | None = None
        self.cors: Cors | None = None
        self.inflight = 0
        self.metrics = ServiceMetrics("", "")
        self.on_ready: Callable[[], None] | None = None
        self.on_stop: Callable[[], Awaitable[None]] | None = None
        self._model: Model | None = None
        self._loading: asyncio.Task[None] | None = None
        self._preparer: Executor | None = None
        self._preparing = 0

    async def start(self, settings: ServiceSettings | None = None) -> None:
        """Begin to load the bundle in the background, so that liveness answers meanwhile."""
        self.settings = settings or load_settings()
        self.state, self.failure = "loading", None
        self._model = self.log = self.keys = None
        if self.settings.keys_file:
            self.keys = KeyRing(self.settings.keys_file)
        self.cors = Cors(self.settings.cors) if self.settings.cors.origins else None
        shares = cpu_shares(self.settings.workers, self.settings.threads) if self.settings.pin_cpus else None
        self.executor = Executor(self.settings.workers, self._crashed, shares)
        self._loading = asyncio.create_task(self._load())

    async def stop(self) -> None:
        """Finish the queued work and write the log to its end."""
        self.state = "stopped"
        if self.on_stop is not None:
            await self.on_stop()
        if self._loading is not None:
            self._loading.cancel()
        if self._model is not None:
            await self.batcher.drain()
        for executor in (self.executor, self._preparer):
            if executor is not None:
                await asyncio.to_thread(executor.stop)
        if self.log is not None:
            await asyncio.to_thread(self.log.close)
        log_event("stopped", model=self.name)

    async def loaded(self) -> None:
        """Wait until loading has ended, well or not."""
        if self._loading is not None:
            await self._loading

    def model(self) -> Model:
        """The model that answers requests.

        Raises:
            Problem: 503, with the reason, while there is none.
        """
        if self._model is None or self.failure is not None:
            raise self.not_ready()
        return self._model

    def authorise(self, headers: Mapping[bytes, bytes]) -> None:
        """Let a request with these headers pass, or raise the Problem that refuses it."""
        assert self.keys is not None
        try:
            self.keys.check(headers)
        except Problem as err:
            if err.status == 429:
                self.metrics.shed("rate_limited")
            raise

    @property
    def started(self) -> bool:
        """Whether the model has proven itself once: its golden examples were replayed."""
        return self._model is not None

    @property
    def ready(self) -> bool:
        """Whether this server should get new requests."""
        return self.state == "ready" and not self._stuck

    @property
    def alive(self) -> bool:
        """Whether this process can ever answer again."""
        return self.failure is None or self.failure.code != "crashed"

    @property
    def _stuck(self) -> bool:
        return self._model is not None and self.batcher.oldest_call > self.settings.stuck_seconds

    def not_ready(self) -> Problem:
        """Why this server is not ready, as an answer."""
        if self.failure is not None:
            return unavailable(self.failure)
        if self.state == "ready" and self._stuck:
            return Problem(503, "stuck", "a call of the model does not come back", headers={"retry-after": "5"})
        return Problem(503, self.state, f"the service is {self.state}", headers={"retry-after": "1"})

    async def _load(self) -> None:
        start = perf_counter()
        try:
            model, examples, (size, shortest) = await self.executor.run(self._open)
        except PlatformError as err:
            self._refuse(err)
        except Exception as err:
            logger.exception("load_failed")
            self._refuse(
                PlatformError(
                    f"could not load {self.settings.bundle}",
                    detail=f"{type(err).__name__} in the model's library",
                    fix="see the log for where, and publish the model again",
                    code="load_failed",
                )
            )
        else:
            seconds = perf_counter() - start
            document = model.bundle.document
            views = model.lookup.views if model.lookup else ()
            labels = model.serving.labels(model.output)
            self.metrics.loaded(labels, views, model.bundle.digest, document.recipe, seconds)
            self._serve(model)
            self.batcher.learn("direct", size, shortest)
            if self.state == "loading":  # else it is being stopped already
                self.state = "ready"
            if self.on_ready is not None:
                self.on_ready()
            log_event(
                "ready", model=self.name, version=self.version, seconds=round(seconds, 3), golden_examples=examples
            )

    def _serve(self, model: Model) -> None:
        settings, metrics = self.settings, self.metrics
        limits = BatchLimits(
            rows=settings.max_batch_rows,
            tokens=settings.max_batch_tokens,
            pending=settings.max_concurrency,
            wait=settings.batch_wait_ms / 1e3,
            # A look-up waits for others, which must not stop the loop.
            inline=0.0 if model.lookup else settings.inline_ms / 1e3,
        )
        self.batcher = batcher = Batcher(model.score_all, self.executor, limits, metrics)
        metrics.queue_depth.set_function(lambda: batcher.depth)
        metrics.inflight.set_function(lambda: self.inflight)
        if model.tokens is not None:
            metrics.padded = model.tokens.padded
            self._preparer = Executor(1, self._crashed)
        if model.files is not None:
            self._preparer = Executor(settings.workers, self._crashed)
        self._model = model

    async def prepare(self, call: Callable[[], T]) -> T:
        """Run what takes too long for the loop and is no call of the model.

        Raises:
            Problem: 429 when too much waits for this already.
        """
        assert self._preparer is not None
        most = self.settings.max_concurrency
        if self._preparing >= most:
            self.metrics.shed("queue_full")
            detail = f"at most {most} at a time are accepted; try again"
            raise Problem(429, "overloaded", "too many requests are waiting", detail, headers={"retry-after": "1"})
        self._preparing += 1
        waiting = [True]
        try:
            return await self._preparer.run(lambda: call() if waiting else None)  # type: ignore[return-value]
        finally:
            waiting.clear()
            self._preparing -= 1

    def _crashed(self, err: BaseException) -> None:
        failure = PlatformError(
            "the model's thread has ended",
            detail=type(err).__name__,
            fix="restart the service, which the liveness probe asks for",
            code="crashed",
        )
        self._refuse(failure)

    def _open(self) -> tuple[Model, int, tuple[float, float]]:
        settings = self.settings
        bundle = read_bundle(settings.bundle)
        document = bundle.document
        if document.modality != self.modality:
            raise PlatformError(
                f"{document.name} is a {document.modality} model",
                detail=f"this is the {self.modality} service",
                fix=f"serve it with services.{document.modality}",
                code="wrong_modality",
            )
        self.name = settings.name or document.name
        self.version = settings.version or bundle.digest[:12]
        signature = document.signature
        answers = get_serving(signature.problem).distribution(signature.output, list(bundle.golden()))
        self.metrics = ServiceMetrics(self.name, self.version, BUSY_ROUTES, answers)
        lookup = self._open_lookup(bundle, settings) if self._open_lookup else None
        forms = Forms.of(signature, max_chars=settings.max_text_chars, lookup=lookup is not None)
        engine = load_engine(bundle, threads=settings.threads, device=settings.device, compiled=settings.compile)
        model = Model(bundle, engine, forms, lookup, self.metrics)
        examples = replay(model)
        if settings.predictions.folder:
            about = {"model": self.name, "version": self.version, "digest": bundle.digest[:12]}
            self.log = PredictionLog(settings.predictions, signature, about)
        return model, examples, warm(model)

    def _refuse(self, err: PlatformError) -> None:
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

"""The runtime of models that answer rows: a batcher over the engine's threads, and the log of predictions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from contracts.baseline import FILE as BASELINE
from contracts.bundle import Bundle
from contracts.engine import Engine, vector_of
from contracts.engines import load_engine
from contracts.errors import PlatformError
from contracts.pii.finders import open_finder
from contracts.pii.rules import cleaners
from services.adapters.personal import Personal, open_personal
from services.batching.batcher import Batcher
from services.batching.executor import Executor, cpu_shares
from services.batching.queue_items import BatchLimits
from services.errors import Problem
from services.model.prediction_log import PredictionLog
from services.model.request_schema import Batch, RequestSchemas
from services.model.rows import Rows
from services.model.scoring import Lookup, Model, Scored, Work, replay, warm
from services.problems import get_serving
from services.request_options import RequestOptions
from services.server.lifecycle import Modality, Runtime
from services.settings import ServiceSettings

T = TypeVar("T")
OpenLookup = Callable[[Bundle, ServiceSettings], "Lookup | None"]


class RowRuntime(Runtime):
    """One served model that answers rows.

    Args:
        rows: prepares rows for the engine.
        open_lookup: opens the online features of a bundle; None for modalities without any.
    """

    executor: Executor
    batcher: Batcher[Work, Scored]

    def __init__(self, modality: Modality, rows: type[Rows] = Rows, open_lookup: OpenLookup | None = None) -> None:
        super().__init__(modality)
        self._rows, self._open_lookup = rows, open_lookup
        self.log: PredictionLog | None = None
        self._model: Model | None = None
        self._preparer: Executor | None = None
        self._preparing = 0

    async def start(self, settings: ServiceSettings | None = None) -> None:
        """Begin to load the bundle, see `Runtime.start`; the model's threads are there from now on."""
        self._model = self.log = self._preparer = self.learn = None
        await super().start(settings)
        shares = cpu_shares(self.settings.workers, self.settings.threads) if self.settings.pin_cpus else None
        self.executor = Executor(self.settings.workers, self._crashed, shares)

    async def close(self) -> None:
        """Finish the queued work and write the log to its end."""
        if self._model is not None:
            await self.batcher.drain()
        for executor in (self.executor, self._preparer):
            if executor is not None:
                await asyncio.to_thread(executor.stop)
        if self.log is not None:
            await asyncio.to_thread(self.log.close)
        if self._model is not None and self._model.personal is not None:
            await asyncio.to_thread(self._model.personal.close)
        if self._model is not None:
            await asyncio.to_thread(self._model.rows.close)

    def model(self) -> Model:
        """The model that answers requests.

        Raises:
            Problem: 503, with the reason, while there is none.
        """
        if self._model is None or self.failure is not None:
            raise self.not_ready()
        return self._model

    @property
    def stuck(self) -> bool:
        """Whether a call of the model takes longer than it may."""
        return self._model is not None and self.batcher.oldest_call > self.settings.stuck_seconds

    def describe(self) -> str:
        """The model's problem in a sentence."""
        model = self.model()
        return model.serving.summary(model.output)

    async def open(self, bundle: Bundle) -> Mapping[str, Any]:
        """Load the engine, replay the golden examples, and start the batcher."""
        model, examples, (size, shortest) = await self.executor.run(lambda: self._open(bundle))
        settings, metrics = self.settings, self.metrics
        answers = model.serving.distribution(model.output, list(bundle.golden()))
        metrics.predicting(model.serving.labels(model.output), model.lookup.views if model.lookup else (), answers)
        limits = BatchLimits(
            rows=settings.max_batch_rows,
            tokens=settings.max_batch_tokens,
            pending=settings.max_concurrency,
            wait=settings.batch_wait_ms / 1e3,
            # A look-up waits for others, which must not stop the loop.
            inline=0.0 if model.lookup or model.personal or model.rows.waits else settings.inline_ms / 1e3,
        )
        self.batcher = batcher = Batcher(model.score_all, self.executor, limits, metrics)
        metrics.queue_depth.set_function(lambda: batcher.depth)
        metrics.padded = model.rows.padded
        if model.rows.threads:
            self._preparer = Executor(model.rows.threads, self._crashed)
        learners = [one for one in (model.rows.learn, model.personal.learn if model.personal else None) if one]
        self.learn = (lambda labels: [learn(labels) for learn in learners][-1]) if learners else None
        self._model = model
        batcher.learn("by_features", size, shortest)
        return {"golden_examples": examples}

    def admit(self, batch: Batch, options: RequestOptions) -> None:
        """Let the rows of a request be answered; a modality refuses what its API key may not ask.

        Raises:
            Problem: 403.
        """

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

        def unless_over() -> T:
            if not waiting:
                raise TimeoutError
            return call()

        try:
            return await self._preparer.run(unless_over)
        finally:
            waiting.clear()
            self._preparing -= 1

    def engine_options(self, bundle: Bundle) -> dict[str, Any]:
        """What a modality tells its engines beside, see `contracts.engine.EngineOptions`."""
        return {}

    def open_personal(self, bundle: Bundle, engine: Engine) -> Personal | None:
        """What applies and teaches adapters of rows, see `services.adapters.personal.open_personal`."""
        return open_personal(self.settings, bundle, engine, self.name, self.metrics.registry)

    def _crashed(self, err: BaseException) -> None:
        failure = PlatformError(
            "the model's thread has ended",
            detail=type(err).__name__,
            fix="restart the service, which the liveness probe asks for",
            code="crashed",
        )
        self.refuse(failure)

    def _open(self, bundle: Bundle) -> tuple[Model, int, tuple[float, float]]:
        settings, signature = self.settings, bundle.document.signature
        get_serving(signature.problem)  # refused before anything is loaded
        lookup = self._open_lookup(bundle, settings) if self._open_lookup else None
        asked = {*signature.entities, *(item.name for item in (*signature.inputs, *signature.request))}
        layout = bundle.document.layout
        pii = {name: said for name, said in layout.get("pii", {}).items() if name in asked}  # others need no key here
        where, _, tagger = layout.get("tagger", "").partition("#") if pii else ("", "", "")
        clean = cleaners(pii, open_finder(f"{settings.tagger or where}#{tagger}") if where else None)
        open_finder(settings.tagger)  # refused before it is asked
        engine = load_engine(
            bundle,
            threads=settings.threads,
            device=settings.device,
            compiled=settings.compile,
            slots=settings.slots,
            window=settings.window,
            **self.engine_options(bundle),
        )
        personal = self.open_personal(bundle, engine)
        schemas = RequestSchemas.of(
            signature,
            max_chars=settings.max_text_chars,
            lookup=lookup is not None,
            clean=clean,
            whose=personal.entity if personal else "",
        )
        model = Model(bundle, engine, self._rows(engine, settings), schemas, lookup, self.metrics, personal)
        examples = replay(model)
        if settings.predictions.folder:
            about = {"model": self.name, "version": self.version, "digest": bundle.digest[:12]}
            normal, unknown = bundle.read_json(BASELINE), getattr(engine, "unknown_id", None)
            self.log = PredictionLog(
                settings.predictions, signature, about, self.metrics, normal, unknown, vector_of(engine)
            )
        return model, examples, warm(model)

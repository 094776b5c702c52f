"""The runtime of a chat model: llama.cpp in its process, who may ask it, and what is counted and logged of answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from pydantic import Field

from contracts.bundle import Bundle
from contracts.engine import Engine
from contracts.engines.llamacpp import SPEC, WEIGHTS, ChatSpec, LlamaEngine, base_of
from contracts.errors import PlatformError
from contracts.gguf import read_head
from contracts.guard_rules import watched
from contracts.llama_process import LlamaProcess
from contracts.model_memory import check_room, memory_limit
from contracts.problems.generation import Written
from contracts.remote_engine import RemoteEngine, served_name
from services.adapters.personal import check_place
from services.budgets import ANYBODY, Budgets, Reserved
from services.chat.adapter_sets import AdapterSets
from services.chat.adapters import USER, Adapters, Holder
from services.chat.admission import Admission
from services.chat.answers import Asked
from services.chat.embeddings import Encoder, open_encoder
from services.chat.guard import Guard, Watcher
from services.chat.remote import RemoteAdapters
from services.errors import Problem
from services.ledger import MemoryLedger, RedisLedger
from services.metrics.token_metrics import TokenMetrics
from services.model.columns import Column
from services.model.prediction_log import new_id
from services.model.request_schema import Batch
from services.model.rows import Rows
from services.model.runtime import RowRuntime
from services.model.scoring import Scored
from services.request_options import PRIORITIES, RequestOptions
from services.server.lifecycle import Modality
from services.server.requests import Request
from services.settings import ServiceSettings

_LOOK_SECONDS = 0.5  # how often the process is looked at while nobody asks


class ChatSettings(ServiceSettings):
    """Answers take longer than those of other models."""

    timeout_seconds: float = Field(300.0, gt=0, description="an answer that takes longer is refused with 504")


class ChatRows(Rows):
    """Prompts of ``/predict`` and ``/v2``, by the same rules: a row that is refused has an empty answer."""

    def __init__(self, engine: Engine, settings: ServiceSettings) -> None:
        super().__init__(engine, settings)
        self._guard = Guard(settings.guard)

    def predict(self, inputs: Mapping[str, Column], prepared: Sequence[Any], **beside: Any) -> Any:
        """The engine's answers to all rows."""
        guard = self._guard
        asked = {name: [guard.passed(text, guard.before) for text in texts] for name, texts in inputs.items()}
        given = {name: np.array([text or "" for text in texts], dtype=object) for name, texts in asked.items()}
        answers = self.engine.predict(given, **beside)
        told = [
            Written(text, tokens=getattr(answer, "tokens", 0))
            if None not in row and (text := guard.passed(answer, guard.after, answer=True))
            else ""
            for row, answer in zip(zip(*asked.values(), strict=True), answers, strict=True)
        ]
        found: Any = np.empty(len(told), dtype=object)
        found[:] = told
        return found


class ChatRuntime(RowRuntime):
    """One served chat model.

    Attributes:
        process: that llama.cpp runs in.  window: tokens of a conversation.  system: of those that bring none.
        tells: whether the model's chat template has a place for a system message, which tells of tools.
        admission: who may ask it.  encoder: of embeddings, where there are any.  encoding: who may ask that.
        adapters: that requests may name; None where there is no place for any.
        tokens: their metrics.  guard: the rules that texts are looked at by.
        budgets: of the keys; None where none is limited.
    """

    process: LlamaProcess | RemoteEngine
    admission: Admission
    encoding: Admission
    encoder: Encoder | None = None
    adapters: Adapters | None = None
    budgets: Budgets | None = None
    tokens: TokenMetrics
    guard: Guard
    window, system, tells = 0, "", False

    def __init__(self, modality: Modality) -> None:
        super().__init__(modality, rows=ChatRows)
        self._watch: asyncio.Task[None] | None = None
        self._away = False
        self._settling: set[asyncio.Task[None]] = set()

    async def open(self, bundle: Bundle) -> Mapping[str, Any]:
        """Load the engine and replay the golden examples, see `RowRuntime.open`."""
        said = await super().open(bundle)
        engine = self.model().engine
        if not isinstance(engine, LlamaEngine):
            detail = f"engine {bundle.document.engine} gives no streams of tokens"
            raise PlatformError("the chat service cannot serve this bundle", detail=detail, code="wrong_engine")
        self.process, self.window, self.system = engine.process, engine.window, engine.spec.system
        self.tells = await asyncio.to_thread(_has_system, engine.process)
        self.encoder = await asyncio.to_thread(
            open_encoder,
            self.settings.embeddings,
            self.name,
            bundle.model_path / WEIGHTS,
            engine.window,
            self.settings.threads,
        )
        self.adapters = await asyncio.to_thread(self._open_adapters, bundle, engine)
        waiting, ahead = self.settings.max_waiting_tokens, self.settings.adapters.ahead
        self.admission = admission = Admission(engine.slots, waiting, self.metrics, ahead)
        self.encoding = Admission(1, waiting, self.metrics)
        self.guard = Guard(self.settings.guard)
        told = self.settings.budgets
        if told.keys:
            ledger = RedisLedger(told.redis, f"fairlead:chat:{self.name}") if told.redis else MemoryLedger()
            self.budgets = Budgets(told.of, ledger, lambda reason: self.metrics.shed("rate_limited"))
        self.tokens = TokenMetrics(self.metrics, self.name, self.version, engine.slots, self.guard.names)
        self.tokens.busy.set_function(lambda: admission.busy)
        self.metrics.queue_depth.set_function(lambda: admission.waiting + self.batcher.depth)
        self._watch = asyncio.create_task(self._look())
        if self.adapters is not None:
            self.adapters.start()
        return {**said, "window": self.window, "slots": engine.slots}

    async def close(self) -> None:
        """Finish the rows, see `RowRuntime.close`, and end llama.cpp."""
        if self._watch is not None:
            self._watch.cancel()
        model = self._model
        await super().close()
        await asyncio.gather(*self._settling)
        if self.adapters is not None:
            await self.adapters.close()
        if self.encoder is not None:
            await asyncio.to_thread(self.encoder.close)
        if model is not None and isinstance(model.engine, LlamaEngine):
            await asyncio.to_thread(model.engine.process.stop)

    def ended(self) -> None:
        """Become not ready, and not alive, as llama.cpp has ended."""
        if self.failure is not None or self.state == "stopped":
            return
        self.refuse(
            PlatformError(
                "llama.cpp has ended",
                detail=self.process.last_words() if not self.process.running else "it closed a stream before its end",
                fix="restart the service, which the liveness probe asks for",
                code="crashed",
            )
        )

    def admit(self, batch: Batch, options: RequestOptions) -> None:
        """Refuse rows where keys have budgets, which are of tokens that rows do not count, see `RowRuntime.admit`."""
        if self.budgets is not None:
            detail = "the keys of this service have budgets of tokens, and rows would pass by them"
            raise Problem(403, "rows-not-counted", "rows are not answered here", detail, fix="ask /v1/chat/completions")

    def caller(self, request: Request) -> str:
        """Whose key asks, by its name; its request is at most as urgent as the key may be."""
        if self.budgets is None:
            return ANYBODY
        name = request.options.holder.name if request.options.holder else ANYBODY
        most = PRIORITIES[self.settings.budgets.of(name).priority]
        request.options.priority = max(request.options.priority, most)
        return name

    async def reserve(self, caller: str, tokens: int) -> Reserved | None:
        """Take about so many tokens of what a key may use.

        Raises:
            Problem: 429.
        """
        return await self.budgets.reserve(caller, tokens) if self.budgets is not None else None

    def settle(self, reserved: Reserved | None, tokens: int) -> None:
        """Count the tokens that were taken in place of those that were reserved."""
        if self.budgets is None or reserved is None:
            return
        task = asyncio.get_running_loop().create_task(self.budgets.settle(reserved, tokens))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    def record(self, asked: Asked, usage: Mapping[str, Any], arrived: float) -> None:
        """Count and log the answers to a request, without its texts."""
        model, metrics, tokens = self.model_or_none(), self.metrics, self.tokens
        tokens.read.inc(usage["prompt_tokens"])
        latency_ms = round((perf_counter() - arrived) * 1e3, 3)
        if asked.adapter is not None and self.adapters is not None:
            self.adapters.tokens.labels(self.name, asked.adapter.name).inc(usage["completion_tokens"])
            for choice in asked.choices:
                self.adapters.answers.labels(self.name, asked.adapter.name, choice.finish).inc()
        for at, choice in enumerate(asked.choices):
            tokens.ended[choice.finish if choice.finish in tokens.ended else "failed"].inc()
            said = choice.watcher.hits if choice.watcher else []
            for name in said:
                tokens.guarded["after", name].inc()
                self.guard.decided("after", name, choice.finish)
            if model is None or choice.finish in ("cancelled", "failed"):
                continue
            text = Written(choice.text, tokens=choice.tokens)
            answers = np.array([text], dtype=object)
            model.serving.count(answers, [text], metrics.labels, metrics.observed)
            if self.log is None:
                continue
            flags = [f"guard:{name}" for name in dict.fromkeys((*asked.hits, *said))]
            columns = {model.bundle.document.signature.inputs[0].name: np.array([asked.prompt], dtype=object)}
            batch = Batch(schema="by_features", rows=1, columns=columns, flags=[flags])
            scored = Scored(inputs=columns, answers=answers, decided=[text], reasons=[])
            more = {name: usage[name] for name in ("prompt_tokens", "completion_tokens")} | {"finish": choice.finish}
            if not self.guard.partly:  # else what is found is less than the reference has
                more["guard"] = watched((*asked.hits, *said))
            if asked.adapter is not None:
                more["adapter"] = asked.adapter.name
            identifier = new_id() if at else asked.form.identifier
            self.log.add(identifier, 0, batch, scored, latency_ms, more)

    def open_personal(self, bundle: Bundle, engine: Engine) -> None:
        """None: rows are answered by the base; adapters are chosen by requests for chats."""

    def _open_adapters(self, bundle: Bundle, engine: LlamaEngine) -> Adapters | None:
        given = self.settings.adapters
        if not given.folder:
            return None
        check_place(self.settings)
        if given.entity not in ("", USER):
            raise PlatformError(
                "adapters cannot be kept as the settings say",
                detail=f"adapters.entity is {given.entity}, which requests for chats have not",
                fix=f"leave it empty, or set it to {USER}",
                code="bad_settings",
                key="adapters.entity",
            )
        holder = self._holder(engine, given.loaded)
        head = read_head(bundle.model_path / WEIGHTS)
        made = Adapters(self.settings, self.name, base_of(bundle), head, self.metrics, holder)
        if isinstance(holder, AdapterSets):
            holder.others = made.published
        return made

    def _holder(self, engine: LlamaEngine, most: int) -> Holder:
        told, process = self.settings.engine, engine.process
        if isinstance(process, LlamaProcess):
            return AdapterSets(engine.options, most)
        if not told.adapters or engine.spec.adapter:
            raise PlatformError(
                "adapters cannot be brought to the engine",
                detail="the weights that it reads have an adapter in them"
                if engine.spec.adapter
                else "engine.adapters is empty",
                fix="serve the base, tuned by nothing"
                if engine.spec.adapter
                else "set engine.adapters to a folder that both containers have",
                code="bad_settings",
                key="engine.adapters",
            )
        return RemoteAdapters(process, told.adapters, most)

    def engine_options(self, bundle: Bundle) -> dict[str, Any]:
        """Where vLLM is, if it writes the answers; else the memory is there."""
        told = self.settings.engine
        if not told.url and not self.settings.memory_check:
            return {}
        if not told.url:
            spec = ChatSpec.model_validate_json((bundle.model_path / SPEC).read_bytes())
            check_room(
                self.name,
                read_head(bundle.model_path / WEIGHTS),
                memory_limit(),
                window=self.settings.window or spec.window,
                slots=self.settings.slots,
                caches=3 if self.settings.adapters.folder else 1,
            )
            return {}
        try:
            key = Path(told.key_file).read_text(encoding="utf-8").strip() if told.key_file else ""
        except OSError as err:
            raise PlatformError(
                "the key of the engine cannot be read",
                detail=f"{told.key_file}: {err.strerror}",
                fix="correct engine.key_file",
                code="bad_settings",
                key="engine.key_file",
            ) from err
        served = told.model or served_name(self.name, bundle.digest)
        return {"url": told.url, "served": served, "key": key, "wait": told.wait_seconds}

    @property
    def ready(self) -> bool:
        """Whether this server should get new requests: not while vLLM is away, which others start again."""
        return super().ready and not self._away

    def watcher(self) -> Watcher | None:
        """Looks at one answer; None where no rule does."""
        return Watcher(self.guard) if self.guard.after or self.guard.judges_answers else None

    def model_or_none(self) -> Any:
        """The model, also of a service that just became not ready."""
        return self._model

    async def _look(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            if isinstance(self.process, RemoteEngine):
                while True:
                    self._away = not await asyncio.to_thread(getattr, self.process, "running")
                    await asyncio.sleep(_LOOK_SECONDS)
            while self.process.running:
                await asyncio.sleep(_LOOK_SECONDS)
            self.ended()


def _has_system(process: LlamaProcess | RemoteEngine) -> bool:
    """Whether the chat template says what a system message has; some leave it out, and some raise."""
    mark = "what-the-system-says"
    messages = [{"role": "system", "content": mark}, {"role": "user", "content": "hello"}]
    try:
        return mark in process.templated(messages)
    except PlatformError as err:
        if err.code != "llama_refused":
            raise
        return False

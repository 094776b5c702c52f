"""``/v1``: chat completions, completions and models, as OpenAI's clients ask for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import orjson

from contracts.errors import PlatformError
from contracts.guard_rules import find
from services.adapters.cache import MISSING, OTHER_BASE, UNAVAILABLE, UNREADABLE
from services.chat.adapters import PERSONAL, Chosen
from services.chat.answers import Asked, Choice, CompletionForm, Form
from services.chat.embeddings import embedded
from services.chat.errors import away, gone, no_adapter
from services.chat.generation import Generation
from services.chat.remote import remote_metrics
from services.chat.request import (
    MAX_PROMPTS,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    Sampling,
    parsed,
    refused,
)
from services.chat.tools import MAX_CALLS, CallParser, engine_messages, free_choice, grammar, instructions, offered
from services.errors import Problem, openai_body
from services.model.prediction_log import new_id
from services.server.lifecycle import Api
from services.server.openapi import operation, schema
from services.server.requests import Answer, Request, Route
from services.server.streams import unless_gone

if TYPE_CHECKING:
    from services.chat.runtime import ChatRuntime

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
_PAGE = Path(__file__).with_name("page.html")
_PAGE_HEADERS = (
    (
        "content-security-policy",
        "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'",
    ),
    ("x-content-type-options", "nosniff"),
)
_STREAM = (("cache-control", "no-store"),)
_BYTES_PER_TOKEN = 3  # about, in any language: what a request is estimated by


def chat_routes(runtime: ChatRuntime) -> list[Route]:
    """All routes; what they refuse is in OpenAI's form."""
    served = _Served(runtime)
    made = [
        (CHAT, "POST", served.chat),
        (COMPLETIONS, "POST", served.complete),
        (EMBEDDINGS, "POST", served.embed),
        ("/v1/models", "GET", served.models),
        ("/v1/models/{model}", "GET", served.model),
    ]
    routes = [Route(path, {method: handler}, refusal=openai_body) for path, method, handler in made]
    routes.append(Route("/engine/metrics", {"GET": served.metrics}, open=True))
    return [*routes, Route("/chat", {"GET": _page}, open=True)]


async def _page(request: Request) -> Answer:
    """A page that chats; it has nothing of the model, so that it needs no key itself."""
    return Answer(_PAGE.read_bytes(), media="text/html; charset=utf-8", headers=_PAGE_HEADERS)


class _Served:
    def __init__(self, runtime: ChatRuntime) -> None:
        self._runtime, self._since = runtime, int(time.time())

    async def chat(self, request: Request) -> Answer:
        """Answer a conversation."""
        runtime = self._runtime
        runtime.opened()
        asked = parsed(ChatRequest, await request.json())
        adapter = await self._check(asked)
        tools, free = offered(asked, runtime.tells), free_choice(asked)
        told = instructions(tools, text=free) if tools else ""
        messages = engine_messages(asked.messages, told, runtime.system)
        texts, hits = self._guarded([one["content"] for one in messages], [one["role"] for one in messages])
        messages = [{**one, "content": text} for one, text in zip(messages, texts, strict=True)]
        body = {**self._body(asked), "messages": messages, "logprobs": bool(asked.logprobs)}
        if asked.logprobs:
            body["top_logprobs"] = asked.top_logprobs or 0
        if tools:
            calls = MAX_CALLS if asked.parallel_tool_calls else 1
            body["grammar"] = grammar(tools, text=free, calls=calls)
        elif asked.response_format is not None:
            body["response_format"] = asked.response_format.model_dump(by_alias=True, exclude_none=True)
        self._check_logprobs(bool(asked.logprobs))
        choices = [
            Choice(calls=CallParser() if tools else None, called=bool(tools) and not free, watcher=runtime.watcher())
            for _ in range(asked.choices)
        ]
        last = next(message.text for message in reversed(asked.messages) if message.role in ("user", "tool"))
        return await self._answer(request, asked, body, CHAT, Form, choices, (last, hits), adapter)

    async def complete(self, request: Request) -> Answer:
        """Continue a text."""
        self._runtime.opened()
        asked = parsed(CompletionRequest, await request.json())
        adapter = await self._check(asked)
        texts, hits = self._guarded(asked.texts)
        self._check_logprobs(asked.logprobs is not None)
        if len(texts) * asked.choices > MAX_PROMPTS:
            raise refused("n", f"at most {MAX_PROMPTS} answers to all prompts together are accepted")
        body = {**self._body(asked), "prompt": texts if len(texts) > 1 else texts[0]}
        if asked.logprobs is not None:
            body["logprobs"] = max(1, asked.logprobs)
        choices = [
            Choice(watcher=self._runtime.watcher(), prompt=text if asked.echo else "")
            for text in texts
            for _ in range(asked.choices)
        ]
        said = "\n".join(asked.texts)
        return await self._answer(request, asked, body, COMPLETIONS, CompletionForm, choices, (said, hits), adapter)

    async def embed(self, request: Request) -> Answer:
        """Give a vector for each text."""
        runtime = self._runtime
        runtime.opened()
        asked, encoder = parsed(EmbeddingRequest, await request.json()), runtime.encoder
        if encoder is None:
            fix = "set embeddings.source"
            raise Problem(404, "not_supported", "this service gives no embeddings", fix=fix)
        if asked.model != encoder.name:
            raise _unknown(encoder.name)
        texts, _ = self._guarded(asked.texts)
        size = sum(map(len, texts)) // _BYTES_PER_TOKEN
        reserved, tokens = await runtime.reserve(runtime.caller(request), size), 0
        try:
            await runtime.encoding.enter(1, size, request.options.priority)
            start = perf_counter()
            try:
                body, tokens = await embedded(encoder, asked, texts)
            except PlatformError as err:
                runtime.ended()
                raise gone() from err
            finally:
                runtime.encoding.leave(1, tokens, perf_counter() - start)
        finally:
            runtime.settle(reserved, tokens)
        runtime.tokens.read.inc(tokens)
        return Answer(body)

    async def metrics(self, request: Request) -> Answer:
        """The metrics of vLLM, where it writes the answers: its port is open to this pod only."""
        self._runtime.opened()
        try:
            found = await asyncio.to_thread(remote_metrics, self._runtime.process)
        except PlatformError as err:
            raise away() from err
        return Answer(found, media="text/plain; version=0.0.4")

    async def models(self, request: Request) -> Answer:
        """The model that is served, its adapters, and its encoder."""
        self._runtime.opened()
        data = [self._described(name) for name in await self._names()]
        return Answer(orjson.dumps({"object": "list", "data": data}))

    async def model(self, request: Request) -> Answer:
        """It by its name."""
        self._runtime.opened()
        name, names = request.params["model"], await self._names()
        if name not in names:
            raise _unknown(*names)
        return Answer(orjson.dumps(self._described(name)))

    async def _names(self) -> list[str]:
        runtime = self._runtime
        adapters = await runtime.adapters.names() if runtime.adapters else []
        encoder = [runtime.encoder.name] if runtime.encoder else []
        return list(dict.fromkeys([runtime.name, *adapters, *encoder]))

    def _described(self, name: str) -> dict[str, Any]:
        parent = {"parent": self._runtime.name} if name.startswith(f"{self._runtime.name}:") else {}
        return {"id": name, "object": "model", "created": self._since, "owned_by": "fairlead", **parent}

    async def _check(self, asked: Sampling) -> Chosen | None:
        """Refuse what cannot be answered; returns the adapter that answers."""
        runtime = self._runtime
        adapter = await self._adapter(asked)
        if asked.choices > runtime.admission.slots:
            raise refused("n", f"this service writes {runtime.admission.slots} answers at a time")
        if asked.limit is not None and asked.limit > runtime.window:
            raise refused("max_tokens", f"the window of this model has {runtime.window} tokens")
        return adapter

    def _guarded(self, texts: Sequence[str], roles: Sequence[str] = ()) -> tuple[list[str], tuple[str, ...]]:
        """What the model reads of these texts, and which rules held in them; the classifier judges those of users.

        Raises:
            Problem: 400 where one holds that refuses.
        """
        guard, tokens = self._runtime.guard, self._runtime.tokens
        read, hits = [], []
        for text, role in zip(texts, roles or ["user"] * len(texts), strict=True):
            judged = guard.judged(text) if role == "user" else []
            for one in judged:
                hits.append(one.name)
                guard.decided("before", one.name, "refuse" if one.refuse else "note")
            if judged and judged[0].refuse:
                tokens.guarded["before", judged[0].name].inc()
                title = "the request has what this service does not take"
                raise Problem(400, "content_filter", title, f"rule {judged[0].name}")
            found = find(text, guard.before)
            for each in found:
                guard.decided("before", each.rule.name, guard.action(each.rule))
            hits += [one.rule.name for one in found]
            read.append(guard.masked(text, found))
            if bad := next((one.rule for one in found if guard.refuses(one.rule)), None):
                tokens.guarded["before", bad.name].inc()
                title = "the request has what this service does not take"
                raise Problem(400, "content_filter", title, f"rule {bad.name} of {bad.group}")
        for name in hits:
            tokens.guarded["before", name].inc()
        return read, tuple(hits)

    def _check_logprobs(self, asked: bool) -> None:
        if asked and self._runtime.guard.masks:
            raise refused("logprobs", "this service masks what it answers, and gives no probabilities of it")

    async def _adapter(self, asked: Sampling) -> Chosen | None:
        """The adapter that a request names, or that its user has; None: the base answers.

        Raises:
            Problem: 404, or 503 while it is not known whether there is such an adapter.
        """
        runtime, adapters = self._runtime, self._runtime.adapters
        if asked.model == runtime.name:
            return await adapters.of_user(asked.user) if adapters and adapters.personal and asked.user else None
        found = await adapters.named(asked.model) if adapters else MISSING
        if isinstance(found, Chosen):
            return found
        if found == UNAVAILABLE:
            raise no_adapter()
        if found in (OTHER_BASE, UNREADABLE):
            why = "is over other weights than this model's" if found == OTHER_BASE else "does not fit this model"
            raise Problem(
                404, "model_not_found", "unknown model", errors=[("model", f"the adapter of this name {why}")]
            )
        raise _unknown(runtime.name, *(await adapters.names() if adapters else ()))

    def _body(self, asked: Sampling) -> dict[str, Any]:
        """What both kinds of requests ask of llama.cpp; what they leave out is its default."""
        given = {
            "temperature": asked.temperature,
            "top_p": asked.top_p,
            "presence_penalty": asked.presence_penalty,
            "frequency_penalty": asked.frequency_penalty,
            "max_tokens": asked.limit,
            "stop": [asked.stop] if isinstance(asked.stop, str) else asked.stop,
            "logit_bias": asked.logit_bias,
            "seed": None if asked.seed is None else asked.seed % (2**32 - 1),  # the largest one means any
        }
        kept = {name: value for name, value in given.items() if value is not None}
        return {**kept, "n": asked.choices, "stream": True, "stream_options": {"include_usage": True}}

    async def _answer(
        self,
        request: Request,
        asked: Sampling,
        body: dict[str, Any],
        path: str,
        form: type[Form],
        choices: list[Choice],
        said: tuple[str, tuple[str, ...]],
        adapter: Chosen | None,
    ) -> Answer:
        runtime = self._runtime
        name = f"{runtime.name}:{adapter.name}" if adapter and adapter.name != PERSONAL else runtime.name
        usage = bool(asked.stream and asked.stream_options and asked.stream_options.include_usage)
        read = len(orjson.dumps(body.get("messages", body.get("prompt")))) // _BYTES_PER_TOKEN
        longest = min(asked.limit or runtime.window, runtime.window)
        work = Generation(
            runtime,
            Asked(
                path=path,
                body=body,
                form=form(new_id(), name, runtime.version, usage),
                choices=choices,
                prompt=said[0],
                hits=said[1],
                each=asked.choices,
                tokens=read + longest * len(choices),
                usage=usage,
                read=read,
                reserved=read + (asked.limit or 0) * len(choices),
                caller=runtime.caller(request),
                adapter=adapter,
            ),
            request.options,
        )
        if asked.stream:
            await unless_gone(request.receive, work.begin())
            return Answer(work.lines(), media="text/event-stream", headers=_STREAM)
        return Answer(orjson.dumps(await unless_gone(request.receive, _whole(work))))


def _unknown(*names: str) -> Problem:
    message = f"there is no model of this name here; there is {' and '.join(map(repr, names))}"
    return Problem(404, "model_not_found", "unknown model", errors=[("model", message)])


async def _whole(work: Generation) -> dict[str, Any]:
    await work.begin()
    return await work.whole()


def _paths(runtime: ChatRuntime) -> dict[str, Any]:
    whole: dict[str, Any] = {"type": "object", "description": "as OpenAI documents it; a stream with stream: true"}
    ask = {
        name: {"$ref": f"#/components/schemas/{name}"}
        for name in ("ChatRequest", "CompletionRequest", "EmbeddingRequest")
    }
    return {
        CHAT: {"post": operation("Answer a conversation", "chat", whole, ask["ChatRequest"])},
        COMPLETIONS: {"post": operation("Continue a text", "complete", whole, ask["CompletionRequest"])},
        EMBEDDINGS: {"post": operation("Vectors of texts", "embed", {"type": "object"}, ask["EmbeddingRequest"])},
        "/v1/models": {"get": operation("The model", "models", {"type": "object"})},
    }


OPENAI = Api(
    routes=chat_routes,
    busy=(CHAT, COMPLETIONS),
    paths=_paths,
    schemas=lambda runtime: (
        schema("ChatRequest", ChatRequest)
        | schema("CompletionRequest", CompletionRequest)
        | schema("EmbeddingRequest", EmbeddingRequest)
    ),
)

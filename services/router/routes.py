"""The paths of the router: OpenAI's three that are passed on, the list of models, and what was used."""

from __future__ import annotations

import re
from typing import Any

import orjson

from services.budgets import ANYBODY
from services.errors import Problem, openai_body
from services.ledger import day
from services.request_options import PRIORITIES
from services.router.backends import RefusedError
from services.router.passage import Passage
from services.router.policy import allowed, is_personal
from services.router.runtime import RouterRuntime
from services.server.http import App
from services.server.requests import Answer, Request, Route
from services.server.streams import ClosedWith, unless_gone

_PATHS = ("/chat/completions", "/completions", "/embeddings")
_MOST_TOKENS = 1 << 32  # of one answer; ledgers count in 64 bits
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_STREAM = (("cache-control", "no-store"),)


def router_app(runtime: RouterRuntime) -> App:
    """The ASGI application."""
    served = _Served(runtime)
    routes = [Route(f"/v1{path}", {"POST": served.passing(path)}, refusal=openai_body) for path in _PATHS]
    routes += [
        Route("/v1/models", {"GET": served.models}, refusal=openai_body),
        Route("/v1/models/{model}", {"GET": served.model}, refusal=openai_body),
        Route("/usage", {"GET": served.usage}),
        Route("/metrics", {"GET": served.metrics}, open=True),
        Route("/readyz", {"GET": served.ready}, open=True),
        Route("/livez", {"GET": served.alive}, open=True),
    ]
    return App(runtime, routes)


class _Served:
    def __init__(self, runtime: RouterRuntime) -> None:
        self._runtime = runtime

    def passing(self, path: str) -> Any:
        """The handler of a path."""

        async def handle(request: Request) -> Answer:
            return await self._pass(request, path)

        return handle

    async def models(self, request: Request) -> Answer:
        """All names that there are."""
        data = [_described(name) for name in self._runtime.settings.routes]
        return Answer(orjson.dumps({"object": "list", "data": data}))

    async def model(self, request: Request) -> Answer:
        """One of them."""
        name = request.params["model"]
        if name not in self._runtime.settings.routes:
            raise self._unknown()
        return Answer(orjson.dumps(_described(name)))

    async def usage(self, request: Request) -> Answer:
        """``/usage?day=2026-05-17``, or today: of one's own key; of all for an operator, and where there are none."""
        when = request.scope.get("query_string", b"").decode("latin-1").removeprefix("day=") or day()
        if not _DAY.fullmatch(when):
            raise Problem(400, "bad-day", "a day is written as 2026-05-17", fix="ask for /usage?day=2026-05-17")
        holder = request.options.holder
        own = None if holder is None or holder.operator else {holder.name}
        found = await self._runtime.usage(when, own)
        return Answer(orjson.dumps({"day": when, "usage": found}))

    async def metrics(self, request: Request) -> Answer:
        """For Prometheus."""
        body, media = self._runtime.metrics.render(request.header(b"accept"))
        return Answer(body, media=media)

    async def ready(self, request: Request) -> Answer:
        """Whether it takes requests."""
        if not self._runtime.ready:
            raise self._runtime.not_ready()
        return Answer(b"", media="text/plain")

    async def alive(self, request: Request) -> Answer:
        """Always, when it answers."""
        return Answer(b"", media="text/plain")

    async def _pass(self, request: Request, path: str) -> Answer:
        runtime, document = self._runtime, await request.json()
        if not isinstance(document, dict) or not isinstance(name := document.get("model"), str):
            raise Problem(400, "invalid_value", "the request is not valid", errors=[("model", "has to be a text")])
        if name not in runtime.settings.routes:
            raise self._unknown()
        holder = request.options.holder
        caller = holder.name if holder else ANYBODY
        personal = is_personal(document)
        route = runtime.settings.routes[name]
        passage = Passage(runtime, caller, name, route, path, document, personal=personal)
        order = allowed(route, personal, runtime.servers.order(route.targets, route.fallback))
        if not order:
            runtime.denied("policy")
            detail = "it has personal data or secrets, and all backends are outside"
            raise Problem(403, "stays_inside", "this request may not leave the house", detail)
        key = runtime.cache.key(route, caller, path, document, personal=personal)
        if key is not None:
            found = runtime.cache.get(key)
            runtime.counts.cached.labels(name, "hit" if found else "miss").inc()
            if found:
                runtime.again(caller, name)
                return Answer(found.body, media=found.media, headers=(*_STREAM, ("x-fairlead-cache", "hit")))
        passage.cache_key = key
        await runtime.charge(passage, _estimate(document))
        level, priority = self._priority(request, caller)
        try:
            await unless_gone(request.receive, passage.open(order, priority, level))
        except RefusedError as err:
            passage.close("refused")
            return Answer(err.body, err.status)
        except BaseException:
            passage.close("cancelled")
            raise
        assert passage.server is not None
        headers = (*_STREAM, ("x-fairlead-backend", passage.server.name))
        if document.get("stream"):
            return Answer(ClosedWith(passage.events(), passage), media="text/event-stream", headers=headers)
        return Answer(await passage.whole(), headers=headers)

    def _priority(self, request: Request, caller: str) -> tuple[float, str]:
        """What the client asks for, at most what its key may, as a number and as the header's word."""
        most = PRIORITIES[self._runtime.settings.budget(caller).priority]
        level = max(request.options.priority, most)
        return level, next(word for word, value in PRIORITIES.items() if value == level)

    def _unknown(self) -> Problem:
        names = ", ".join(self._runtime.settings.routes)
        return Problem(404, "model_not_found", "unknown model", errors=[("model", f"there are: {names}")])


def _described(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "fairlead"}


def _estimate(document: dict[str, Any]) -> int:
    """Tokens that a request will take, about: what it says, and what it may be answered with."""
    said = len(orjson.dumps([document.get(name) for name in ("messages", "prompt", "input", "tools")])) // 3
    longest = document.get("max_completion_tokens") or document.get("max_tokens") or 0
    many = document.get("n") or 1
    if not isinstance(longest, int) or not isinstance(many, int):
        return said  # the backend will refuse it
    return said + min(max(longest, 0) * max(many, 0), _MOST_TOKENS)  # below zero it would be a gift

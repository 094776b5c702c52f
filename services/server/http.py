"""A lean ASGI layer: routes by template, bodies with a limit, every failure as a problem, every answer counted.

It is mounted in the BentoML service, which keeps packaging, hooks and health. A typed BentoML endpoint costs 0.10 ms
more per request, ignores unknown fields, and logs input values with a traceback for each bad request.
"""

from __future__ import annotations

import asyncio
import logging
import math
from codecs import BOM_UTF8
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from time import perf_counter, time
from typing import TYPE_CHECKING, Any

import orjson

from contracts.errors import PlatformError
from contracts.metric_names import UNMATCHED_ROUTE
from services.batching.terms import PRIORITIES, Terms
from services.errors import MEDIA_TYPE, Problem, deadline_exceeded, unavailable
from services.logs import NAME
from services.server.content_coding import TooLargeError, codings_of, packed_limit, unpack
from services.server.cors import is_preflight

if TYPE_CHECKING:
    from services.server.lifecycle import Runtime
    from services.settings import ServiceSettings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
DEFAULT_BODY_LIMIT = 8 << 20
_TICK_SECONDS = 0.02
DEADLINE_HEADERS = (b"x-request-timeout-ms", b"x-request-deadline")
logger = logging.getLogger(NAME)


class DisconnectedError(Exception):
    """The client went away before its request was complete."""


@dataclass(slots=True)
class Answer:
    """An HTTP response."""

    body: bytes
    status: int = 200
    media: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


class Request:
    """An HTTP request; the body is read on demand.

    Attributes:
        headers: by name in lower case.
        params: values of the route's template.
        terms: deadline and priority that the client asks for.
        reading: whether the body is being waited for.
    """

    __slots__ = ("body_limit", "headers", "params", "reading", "receive", "scope", "terms")

    def __init__(self, scope: Scope, receive: Receive, params: Mapping[str, str], body_limit: int) -> None:
        self.scope, self.receive, self.params, self.body_limit = scope, receive, params, body_limit
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.terms, self.reading = Terms(), False

    def header(self, name: bytes) -> str:
        """A header's value, empty without one; `name` in lower case."""
        return self.headers.get(name, b"").decode("latin-1")

    @property
    def media(self) -> str:
        """The media type of the body, without parameters."""
        return self.header(b"content-type").partition(";")[0].strip().lower()

    async def json(self, *, untyped: bool = False) -> Any:
        """The body as JSON; with `untyped` also without a content type, as Triton's client sends it.

        Raises:
            Problem: 415, 413 or 400.
        """
        media = self.media
        if media != "application/json" and not media.endswith("+json") and (media or not untyped):
            raise Problem(
                415, "not-json", "the request must be JSON", fix="send the header content-type: application/json"
            )
        return parse_json(await self.body())

    async def body(self) -> bytes:
        """All bytes of the body, unpacked when it says that it is packed.

        Raises:
            Problem: 413; and of a packed body 415 and 400, see `content_coding`.
        """
        if b"content-encoding" in self.headers:
            return await self._unpacked()
        self.reading = True
        body = await self._body(self.body_limit)
        self.reading = False
        return body

    async def _unpacked(self) -> bytes:
        codings = codings_of(value for name, value in self.scope["headers"] if name == b"content-encoding")
        self.reading = True
        body = await self._body(packed_limit(self.body_limit) if codings else self.body_limit)
        self.reading = False
        try:
            return await unpack(body, codings, self.body_limit)
        except TooLargeError:
            raise self._too_large() from None

    async def _body(self, limit: int) -> bytes:
        length = self.headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > limit:
            raise self._too_large()
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise DisconnectedError
            body = message.get("body", b"")
            size += len(body)
            if size > limit:
                raise self._too_large()
            if not message.get("more_body", False):
                return body if not chunks else b"".join([*chunks, body])
            chunks.append(body)

    def _too_large(self) -> Problem:
        limit = f"at most {self.body_limit} bytes are accepted"
        return Problem(413, "body-too-large", "the request is too large", limit, headers={"connection": "close"})


def parse_json(body: bytes | memoryview) -> Any:
    """The document; a byte order mark before it is passed over.

    Raises:
        Problem: 400, with the place; also for more than 1,024 levels.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as err:
        found = err
    if body[:3] == BOM_UTF8:
        try:
            return orjson.loads(body[3:])
        except orjson.JSONDecodeError as err:
            found = err
    detail = f"{found.msg} at line {found.lineno}, column {found.colno}"
    raise Problem(400, "malformed-json", "the request is not valid JSON", detail)


def terms_of(headers: Mapping[bytes, bytes], timeout: float) -> Terms:
    """The deadline, at most `timeout` seconds from now, and the priority that a client asks for.

    ``x-request-timeout-ms`` is relative, ``x-request-deadline`` in seconds since 1970, ``x-request-priority`` a word.

    Raises:
        Problem: 400, naming the header.
    """
    now = perf_counter()
    left, level = timeout, 0.0
    if (text := headers.get(b"x-request-timeout-ms")) is not None:
        left = min(left, _number(text, "x-request-timeout-ms", "milliseconds") / 1e3)
    if (text := headers.get(b"x-request-deadline")) is not None:
        left = min(left, _number(text, "x-request-deadline", "seconds since 1970") - time())
    if (text := headers.get(b"x-request-priority")) is not None:
        word = text.decode("latin-1").strip().lower()
        if word not in PRIORITIES:
            raise _bad_header("x-request-priority", f"expected one of: {', '.join(PRIORITIES)}")
        level = PRIORITIES[word]
    return Terms(deadline=now + left, priority=level)


def _number(text: bytes, name: str, unit: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise _bad_header(name, f"expected a number of {unit}")
    return number


def _bad_header(name: str, message: str) -> Problem:
    return Problem(400, "bad-header", "a header of the request is wrong", errors=[(name, message)])


Handler = Callable[[Request], Awaitable[Answer]]


@dataclass(frozen=True)
class Route:
    """One path, in which ``{name}`` stands for one segment; an `open` one needs no API key."""

    template: str
    methods: Mapping[str, Handler]
    open: bool = False


class Router:
    """Finds routes: fixed paths by one look-up, templates by number of segments."""

    def __init__(self, routes: list[Route]) -> None:
        self._fixed = {route.template: route for route in routes if "{" not in route.template}
        self._templates = [(route.template.split("/"), route) for route in routes if "{" in route.template]

    def find(self, path: str) -> tuple[Route | None, dict[str, str]]:
        """The route of `path`, with or without a slash at its end, and its parameters."""
        if route := self._fixed.get(path):
            return route, {}
        path = path.removesuffix("/")
        if route := self._fixed.get(path):
            return route, {}
        parts = path.split("/")
        for template, route in self._templates:
            if len(template) == len(parts) and all(
                want == got or (want[:1] == "{" and got) for want, got in zip(template, parts, strict=True)
            ):
                return route, {want[1:-1]: got for want, got in zip(template, parts, strict=True) if want[:1] == "{"}
        return None, {}


class App:
    """The ASGI application."""

    def __init__(self, runtime: Runtime, routes: list[Route]) -> None:
        self._runtime, self._router = runtime, Router(routes)
        self._clocks: set[_Clock] = set()
        self._ticking = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request; other kinds of connections are refused."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1003})
            return
        start = perf_counter()
        route, params = self._router.find(scope["path"])
        template = UNMATCHED_ROUTE if route is None else route.template
        runtime = self._runtime
        runtime.inflight += 1
        try:
            answer = await self._answer(route, params, scope, receive)
            if runtime.cors is not None:
                answer.headers += runtime.cors.headers(dict(scope["headers"]))
            await _send(answer, scope["method"], send, last=runtime.state == "draining")
            runtime.metrics.answered(template, answer.status, perf_counter() - start)
        except DisconnectedError:
            runtime.metrics.answered(template, 499, perf_counter() - start)
        finally:
            runtime.inflight -= 1

    async def _answer(self, route: Route | None, params: dict[str, str], scope: Scope, receive: Receive) -> Answer:
        runtime = self._runtime
        settings: ServiceSettings | None = getattr(runtime, "settings", None)
        timeout, limit = (settings.timeout_seconds, settings.max_body_bytes) if settings else (None, DEFAULT_BODY_LIMIT)
        request = Request(scope, receive, params, limit)
        clock: _Clock | None = None
        try:
            if runtime.cors is not None and route is not None and is_preflight(scope["method"], request.headers):
                methods = ", ".join(route.methods)
                return Answer(b"", 204, headers=runtime.cors.preflight(request.headers, methods))
            if runtime.keys is not None and (route is None or not route.open):
                runtime.authorise(request.headers)
            handler = _handler(route, scope["method"])
            if timeout is None:
                return await handler(request)
            request.terms = terms_of(request.headers, timeout)
            clock = self._watch(request.terms.deadline)
            return await handler(request)
        except Problem as err:
            problem = err
        except TimeoutError:
            problem = _too_slow(request, timeout)
        except asyncio.CancelledError:
            if clock is None or not clock.expired or clock.task.uncancel() > 0:
                raise
            problem = _too_slow(request, timeout)
        except PlatformError as err:
            logger.error("request_failed", extra={"fields": {"code": err.code, "headline": err.headline}})
            problem = unavailable(err)
        except DisconnectedError:
            raise
        except Exception:
            logger.exception("request_failed")
            problem = Problem(500, "internal-error", "the service failed to answer", "see its log")
        finally:
            if clock is not None:
                self._clocks.discard(clock)
        body = problem.body(oip=scope["path"].startswith("/v2"))
        return Answer(body, problem.status, MEDIA_TYPE, tuple(problem.headers.items()))

    def _watch(self, deadline: float) -> _Clock:
        task = asyncio.current_task()
        assert task is not None
        clock = _Clock(task, deadline)
        self._clocks.add(clock)
        if not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_later(_TICK_SECONDS, self._tick)
        return clock

    def _tick(self) -> None:
        """Cancel what is too late: one timer for all requests, a timer for each costs 10 us of a request."""
        now = perf_counter()
        for clock in [one for one in self._clocks if one.deadline <= now and not one.expired]:
            clock.expired = True
            clock.task.cancel()
        self._ticking = bool(self._clocks)
        if self._ticking:
            asyncio.get_running_loop().call_later(_TICK_SECONDS, self._tick)


class _Clock:
    """When a request's time is over, and the task that is cancelled then."""

    __slots__ = ("deadline", "expired", "task")

    def __init__(self, task: asyncio.Task[Any], deadline: float) -> None:
        self.task, self.deadline, self.expired = task, deadline, False


def _too_slow(request: Request, timeout: float | None) -> Problem:
    if request.reading:
        title = "the request's body did not arrive in time"
        return Problem(408, "slow-body", title, f"it was waited for {timeout:g} s", headers={"connection": "close"})
    if timeout is not None and any(name in request.headers for name in DEADLINE_HEADERS):
        return deadline_exceeded()
    return Problem(504, "timeout", "the request took too long", f"more than {timeout:g} s", fix="send fewer rows")


def _handler(route: Route | None, method: str) -> Handler:
    if route is None:
        raise Problem(404, "not-found", "no such path", fix="see /docs for what there is")
    handler = route.methods.get("GET" if method == "HEAD" else method)
    if handler is None:
        allowed = ", ".join(route.methods)
        raise Problem(405, "method-not-allowed", f"this path accepts {allowed}", headers={"allow": allowed})
    return handler


async def _send(answer: Answer, method: str, send: Send, *, last: bool = False) -> None:
    headers = [
        (b"content-type", answer.media.encode()),
        (b"content-length", b"%d" % len(answer.body)),
    ]
    if answer.status == 204:  # has no body, and must not say how long it is
        headers.clear()
    if answer.headers:
        headers += [(name.encode(), value.encode("latin-1")) for name, value in answer.headers]
    if last:  # the port is about to close: the client's next request should open a connection elsewhere
        headers.append((b"connection", b"close"))
    whole = getattr(getattr(send, "__self__", None), "send_whole", None)
    if whole is not None and whole(answer.status, headers, answer.body):
        return
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else answer.body})

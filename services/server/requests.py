"""HTTP messages and routes: requests with a limit on their body, answers in one piece or as a stream."""

from __future__ import annotations

import math
from codecs import BOM_UTF8
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from time import perf_counter, time
from typing import Any

import orjson

from services.errors import Problem
from services.request_options import PRIORITIES, RequestOptions
from services.server.content_coding import TooLargeError, codings_of, packed_limit, unpack

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
DEADLINE_HEADERS = (b"x-request-timeout-ms", b"x-request-deadline")


class DisconnectedError(Exception):
    """The client went away before its request was complete."""


@dataclass(slots=True)
class Answer:
    """An HTTP response; a body that is an iterator is sent piece by piece, see `stream`."""

    body: bytes | AsyncIterator[bytes]
    status: int = 200
    media: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


class Request:
    """An HTTP request; the body is read on demand.

    Attributes:
        headers: by name in lower case.
        params: values of the route's template.
        options: deadline and priority that the client asks for.
        reading: whether the body is being waited for.
    """

    __slots__ = ("body_limit", "headers", "options", "params", "reading", "receive", "scope")

    def __init__(self, scope: Scope, receive: Receive, params: Mapping[str, str], body_limit: int) -> None:
        self.scope, self.receive, self.params, self.body_limit = scope, receive, params, body_limit
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.options, self.reading = RequestOptions(), False

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


def options_of(headers: Mapping[bytes, bytes], timeout: float) -> RequestOptions:
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
    return RequestOptions(deadline=now + left, priority=level, arrived=now)


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
    """One path, in which ``{name}`` stands for one segment; an `open` one needs no API key.

    refusal: makes the body of failures, where clients of this path read another form than that of RFC 9457.
    socket: talks over a WebSocket (`services.server.sockets.Socket`).
    """

    template: str
    methods: Mapping[str, Handler]
    open: bool = False
    refusal: Callable[[Problem], bytes] | None = None
    socket: Callable[[Any], Awaitable[None]] | None = None


class Router:
    """Finds routes: fixed paths by one look-up, templates by number of segments."""

    def __init__(self, routes: list[Route]) -> None:
        self._fixed = {route.template: route for route in routes if "{" not in route.template}
        self._templates = [(route.template.split("/"), route) for route in routes if "{" in route.template]
        self._refusals = {route.template.split("/")[1]: route.refusal for route in routes if route.refusal is not None}

    def refusal(self, path: str) -> Callable[[Problem], bytes] | None:
        """What makes the body of failures at `path`, which no route has: as that of a route beside it."""
        return self._refusals.get(path.split("/")[1]) if path[:1] == "/" else None

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

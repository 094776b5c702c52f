"""One request on its way through: tried at backend after backend until one answers, and passed on as it comes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from services.budgets import Reserved
from services.errors import Problem, openai_document
from services.router.backends import FailedError, RefusedError, Server, has_token
from services.router.policy import sent
from services.router.settings import Route, Target

if TYPE_CHECKING:
    import aiohttp

_DONE = b"data: [DONE]"
_MODEL = re.compile(rb'"model":\s*"(?:[^"\\]|\\.)*"')  # quotes within texts have a backslash before them
_USAGE = re.compile(rb'"usage":\s*\{')
_FIRST_WAIT = 0.05  # seconds before a second try, doubled for each
_HEAD = 1 << 20  # bytes before the first token, at most


class Counts(Protocol):
    """Counts what becomes of tries."""

    def failed(self, route: str, backend: str) -> None:
        """A backend gave no answer, or not all of it."""

    def first(self, route: str, backend: str, seconds: float) -> None:
        """A stream has begun."""


class House(Protocol):
    """What a passage belongs to, see `services.router.runtime.RouterRuntime`."""

    @property
    def session(self) -> aiohttp.ClientSession:
        """Connections."""

    @property
    def counts(self) -> Counts:
        """Metrics."""

    def settle(self, passage: Passage, outcome: str, kept: list[bytes]) -> None:
        """Count what a request has used."""


class Passage:
    """The work on one request; `close` may be called at any moment, and more than once.

    Attributes:
        usage: as the backend tells it at the end.
        server, target: that answered.
        cache_key: under which the answer is kept.
    """

    def __init__(
        self,
        runtime: House,
        caller: str,
        name: str,
        route: Route,
        path: str,
        document: dict[str, Any],
        *,
        personal: bool,
    ) -> None:
        self.runtime, self.caller, self.name, self.route, self.path = runtime, caller, name, route, path
        self.document, self.personal = document, personal
        self.usage: dict[str, Any] = {}
        self.server: Server | None = None
        self.target: Target | None = None
        self.cache_key: bytes | None = None
        self.reserved: Reserved | None = None
        self.pieces = 0
        named = b'"model":' + orjson.dumps(name)  # as the client asked, not as a backend calls it
        self._named = lambda found: named
        self.start = perf_counter()
        options = document.get("stream_options")
        self._asks_usage = isinstance(options, dict) and bool(options.get("include_usage"))
        self._answer: aiohttp.ClientResponse | None = None
        self._held = self._early = b""
        self._kept: list[bytes] = []
        self._closed = self._over = self._entered = False

    async def open(self, order: list[tuple[Server, Target]], priority: str, level: float) -> None:
        """Wait for the first backend that answers: with a first token, or with all of it.

        Raises:
            RefusedError: a backend says that the request is wrong.
            Problem: 503, none answers.
        """
        reasons: list[str] = []
        for server, target in order:
            for attempt in range(server.settings.attempts):
                if not server.circuit.enter():
                    reasons.append(f"{server.name}: left alone for a while")
                    break
                try:
                    await self._try(server, target, priority, level)
                except FailedError as err:
                    reasons.append(err.reason)
                    self.runtime.counts.failed(self.name, server.name)
                    if attempt + 1 < server.settings.attempts and not server.circuit.open:
                        await asyncio.sleep(_FIRST_WAIT * 2**attempt)
                else:
                    return
        self.close("failed")
        detail = "; ".join(dict.fromkeys(reasons)) or "no backend may be sent this request"
        raise Problem(503, "no_backend", "no backend answers", detail, headers={"retry-after": "5"})

    async def whole(self) -> bytes:
        """The answer in one document."""
        body, self._early = self._early, b""
        self._note(body)
        body = _MODEL.sub(self._named, body)
        self._kept = [body]
        self.close("ok")
        return body

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The answer as it comes; whole events only, so that the last one, with the usage, can be taken out."""
        assert self._answer is not None
        try:
            piece = self._early
            while True:
                if told := self._pass(piece):
                    if self.cache_key is not None:
                        self._kept.append(told)
                    yield told
                if self._over:
                    break
                piece = await self._answer.content.readany()
                if not piece:
                    break
            if not self._over:
                raise FailedError("the stream has no end")
            self.close("ok")
        except (FailedError, TimeoutError, OSError, ValueError) as err:
            self._fail(err)
            yield _error()
        except Exception as err:
            if type(err).__module__.partition(".")[0] != "aiohttp":
                raise
            self._fail(err)
            yield _error()

    def _fail(self, err: Exception) -> None:
        assert self.server is not None
        self.server.circuit.failed()
        self.runtime.counts.failed(self.name, self.server.name)
        self.close("broken")

    def close(self, outcome: str) -> None:
        """Leave the backend, and count what was used."""
        if self._closed:
            return
        self._closed = True
        if self._answer is not None:
            if self._over:
                self._answer.release()
            else:
                self._answer.close()
        if self._entered:
            self._leave()
        self.runtime.settle(self, outcome, self._kept)

    async def _try(self, server: Server, target: Target, priority: str, level: float) -> None:
        self.server, self.target, settings = server, target, server.settings
        body = sent(self.document, server, target, self.route, personal=self.personal)
        try:
            if server.gate is not None:
                await server.gate.enter(1, len(body) // 3, level)
            server.busy, self._entered = server.busy + 1, True
            self._answer = await server.ask(self.runtime.session, self.path, body, priority)
            limit = settings.first_token_seconds - (perf_counter() - self.start)
            async with asyncio.timeout(max(limit, 0.001)):
                if self.document.get("stream"):
                    await self._until_first_token()
                else:
                    self._early = await self._answer.read()
                    self._over = True
            server.circuit.worked()
        except (FailedError, RefusedError):
            self._back()
            raise
        except Problem as err:  # too many wait for it
            server.circuit.left()
            raise FailedError(f"{server.name}: too many requests wait for it") from err
        except asyncio.CancelledError:
            server.circuit.left()
            self.close("cancelled")
            raise
        except Exception as err:
            if not isinstance(err, (TimeoutError, OSError, ValueError)) and "aiohttp" not in type(err).__module__:
                raise
            server.circuit.failed()
            self._back()
            raise FailedError(f"{server.name}: {type(err).__name__}") from err

    def _back(self) -> None:
        """Leave a backend that did not answer."""
        if self._answer is not None:
            self._answer.close()
            self._answer = None
        if self._entered:
            self._leave()
        self._held = self._early = b""

    def _leave(self) -> None:
        assert self.server is not None
        self._entered = False
        self.server.busy -= 1
        if self.server.gate is not None:
            self.server.gate.leave(1, self.usage.get("completion_tokens") or 0, perf_counter() - self.start)

    async def _until_first_token(self) -> None:
        assert self._answer is not None
        assert self.server is not None
        while True:
            piece = await self._answer.content.readany()
            if not piece or len(self._early) > _HEAD:
                raise FailedError(f"{self.server.name}: its stream has no token")
            self._early += piece
            for event in self._early.split(b"\n\n")[:-1]:
                document = _document(event)
                if "error" in document:
                    self.server.circuit.failed()
                    raise FailedError(f"{self.server.name}: its stream begins with an error")
                if has_token(document):
                    self.runtime.counts.first(self.name, self.server.name, perf_counter() - self.start)
                    return

    def _pass(self, piece: bytes) -> bytes:
        """What of the stream may go on: its whole events."""
        held = self._held + piece if self._held else piece
        cut = held.rfind(b"\n\n") + 2
        if cut < 2:
            self._held = held
            return b""
        told, self._held = held[:cut], held[cut:]
        self.pieces += told.count(b"data:")
        told = _MODEL.sub(self._named, told)
        if _USAGE.search(told):
            told = self._without_usage(told)
        if _DONE in told or b'data: {"error"' in told:
            self._over = True
        return told

    def _without_usage(self, told: bytes) -> bytes:
        """Take the usage, and the event that has nothing else, where the client did not ask for it."""
        kept = []
        for event in told.split(b"\n\n"):
            document = _document(event) if _USAGE.search(event) else {}
            if document.get("usage"):
                self.usage = document["usage"]
                if not self._asks_usage and not document.get("choices"):
                    continue
            kept.append(event)
        return b"\n\n".join(kept)

    def _note(self, body: bytes) -> None:
        try:
            found = orjson.loads(body)
        except orjson.JSONDecodeError:
            found = None
        if not isinstance(found, dict):
            self._over = False
            return
        self.usage = found.get("usage") or {}


def _document(event: bytes) -> dict[str, Any]:
    _, _, text = event.strip().partition(b"data:")
    text = text.strip()
    if not text.startswith(b"{"):
        return {}
    found: dict[str, Any] = orjson.loads(text)
    return found


def _error() -> bytes:
    problem = Problem(502, "backend_failed", "the backend broke off in the middle of the answer", fix="ask again")
    return b"data: " + orjson.dumps(openai_document(problem)) + b"\n\n"

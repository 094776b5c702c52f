"""A lean ASGI layer: routes by template, bodies with a limit, every failure as a problem, every answer counted.

It is mounted in the BentoML service, which keeps packaging, hooks and health. A typed BentoML endpoint costs 0.10 ms
more per request, ignores unknown fields, and logs input values with a traceback for each bad request.
"""

from __future__ import annotations

import asyncio
import logging
from time import perf_counter
from typing import Any

from contracts.errors import PlatformError
from contracts.metric_names import UNMATCHED_ROUTE
from services.errors import MEDIA_TYPE, Problem, deadline_exceeded, unavailable
from services.logs import NAME
from services.server.cors import is_preflight
from services.server.lifecycle import Runtime
from services.server.requests import (
    DEADLINE_HEADERS,
    Answer,
    DisconnectedError,
    Handler,
    Receive,
    Request,
    Route,
    Router,
    Scope,
    Send,
    options_of,
)
from services.server.sockets import Socket, check_origin
from services.server.streams import closing, send_stream
from services.settings import ServiceSettings

DEFAULT_BODY_LIMIT = 8 << 20
_TICK_SECONDS = 0.02
logger = logging.getLogger(NAME)


class App:
    """The ASGI application."""

    def __init__(self, runtime: Runtime, routes: list[Route]) -> None:
        self._runtime, self._router = runtime, Router(routes)
        self._clocks: set[_Clock] = set()
        self._ticking = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request, or talk over a WebSocket."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await self._talk(scope, receive, send)
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
            status = await _send(answer, scope["method"], receive, send, last=runtime.state == "draining")
            runtime.metrics.answered(template, status, perf_counter() - start)
        except DisconnectedError:
            runtime.metrics.answered(template, 499, perf_counter() - start)
        finally:
            runtime.inflight -= 1

    async def _talk(self, scope: Scope, receive: Receive, send: Send) -> None:
        runtime, socket = self._runtime, Socket(scope, receive, send)
        route, _ = self._router.find(scope["path"])
        template = UNMATCHED_ROUTE if route is None else route.template
        start, problem = perf_counter(), None
        runtime.inflight += 1
        try:
            await receive()  # that somebody wants to connect
            if route is None or route.socket is None:
                raise Problem(404, "not-found", "no WebSocket here", fix="see /docs for what there is")
            if runtime.keys is not None and not route.open:
                runtime.authorise(socket.headers)
            check_origin(socket.headers, runtime.cors is not None and runtime.cors.allows(socket.headers))
            await route.socket(socket)
        except Problem as err:
            problem = err
        except PlatformError as err:
            logger.error("stream_failed", extra={"fields": {"code": err.code, "headline": err.headline}})
            problem = unavailable(err)
        except Exception as err:
            if socket.closed or type(err).__name__ == "ClientDisconnected":  # uvicorn's: nobody is there any more
                return
            logger.exception("stream_failed")
            problem = Problem(500, "internal-error", "the service failed to answer", "see its log")
        finally:
            runtime.inflight -= 1
        if problem is not None:
            if not socket.accepted:
                runtime.metrics.answered(template, problem.status, perf_counter() - start)
            await socket.refuse(problem)

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
            holder = None
            if runtime.keys is not None and (route is None or not route.open):
                holder = runtime.authorise(request.headers)
            handler = _handler(route, scope["method"])
            if timeout is None:
                return await handler(request)
            request.options = options_of(request.headers, timeout)
            request.options.holder = holder
            clock = self._watch(request.options.deadline)
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
        refusal = self._router.refusal(scope["path"]) if route is None else route.refusal
        if refusal is not None:
            return Answer(refusal(problem), problem.status, headers=tuple(problem.headers.items()))
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


async def _send(answer: Answer, method: str, receive: Receive, send: Send, *, last: bool = False) -> int:
    """Send an answer; returns the status that it counts as, 500 when a stream broke off."""
    body = answer.body
    whole = type(body) is bytes
    headers = [(b"content-type", answer.media.encode())]
    if type(body) is bytes:
        headers.append((b"content-length", b"%d" % len(body)))
    if answer.status == 204:  # has no body, and must not say how long it is
        headers.clear()
    if answer.headers:
        headers += [(name.encode(), value.encode("latin-1")) for name, value in answer.headers]
    if last:  # the port is about to close: the client's next request should open a connection elsewhere
        headers.append((b"connection", b"close"))
    cycle = getattr(send, "__self__", None)  # of `services.server.protocol`
    if whole:
        at_once = getattr(cycle, "send_whole", None)
        if at_once is not None and at_once(answer.status, headers, body):
            return answer.status
    begin = None if whole else getattr(cycle, "send_head", None)
    if begin is None or not begin(answer.status, headers):
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    if method == "HEAD":
        if not isinstance(body, bytes):
            async with closing(body):
                pass
        await send({"type": "http.response.body", "body": b""})
    elif isinstance(body, bytes):
        await send({"type": "http.response.body", "body": body})
    else:
        try:
            await send_stream(body, receive, send)
        except DisconnectedError:
            raise
        except Exception:  # the status has left: an end that is missing says that it failed
            logger.exception("stream_failed")
            return 500
    return answer.status

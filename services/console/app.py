"""The ASGI application: routes, who may see them, and what every answer carries."""

from __future__ import annotations

import logging
import threading
from collections.abc import Awaitable, Callable
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from contracts.errors import PlatformError
from services.console import pages, tryout
from services.console.access import HEADERS, NOBODY, Access, from_elsewhere, local_path
from services.console.documents import Failure
from services.console.rendering import HERE, THEMES, Reader, page
from services.console.source import Source
from services.console.words import LANGUAGES
from services.errors import Problem
from services.logs import NAME
from services.server.auth import KeyRing

_PROBES = ("/healthz", "/readyz")
_OPEN = ("/login", "/static/", "/preferences")
_YEAR = 365 * 86400
_MOST_BYTES = 16 << 20  # of a form
logger = logging.getLogger(NAME)


def build_app(source: Source, keys: KeyRing | None = None, secret: bytes = b"") -> Starlette:
    """The console over a source; with `keys` nobody sees anything without one. `secret` signs sessions.

    It is ready once `state.warm` is set.
    """
    routes = [
        Route("/", pages.models, name="models"),
        Route("/models/{name}", pages.model, name="model"),
        Route("/models/{name}/try", tryout.form, name="try"),
        Route("/models/{name}/try", tryout.ask, methods=["POST"]),
        Route("/models/{name}/versions/{version}/{file}", pages.bundle_file, name="bundle_file"),
        Route("/runs", pages.runs, name="runs"),
        Route("/runs/{run_id}", pages.run, name="run"),
        Route("/rollouts", pages.rollouts, name="rollouts"),
        Route("/rollouts/{name}", pages.steer, methods=["POST"], name="steer"),
        Route("/alerts", pages.alerts, name="alerts"),
        Route("/audit", pages.audit, name="audit"),
        Route("/login", _login_form, name="login"),
        Route("/login", _login, methods=["POST"]),
        Route("/logout", _logout, methods=["POST"], name="logout"),
        Route("/preferences", _preferences, methods=["POST"], name="preferences"),
        Route("/healthz", _healthy),
        Route("/readyz", _ready),
        Mount("/static", StaticFiles(directory=HERE / "static"), name="static"),
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=_guard)],
        exception_handlers={PlatformError: _failed, Problem: _problem, HTTPException: _refused, 500: _broken},
    )
    app.state.source, app.state.access, app.state.warm = source, Access(keys, secret), threading.Event()
    return app


async def _guard(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
    """Let a request pass to its page, or not; every answer gets the headers that keep a browser strict."""
    access: Access = request.app.state.access
    request.state.reader = Reader.of(request, NOBODY)
    response = await _answered(request, access, go_on)
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    if request.url.path.startswith("/static/"):
        response.headers["cache-control"] = "max-age=300"
    return response


async def _answered(request: Request, access: Access, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
    if request.url.path in _PROBES:
        return await go_on(request)
    if access.strange_host(request):
        return _error_page(request, 421, "This page has another name", "Open it as http://127.0.0.1, or with keys.")
    if request.method not in ("GET", "HEAD"):
        if from_elsewhere(request):
            return _error_page(request, 403, "The form was sent from another site", "Open the page, and try again.")
        if int(request.headers.get("content-length") or _MOST_BYTES + 1) > _MOST_BYTES:
            return _error_page(request, 413, "That is too large", "At most 16 MiB are accepted.")
    try:
        holder = access.who(request)
    except Problem as problem:
        return await _problem(request, problem)
    request.state.reader = Reader.of(request, holder or NOBODY)
    if holder is None and not request.url.path.startswith(_OPEN):
        wrong = "authorization" in request.headers or "x-api-key" in request.headers
        if request.method == "GET" and not wrong and "text/html" in request.headers.get("accept", ""):
            return RedirectResponse(str(request.url_for("login").path) + _next(request), 303)
        return page(request, "login", {"next": "/", "wrong": wrong}, 401)
    return await go_on(request)


def _next(request: Request) -> str:
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return "" if path == "/" else f"?next={quote(path, safe='/')}"


async def _login_form(request: Request) -> Response:
    if not request.app.state.access.guarded:
        return RedirectResponse("/", 303)
    return page(request, "login", {"next": local_path(request.query_params.get("next", "/")), "wrong": False})


async def _login(request: Request) -> Response:
    form = await request.form()
    after = local_path(str(form.get("next", "/")))
    response = RedirectResponse(after, 303)
    if request.app.state.access.open(str(form.get("key", "")), response, secure=request.url.scheme == "https"):
        return response
    return page(request, "login", {"next": after, "wrong": True}, 401)


async def _logout(request: Request) -> Response:
    response = RedirectResponse("/login", 303)
    request.app.state.access.close(response)
    return response


async def _preferences(request: Request) -> Response:
    """Keep language or colours in a cookie, and go back."""
    form = await request.form()
    response = RedirectResponse(local_path(str(form.get("next", "/"))), 303)
    for name, accepted in (("theme", THEMES), ("lang", LANGUAGES)):
        if form.get(name) in accepted:
            response.set_cookie(name, str(form[name]), max_age=_YEAR, httponly=True, samesite="strict")
    return response


async def _healthy(request: Request) -> Response:
    return PlainTextResponse("ok\n")


async def _ready(request: Request) -> Response:
    """Whether registry and bundles were looked at once, found or not."""
    warm = request.app.state.warm.is_set()
    return PlainTextResponse("ok\n" if warm else "reading registry and bundles\n", 200 if warm else 503)


def _error_page(request: Request, status: int, headline: str, fix: str) -> Response:
    say = request.state.reader.say
    return page(request, "error", {"failure": Failure(headline=say(headline), fix=say(fix))}, status)


async def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, PlatformError)
    failure = Failure(headline=error.headline, detail=error.detail, fix=error.fix)
    return await run_in_threadpool(page, request, "error", {"failure": failure}, 503)


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    response = page(request, "error", {"failure": Failure(headline=error.title, detail=error.detail)}, error.status)
    response.headers.update(error.headers)
    return response


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return _error_page(request, 404, "There is no such page", "Go on from the list of models.")
    return _error_page(request, error.status_code, "This cannot be done here", "Go on from the list of models.")


async def _broken(request: Request, error: Exception) -> Response:
    logger.error("a page failed: %s", request.url.path, exc_info=error)
    response = _error_page(request, 500, "This page could not be made", "The console's log has the reason.")
    response.headers.update(HEADERS)
    return response

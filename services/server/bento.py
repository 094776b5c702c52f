"""What turns a `Runtime` into a BentoML service: configuration, mounted routes, a leaner middleware stack."""

from __future__ import annotations

import gc
import os
import sys
from typing import Any, ClassVar

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "true")

import bentoml
from _bentoml_sdk.service import Service
from starlette.exceptions import HTTPException

from services.errors import MEDIA_TYPE
from services.logs import configure_logging
from services.server.http import Answer, App, Request, Route
from services.server.inference import v2_routes
from services.server.lifecycle import BUSY_ROUTES, Runtime
from services.server.openapi import docs_routes
from services.server.predict import PredictHandler

# One worker: it scales by pods. Timeout and queue are ours (settings); these are the outer fence.
SERVICE_CONFIG: dict[str, Any] = {
    "workers": 1,
    "traffic": {"timeout": 300, "max_concurrency": 1024},
    "tracing": {"excluded_urls": ".*"},
    "metrics": {"enabled": False},
    "logging": {"access": {"enabled": False}},
}
_SLASHED_PROBES = {"/healthz/", "/livez/", "/readyz/"}  # BentoML's; ours are found with a slash too
_COSTLY = {"TimeoutMiddleware", "OpenTelemetryMiddleware", "ContextMiddleware"}


class LeanService(Service):  # type: ignore[misc]
    """A BentoML service that leaves out middleware which mounted routes do not need.

    BentoML's timeout keeps each request alive until its timer fires, which makes the collector's pauses long; the
    runtime has a timeout of its own. Services with typed endpoints keep all of them.
    """

    def to_asgi(self, is_main: bool = True) -> Any:
        """The ASGI application, see `Service.to_asgi`."""
        app: Any = super().to_asgi(is_main=is_main)
        if self.apis:
            return app
        app.user_middleware = [one for one in app.user_middleware if one.cls.__name__ not in _COSTLY]
        ours = next((one for one, path, _ in self.mount_apps if isinstance(one, App) and path == "/"), None)
        return app if ours is None else Shortcut(app, ours)


class Shortcut:
    """Hands predictions to `ours` directly, and everything else, health and lifespan too, to BentoML's application.

    Each layer of Starlette costs 5 to 10 us per request, and these routes need none of them: the queue is bounded.
    """

    def __init__(self, bento: Any, ours: App) -> None:
        self.bento, self.ours = bento, ours

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one connection."""
        direct = scope["type"] == "http" and (scope["path"] == BUSY_ROUTES[0] or scope["path"].startswith("/v2/"))
        if not direct and scope.get("path") in _SLASHED_PROBES:
            scope = {**scope, "path": scope["path"][:-1]}
        await (self.ours if direct else self.bento)(scope, receive, send)


def asgi_app(runtime: Runtime) -> App:
    """All routes but readiness and liveness, which are BentoML's."""

    async def metrics(request: Request) -> Answer:
        body, media = runtime.metrics.render(request.header(b"accept"))
        return Answer(body, media=media)

    async def started(request: Request) -> Answer:
        if not runtime.started:
            raise runtime.not_ready()
        return Answer(b"", media="text/plain")

    own = [
        Route(BUSY_ROUTES[0], {"POST": PredictHandler(runtime)}),
        Route("/startupz", {"GET": started}, open=True),
        Route("/metrics", {"GET": metrics}, open=True),
    ]
    return App(runtime, [*own, *v2_routes(runtime), *docs_routes(runtime)])


async def start(runtime: Runtime) -> None:
    """Begin loading, in a process that serves nothing else."""
    configure_logging()
    runtime.on_ready = _settle
    await runtime.start()
    if runtime.settings.grpc_port:
        from services.server.oip_grpc import GrpcServer

        grpc = GrpcServer(runtime)
        await grpc.start(runtime.settings.grpc_host, runtime.settings.grpc_port)
        runtime.on_stop = grpc.stop
    runtime.drain_on_sigterm()


def _settle() -> None:
    """What was loaded stays: let the collector forget it and run rarely, its pauses set the p99."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 50, 100)
    # A thread that asks for the interpreter waits this long; the default of 5 ms shows in the p99.
    sys.setswitchinterval(0.0005)


class ModelService:
    """What the service of every modality does at its start, at its end, and when its health is asked for."""

    runtime: ClassVar[Runtime]

    @bentoml.on_startup
    async def begin(self) -> None:
        """Begin loading; the port answers while it goes on."""
        await start(self.runtime)

    @bentoml.on_shutdown
    async def end(self) -> None:
        """Finish the queue and the prediction log."""
        await self.runtime.stop()

    async def __is_alive__(self) -> bool:
        """False once the model's thread has ended, which nothing but a restart mends."""
        return self.runtime.alive

    async def __is_ready__(self) -> bool:
        """Whether the model has proven itself, see `check_ready`."""
        return check_ready(self.runtime)


def check_ready(runtime: Runtime) -> bool:
    """True, or a 503 that says why.

    Raises:
        HTTPException: 503 with a problem document as its body.
    """
    if runtime.ready:
        return True
    problem = runtime.not_ready()
    raise HTTPException(503, problem.body().decode(), headers={"content-type": MEDIA_TYPE, **problem.headers})

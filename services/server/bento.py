"""The BentoML service of a modality: its hooks and health, around the routes of the modality."""

from __future__ import annotations

import gc
import os
import sys
from typing import Any

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "true")

import bentoml
from starlette.exceptions import HTTPException

from services.errors import MEDIA_TYPE
from services.logs import configure_logging
from services.server.http import App
from services.server.lifecycle import Runtime
from services.server.openapi import docs_routes
from services.server.requests import Answer, Request, Route

# One worker: it scales by pods. Timeout and queue are ours (settings); these are the outer fence.
CONFIG: dict[str, Any] = {
    "workers": 1,
    "traffic": {"timeout": 300, "max_concurrency": 1024},
    "tracing": {"excluded_urls": ".*"},
    "metrics": {"enabled": False},
    "logging": {"access": {"enabled": False}},
}
_PROBES = frozenset({"/healthz", "/livez", "/readyz"})  # BentoML's


class Shortcut:
    """Hands requests to `ours` directly, and the lifespan and BentoML's probes to its application.

    The layers of BentoML's application cost more than the rest of a request, see docs/adr/0018.
    """

    def __init__(self, bento: Any, ours: App) -> None:
        self.bento, self.ours = bento, ours

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one connection."""
        if scope["type"] != "lifespan":
            path = scope["path"].removesuffix("/")
            if path not in _PROBES:
                await self.ours(scope, receive, send)
                return
            scope = {**scope, "path": path}
        await self.bento(scope, receive, send)


class ModelService:
    """The hooks and the health of a runtime's service; a subclass has the runtime."""

    runtime: Runtime

    @bentoml.on_startup  # type: ignore[untyped-decorator]
    async def begin(self) -> None:
        """Begin loading; the port answers while it goes on."""
        await start(self.runtime)

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    async def end(self) -> None:
        """Finish what was accepted."""
        await self.runtime.stop()

    async def __is_alive__(self) -> bool:
        """Whether this process can ever answer again; only a restart helps when not."""
        return self.runtime.alive

    async def __is_ready__(self) -> bool:
        """Whether the model has proven itself, see `check_ready`."""
        return check_ready(self.runtime)


def bento_service(runtime: Runtime) -> Any:
    """The BentoML service of a runtime."""
    name = runtime.modality.name
    kind = type(f"{name.capitalize()}Service", (ModelService,), {"runtime": runtime, "__module__": __name__})
    service = bentoml.service(name=f"fairlead-{name}", **CONFIG)(kind)
    return bentoml.asgi_app(asgi_app(runtime), path="/")(service)


def served_app(runtime: Runtime) -> Shortcut:
    """The ASGI application that `services.server.launch` runs."""
    return Shortcut(bento_service(runtime).to_asgi(), asgi_app(runtime))


def asgi_app(runtime: Runtime) -> App:
    """All routes but readiness and liveness, which are BentoML's."""

    async def metrics(request: Request) -> Answer:
        body, media = runtime.metrics.render(request.header(b"accept"))
        return Answer(body, media=media)

    async def started(request: Request) -> Answer:
        if not runtime.started:
            raise runtime.not_ready()
        return Answer(b"", media="text/plain")

    own = [Route("/startupz", {"GET": started}, open=True), Route("/metrics", {"GET": metrics}, open=True)]
    apis = [route for api in runtime.modality.apis for route in api.routes(runtime)]
    return App(runtime, [*apis, *own, *docs_routes(runtime)])


async def start(runtime: Runtime) -> None:
    """Begin loading, in a process that serves nothing else."""
    configure_logging()
    runtime.on_ready = _settle
    await runtime.start()
    await runtime.listen()
    runtime.drain_on_sigterm()


def _settle() -> None:
    """Let the collector forget what was loaded, and run rarely: its pauses set the p99."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 50, 100)
    # A thread that asks for the interpreter waits this long; the default of 5 ms shows in the p99.
    sys.setswitchinterval(0.0005)


def check_ready(runtime: Runtime) -> bool:
    """True, or a 503 that says why.

    Raises:
        HTTPException: 503 with a problem document as its body.
    """
    if runtime.ready:
        return True
    problem = runtime.not_ready()
    raise HTTPException(503, problem.body().decode(), headers={"content-type": MEDIA_TYPE, **problem.headers})

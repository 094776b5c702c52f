"""Open Inference Protocol v2: the ``/v2`` routes over `services.oip.tensors`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

import orjson

from services.errors import Problem
from services.model.runtime import RowRuntime
from services.model.scoring import Model
from services.oip import binary as oip_binary
from services.oip.docs import v2_paths, v2_schemas
from services.oip.inference import EXTENSIONS, check_address, describe_model, infer
from services.server.lifecycle import Api, Stop
from services.server.requests import Answer, Handler, Request, Route, parse_json


def v2_routes(runtime: RowRuntime) -> list[Route]:
    """All routes of the protocol, each also with an explicit version of the model."""
    served = _Served(runtime)
    by_model: list[tuple[str, str, Handler]] = [
        ("", "GET", served.metadata),
        ("/ready", "GET", served.model_ready),
        ("/infer", "POST", served.infer),
    ]
    routes = [
        Route("/v2", {"GET": served.server}),
        Route("/v2/health/live", {"GET": served.live}, open=True),
        Route("/v2/health/ready", {"GET": served.ready}, open=True),
    ]
    for root in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        routes += [Route(f"{root}{end}", {method: handler}) for end, method, handler in by_model]
    return routes


def _addressed(
    handler: Callable[[_Served, Request, Model], Awaitable[Answer]],
) -> Callable[[_Served, Request], Awaitable[Answer]]:
    """Refuse requests for another model or version than the served one."""

    @wraps(handler)
    async def checked(self: _Served, request: Request) -> Answer:
        model = self.runtime.model()
        check_address(self.runtime, request.params)
        return await handler(self, request, model)

    return checked


class _Served:
    def __init__(self, runtime: RowRuntime) -> None:
        self.runtime = runtime

    async def server(self, request: Request) -> Answer:
        name = f"fairlead-{self.runtime.modality.name}"
        return _json({"name": name, "version": self.runtime.version, "extensions": list(EXTENSIONS)})

    async def live(self, request: Request) -> Answer:
        return _json({"live": True})

    async def ready(self, request: Request) -> Answer:
        if not self.runtime.ready:
            raise self.runtime.not_ready()
        return _json({"ready": True})

    @_addressed
    async def model_ready(self, request: Request, model: Model) -> Answer:
        if not self.runtime.ready:
            raise self.runtime.not_ready()
        return _json({"name": self.runtime.name, "ready": True})

    @_addressed
    async def metadata(self, request: Request, model: Model) -> Answer:
        return _json(describe_model(self.runtime, model))

    @_addressed
    async def infer(self, request: Request, model: Model) -> Answer:
        length = request.headers.get(b"inference-header-content-length")
        if length is None:
            document = await request.json(untyped=True)
        else:
            document = _with_binary(await request.body(), length)
        answer, wanted = await infer(self.runtime, model, document, request.options)
        binary = oip_binary.wants_binary(document, wanted)
        if not binary:
            return _json(answer)
        raw = oip_binary.detach(answer, binary)
        header = orjson.dumps(answer)
        sizes = (("inference-header-content-length", str(len(header))),)
        return Answer(header + raw, media="application/octet-stream", headers=sizes)


def _with_binary(body: bytes, length: bytes) -> Any:
    if not length.isdigit() or int(length) > len(body):
        detail = f"expected a number of bytes of the JSON header, at most {len(body)}"
        raise Problem(
            400, "bad-header", "a header of the request is wrong", errors=[("inference-header-content-length", detail)]
        )
    end = int(length)
    document = parse_json(memoryview(body)[:end])
    oip_binary.fill(document, memoryview(body)[end:])
    return document


def _json(document: Any) -> Answer:
    return Answer(orjson.dumps(document))


async def _listen(runtime: RowRuntime) -> Stop | None:
    """Listen for gRPC, where the settings ask for it."""
    if not runtime.settings.grpc_port:
        return None
    from services.oip.grpc_server import GrpcServer

    server = GrpcServer(runtime)
    await server.start(runtime.settings.grpc_host, runtime.settings.grpc_port)
    return server.stop


OIP = Api(
    routes=v2_routes,
    busy=("/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer"),
    paths=v2_paths,
    schemas=v2_schemas,
    listen=_listen,
)

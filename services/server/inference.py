"""Open Inference Protocol v2: the ``/v2`` routes over `services.oip.tensors`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from time import perf_counter
from typing import Any

import orjson

from services.batching.terms import Terms
from services.errors import Problem
from services.model.forms import Batch
from services.model.prediction_log import new_id
from services.model.scoring import Model, Scored
from services.oip import binary as oip_binary
from services.oip import tensors as oip
from services.server.http import Answer, Handler, Request, Route, parse_json
from services.server.lifecycle import Runtime
from services.server.predict import record, run

EXTENSIONS = ("binary_tensor_data",)


def v2_routes(runtime: Runtime) -> list[Route]:
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
    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime

    async def server(self, request: Request) -> Answer:
        name = f"fairlead-{self.runtime.modality}"
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
        answer, wanted = await infer(self.runtime, model, document, request.terms)
        binary = oip_binary.wants_binary(document, wanted)
        if not binary:
            return _json(answer)
        raw = oip_binary.detach(answer, binary)
        header = orjson.dumps(answer)
        sizes = (("inference-header-content-length", str(len(header))),)
        return Answer(header + raw, media="application/octet-stream", headers=sizes)


def describe_model(runtime: Runtime, model: Model) -> dict[str, Any]:
    """The model's metadata."""
    document: dict[str, Any] = {
        "name": runtime.name,
        "versions": [runtime.version],
        "platform": model.bundle.document.engine,
        "inputs": oip.tensors(model.forms.main),
        "outputs": oip.output_tensors(model.tensors.values()),
        "parameters": {**model.serving.parameters(model.output), "task": model.bundle.document.task},
    }
    if model.forms.raw is not None:
        document["parameters"]["direct_inputs"] = oip.tensors(model.forms.direct)
    return document


def check_address(runtime: Runtime, given: Mapping[str, str]) -> None:
    """Refuse a request for another name or version than the served ones; an absent one fits.

    Raises:
        Problem: 404.
    """
    for key, have in (("name", runtime.name), ("version", runtime.version)):
        if given.get(key, have) != have:
            what = "model" if key == "name" else "version"
            raise Problem(404, f"unknown-{what}", f"no such {what} here", f"this service has {what} {have}")


async def infer(runtime: Runtime, model: Model, document: Any, terms: Terms) -> tuple[dict[str, Any], list[str]]:
    """The response document of a request document, and the names of its outputs.

    Raises:
        Problem: 400 and 422 see `oip.read_request`, others see `predict.run`.
    """
    start = perf_counter()
    batch, wanted = oip.read_request(document, model.forms, runtime.settings.max_instances, model.tensors)
    stage = runtime.metrics.stage
    stage["decode"].observe(perf_counter() - start)
    scored = await run(runtime, model, batch, 0, terms)
    start = perf_counter()
    ids = record(runtime, model, batch, scored)
    answer = {
        "model_name": runtime.name,
        "model_version": runtime.version,
        "id": document.get("id") or new_id(),
        "outputs": [_tensor(model, name, scored, ids, batch) for name in wanted],
    }
    stage["encode"].observe(perf_counter() - start)
    return answer, wanted


def _tensor(model: Model, name: str, scored: Scored, ids: list[str], batch: Batch) -> dict[str, Any]:
    """An output tensor: one of the problem's, or one that every answer has."""
    tensor = model.tensors.get(name)
    if tensor is not None:
        shape = [batch.rows, *tensor.shape]
        data = model.problem.values(model.output, name, scored.answers, scored.decided)
        return {"name": name, "datatype": tensor.datatype, "shape": shape, "data": data}
    data = ids if name == oip.ID else [",".join(words) for words in batch.flags]
    return {"name": name, "datatype": "BYTES", "shape": [batch.rows], "data": data}


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

"""Open Inference Protocol v2: the ``/v2`` routes over `services.runtime.oip`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from time import perf_counter
from typing import Any

import orjson

from services.runtime import oip
from services.runtime.errors import Problem
from services.runtime.http import Answer, Handler, Request, Route
from services.runtime.lifecycle import Runtime
from services.runtime.predict import record, run
from services.runtime.prediction_log import new_id
from services.runtime.scoring import Model


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
        for key, have in (("name", self.runtime.name), ("version", self.runtime.version)):
            if request.params.get(key, have) != have:
                what = "model" if key == "name" else "version"
                raise Problem(404, f"unknown-{what}", f"no such {what} here", f"this service has {what} {have}")
        return await handler(self, request, model)

    return checked


class _Served:
    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime

    async def server(self, request: Request) -> Answer:
        name = f"fairlead-{self.runtime.modality}"
        return _json({"name": name, "version": self.runtime.version, "extensions": []})

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
        document: dict[str, Any] = {
            "name": self.runtime.name,
            "versions": [self.runtime.version],
            "platform": model.bundle.document.engine,
            "inputs": oip.tensors(model.forms.main),
            "outputs": oip.output_tensors(len(model.classes)),
            "parameters": {"classes": model.classes, "task": model.bundle.document.task},
        }
        if model.forms.raw is not None:
            document["parameters"]["direct_inputs"] = oip.tensors(model.forms.direct)
        return _json(document)

    @_addressed
    async def infer(self, request: Request, model: Model) -> Answer:
        if request.header(b"inference-header-content-length"):
            raise Problem(400, "binary-tensors", "binary tensor data is not supported", fix="send tensors as JSON")
        document = await request.json()
        start = perf_counter()
        batch, wanted = oip.read_request(document, model.forms, self.runtime.settings.max_instances)
        stage = self.runtime.metrics.stage
        stage["decode"].observe(perf_counter() - start)
        scored = await run(self.runtime, model, batch, 0, request.terms)
        start = perf_counter()
        ids = record(self.runtime, model, batch, scored)
        answer = _json(
            {
                "model_name": self.runtime.name,
                "model_version": self.runtime.version,
                "id": document.get("id") or new_id(),
                "outputs": oip.write_outputs(wanted, scored.probabilities, scored.labels, ids, batch.flags),
            }
        )
        stage["encode"].observe(perf_counter() - start)
        return answer


def _json(document: Any) -> Answer:
    return Answer(orjson.dumps(document))

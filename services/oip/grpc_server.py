"""Open Inference Protocol v2 over gRPC, on a port of its own and on the same loop and queue as HTTP.

Deadlines are gRPC's own; keys and priority come as metadata with the names of the HTTP headers.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict

from contracts.errors import PlatformError
from services.errors import Problem, unavailable
from services.logs import NAME, log_event
from services.model.runtime import RowRuntime
from services.oip import binary as oip_binary
from services.oip import inference
from services.oip import oip_pb2 as pb
from services.request_options import RequestOptions
from services.server.requests import options_of

logger = logging.getLogger(NAME)
SERVICE = "inference.GRPCInferenceService"
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
# Where the values of a datatype are in InferTensorContents; the two that share a field are told apart by the datatype.
_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_Answer = Callable[[Any, RequestOptions], Awaitable[Any]]


class GrpcServer:
    """The protocol's six methods."""

    def __init__(self, runtime: RowRuntime) -> None:
        self._runtime = runtime
        limit = runtime.settings.max_body_bytes
        self._server = grpc.aio.server(options=[("grpc.max_receive_message_length", limit), ("grpc.so_reuseport", 0)])
        methods: list[tuple[str, Any, bool, _Answer]] = [
            ("ServerLive", pb.ServerLiveRequest, True, self._live),
            ("ServerReady", pb.ServerReadyRequest, True, self._ready),
            ("ModelReady", pb.ModelReadyRequest, False, self._model_ready),
            ("ServerMetadata", pb.ServerMetadataRequest, False, self._server_metadata),
            ("ModelMetadata", pb.ModelMetadataRequest, False, self._model_metadata),
            ("ModelInfer", pb.ModelInferRequest, False, self._infer),
        ]
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                self._guarded(name, is_open, answer), kind.FromString, lambda message: message.SerializeToString()
            )
            for name, kind, is_open, answer in methods
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port.

        Raises:
            PlatformError: the port is taken.
        """
        try:
            bound = int(self._server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}"))
        except RuntimeError as err:
            raise PlatformError(
                f"cannot listen for gRPC on {host}:{port}",
                detail="the port is taken, or the address is not of this machine",
                fix="choose another FAIRLEAD_SERVICE_GRPC_PORT or FAIRLEAD_SERVICE_GRPC_HOST",
                code="bad_settings",
            ) from err
        await self._server.start()
        log_event("grpc_listens", port=bound)
        return bound

    async def stop(self) -> None:
        """Refuse new calls, and let those in flight finish within the grace."""
        await self._server.stop(self._runtime.settings.graceful_seconds)

    def _guarded(self, name: str, is_open: bool, answer: _Answer) -> Callable[[Any, Any], Awaitable[Any]]:
        route = f"/{SERVICE}/{name}"

        async def handle(message: Any, context: Any) -> Any:
            start = perf_counter()
            runtime = self._runtime
            runtime.inflight += 1
            problem: Problem | None = None
            try:
                given = {
                    k.encode(): v if isinstance(v, bytes) else v.encode() for k, v in context.invocation_metadata()
                }
                holder = runtime.authorise(given) if runtime.keys is not None and not is_open else None
                left = context.time_remaining()
                options = options_of(given, min(runtime.settings.timeout_seconds, math.inf if left is None else left))
                options.holder = holder
                return await answer(message, options)
            except Problem as err:
                problem = err
            except PlatformError as err:
                problem = unavailable(err)
            except Exception:
                logger.exception("request_failed")
                problem = Problem(500, "internal-error", "the service failed to answer", "see its log")
            finally:
                runtime.inflight -= 1
                runtime.metrics.answered(route, problem.status if problem else 200, perf_counter() - start)
            if "retry-after" in problem.headers:
                context.set_trailing_metadata((("retry-after", problem.headers["retry-after"]),))
            await context.abort(_CODES.get(problem.status, grpc.StatusCode.INTERNAL), problem.line)

        return handle

    async def _live(self, message: Any, options: RequestOptions) -> Any:
        return pb.ServerLiveResponse(live=self._runtime.alive)

    async def _ready(self, message: Any, options: RequestOptions) -> Any:
        return pb.ServerReadyResponse(ready=self._runtime.ready)

    async def _model_ready(self, message: Any, options: RequestOptions) -> Any:
        self._check(message.name, message.version)
        return pb.ModelReadyResponse(ready=self._runtime.ready)

    async def _server_metadata(self, message: Any, options: RequestOptions) -> Any:
        name = f"fairlead-{self._runtime.modality.name}"
        return pb.ServerMetadataResponse(
            name=name, version=self._runtime.version, extensions=list(inference.EXTENSIONS)
        )

    async def _model_metadata(self, message: Any, options: RequestOptions) -> Any:
        document = inference.describe_model(self._runtime, self._check(message.name, message.version))
        tensor = pb.ModelMetadataResponse.TensorMetadata
        return pb.ModelMetadataResponse(
            name=document["name"],
            versions=document["versions"],
            platform=document["platform"],
            inputs=[tensor(**one) for one in document["inputs"]],
            outputs=[tensor(**one) for one in document["outputs"]],
        )

    async def _infer(self, message: Any, options: RequestOptions) -> Any:
        runtime = self._runtime
        model = self._check(message.model_name, message.model_version)
        document, _ = await inference.infer(runtime, model, _document(message), options)
        raw = bool(message.raw_input_contents)
        answer = pb.ModelInferResponse(model_name=runtime.name, model_version=runtime.version, id=document["id"])
        for tensor in document["outputs"]:
            out = answer.outputs.add(name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"])
            if raw:
                answer.raw_output_contents.append(oip_binary.encode(tensor["datatype"], tensor["data"]))
            elif tensor["datatype"] == "BYTES":
                out.contents.bytes_contents.extend(value.encode("utf-8", "replace") for value in tensor["data"])
            else:
                getattr(out.contents, _CONTENTS[tensor["datatype"]]).extend(tensor["data"])
        return answer

    def _check(self, name: str, version: str) -> Any:
        model = self._runtime.model()
        given = {"name": name} | ({"version": version} if version else {})
        inference.check_address(self._runtime, given)
        return model


def _document(message: Any) -> dict[str, Any]:
    """The same request as the JSON document that HTTP carries."""
    raw = list(message.raw_input_contents)
    if raw and len(raw) != len(message.inputs):
        detail = f"{len(raw)} raw contents for {len(message.inputs)} tensors"
        raise Problem(400, "bad-tensor", "not an Open Inference Protocol v2 request", detail)
    inputs = []
    for index, one in enumerate(message.inputs):
        where = f"inputs[{index}]"
        data = oip_binary.decode(one.datatype, raw[index], where) if raw else _contents(one, where)
        inputs.append({"name": one.name, "datatype": one.datatype, "shape": list(one.shape), "data": data})
    document: dict[str, Any] = {"inputs": inputs, "outputs": [{"name": one.name} for one in message.outputs]}
    if message.id:
        document["id"] = message.id
    if message.parameters:
        document["parameters"] = {key: MessageToDict(value) for key, value in message.parameters.items()}
    return document


def _contents(tensor: Any, where: str) -> list[Any]:
    field = _CONTENTS.get(tensor.datatype)
    if field is None:
        got = tensor.datatype[:16] if tensor.datatype.isalnum() else "something else"
        raise Problem(
            400, "bad-tensor", "not an Open Inference Protocol v2 request", errors=[(f"{where}.datatype", f"got {got}")]
        )
    return list(getattr(tensor.contents, field))

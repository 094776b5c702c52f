"""The part of the OpenAPI document about ``/v2``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from services.oip.tensors import DATATYPES
from services.server.openapi import operation, schema

_OBJECT = {"type": "object"}
_INFER = {"$ref": "#/components/schemas/InferRequest"}


class InferTensor(BaseModel):
    name: str
    shape: list[int]
    datatype: Literal[tuple(sorted({"FP32", "INT32", *DATATYPES.values()}))]  # type: ignore[valid-type]
    data: list[Any]


class RequestedOutput(BaseModel):
    name: str


class _InferRequest(BaseModel):
    id: str = ""
    inputs: list[InferTensor]
    outputs: list[RequestedOutput] = Field([], description="all when left out")


def v2_schemas(_: Any) -> dict[str, Any]:
    """The schema of a request for inference."""
    return schema("InferRequest", _InferRequest)


def v2_paths(_: Any) -> dict[str, Any]:
    """The paths of the protocol."""
    paths = {
        "/v2": {"get": operation("Server metadata", "v2_server", _OBJECT)},
        "/v2/health/live": {"get": operation("Server liveness", "v2_live", _OBJECT)},
        "/v2/health/ready": {"get": operation("Server readiness", "v2_ready", _OBJECT)},
    }
    for root, suffix in (("/v2/models/{name}", ""), ("/v2/models/{name}/versions/{version}", "_version")):
        named = [
            {"name": part, "in": "path", "required": True, "schema": {"type": "string"}}
            for part in ("name", "version")
            if f"{{{part}}}" in root
        ]
        paths[root] = {"parameters": named, "get": operation("Model metadata", f"v2_model{suffix}", _OBJECT)}
        paths[f"{root}/ready"] = {
            "parameters": named,
            "get": operation("Model readiness", f"v2_model_ready{suffix}", _OBJECT),
        }
        paths[f"{root}/infer"] = {
            "parameters": named,
            "post": operation("Infer (Open Inference Protocol v2)", f"v2_infer{suffix}", _OBJECT, _INFER),
        }
    return paths

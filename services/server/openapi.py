"""The OpenAPI document of one served model, with its own fields, and the page that shows it.

BentoML's page loads a tag manager from the internet, and its document does not know mounted routes. Ours is written
from the bundle's signature, and the page uses only files that BentoML ships.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from services.batching.terms import PRIORITIES
from services.errors import MEDIA_TYPE, Problem
from services.model.columns import UNBOUNDED, Field
from services.model.forms import Form
from services.model.scoring import Model
from services.oip import tensors as oip
from services.server.http import Answer, Request, Route
from services.server.lifecycle import Runtime
from services.server.predict import MAX_REASONS

_JSON_TYPES = {"float64": "number", "int64": "integer", "bool": "boolean", "string": "string", "bytes": "string"}
_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="  # a black PNG
_ASSETS = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}
_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<link rel="stylesheet" href="{root}assets/swagger-ui.css"></head><body><div id="ui"></div>
<script src="{root}assets/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({{url: "{root}openapi.json", dom_id: "#ui", validatorUrl: null}})</script></body></html>
"""


def docs_routes(runtime: Runtime) -> list[Route]:
    """The document under two names, the page, and the page's files."""

    async def document(request: Request) -> Answer:
        return Answer(orjson.dumps(describe(runtime)))

    async def page(request: Request) -> Answer:
        title = f"{runtime.name or runtime.modality} {runtime.version}"
        root = "../" if request.scope["path"].endswith("/docs/") else "./"
        return Answer(_PAGE.format(title=title, root=root).encode(), media="text/html; charset=utf-8")

    async def asset(request: Request) -> Answer:
        from bentoml._internal import server

        name = request.params["file"]
        file = Path(server.__file__).parent / "static_content" / name
        if name not in _ASSETS or not file.exists():
            raise Problem(404, "not-found", "no such file")
        return Answer(file.read_bytes(), media=_ASSETS[name], headers=(("cache-control", "max-age=86400"),))

    pages = [Route(path, {"GET": page}) for path in ("/", "/docs")]
    documents = [Route(path, {"GET": document}) for path in ("/openapi.json", "/docs.json")]
    return [*pages, *documents, Route("/assets/{file}", {"GET": asset})]


def describe(runtime: Runtime) -> dict[str, Any]:
    """The OpenAPI 3.1 document.

    Raises:
        Problem: 503 while no model is loaded.
    """
    model = runtime.model()
    document = model.bundle.document
    keys: dict[str, Any] = {"security": [{name: []} for name in _SECURITY]} if runtime.keys is not None else {}
    return {
        **keys,
        "openapi": "3.1.0",
        "info": {
            "title": f"{runtime.name} ({document.task}, {runtime.modality})",
            "version": runtime.version,
            "description": f"Recipe {document.recipe}; {model.serving.summary(model.output)}.",
        },
        "paths": {**_predict_paths(runtime, model), **_v2_paths(), **_operations_paths()},
        "components": {
            "schemas": {**_prediction(model), "Problem": _PROBLEM, "Reason": _REASON},
            "securitySchemes": _SECURITY,
        },
    }


def _predict_paths(runtime: Runtime, model: Model) -> dict[str, Any]:
    forms = [form for form in (model.forms.raw, model.forms.direct) if form is not None]
    instances = [
        {"type": "array", "items": _instance(form), "minItems": 1, "maxItems": runtime.settings.max_instances}
        for form in forms
    ]
    request = {
        "type": "object",
        "required": ["instances"],
        "additionalProperties": False,
        "properties": {
            "instances": instances[0] if len(instances) == 1 else {"anyOf": instances},
            "explain": {
                "description": "how many reason codes each prediction gets",
                "anyOf": [{"type": "boolean"}, {"type": "integer", "minimum": 0, "maximum": MAX_REASONS}],
            },
        },
        "example": {"instances": [{item.name: _example(item) for item in forms[0].fields}]},
    }
    answer = {
        "type": "object",
        "required": ["model", "version", "predictions"],
        "properties": {
            "model": {"type": "string"},
            "version": {"type": "string"},
            "predictions": {"type": "array", "items": {"$ref": "#/components/schemas/Prediction"}},
        },
    }
    operation = _operation("Predict", "predict", answer, request)
    if model.files is not None:
        operation["requestBody"]["content"] |= _files(model.forms.direct.fields[0].name)
    return {"/predict": {"post": operation}}


def _files(name: str) -> dict[str, Any]:
    """The other ways to send files: as a form, or one as the whole body."""
    file = {"type": "string", "format": "binary"}
    properties = {part: {"type": "array", "items": file} for part in dict.fromkeys(("file", name))}
    form = {"type": "object", "additionalProperties": False, "minProperties": 1, "properties": properties}
    raw = {media: {"schema": file} for media in ("application/octet-stream", "image/*")}
    return {"multipart/form-data": {"schema": form}, **raw}


def _instance(form: Form) -> dict[str, Any]:
    return {
        "type": "object",
        "title": "entity keys and request fields" if form.name == "raw" else "all inputs of the model",
        "additionalProperties": False,
        "required": [item.name for item in form.fields if item.name not in form.optional],
        "properties": {item.name: _property(item) for item in form.fields},
    }


def _property(item: Field) -> dict[str, Any]:
    schema: dict[str, Any] = {"description": item.description} if item.description else {}
    if item.kind == "entity":
        return {**schema, "type": ["string", "integer"]}
    if item.kind == "timestamp":
        return {**schema, "type": ["string", "null"], "format": "date-time"}
    if item.dtype == "bytes":
        return {**schema, "type": "string", "contentEncoding": "base64", "minLength": 4}
    schema["type"] = [_JSON_TYPES[item.dtype], "null"]
    if item.dtype == "string":
        schema["maxLength"] = item.max_chars
    if item.categories is not None:
        schema["x-known-values"] = sorted(item.categories)[:100]
    for key, limit in (("x-minimum", item.minimum), ("x-maximum", item.maximum)):
        if abs(limit) != UNBOUNDED:
            schema[key] = limit
    return schema


def _example(item: Field) -> Any:
    if item.kind == "timestamp":
        return "2026-02-01T10:00:00Z"
    if item.kind == "entity":
        return "1"
    if item.dtype == "string":
        return min(item.categories) if item.categories else "text"
    if item.dtype == "bytes":
        return _PIXEL
    floor = item.minimum if abs(item.minimum) != UNBOUNDED else 1
    return {"float64": float(floor), "int64": int(floor), "bool": True}[item.dtype]


def _prediction(model: Model) -> dict[str, Any]:
    """The schema of an answer to one row, from the problem's model of it, and those that it refers to."""
    answer = model.problem.answer_model(model.output).model_json_schema(ref_template="#/components/schemas/{model}")
    others = answer.pop("$defs", {})
    properties = {
        "id": {"type": "string", "description": "joins a label to this prediction later"},
        **answer.get("properties", {}),
        "reasons": {"type": "array", "items": {"$ref": "#/components/schemas/Reason"}},
        "flags": {
            "type": "array",
            "items": {"type": "string"},
            "description": "missing:F, out_of_range:F, unknown_category:F of a field; "
            "not_found:V, outside_max_age:V of a feature view, whose defaults were used",
        },
    }
    required = ["id", *answer.get("required", []), "flags"]
    return {**others, "Prediction": {**answer, "title": "Prediction", "properties": properties, "required": required}}


_REASON = {
    "type": "object",
    "required": ["feature", "value", "contribution"],
    "properties": {
        "feature": {"type": "string"},
        "value": {"type": ["number", "string", "null"]},
        "contribution": {"type": "number", "description": "log-odds towards the positive or predicted class"},
    },
}
_PROBLEM = {
    "type": "object",
    "description": "RFC 9457",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "fix": {"type": "string"},
        "error": {"type": "string", "description": "the same in one line, for /v2"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "message"],
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}
_HEADERS = (
    "Headers, all optional: x-request-timeout-ms (how long the client waits; 504 after that, 503 at once when the "
    "queue is too long for it), x-request-deadline (the same as a moment, in seconds since 1970), x-request-priority "
    f"({', '.join(PRIORITIES)}: who goes first while requests wait)."
)
_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}
_OBJECT = {"type": "object"}
_TENSOR = {
    "type": "object",
    "required": ["name", "shape", "datatype", "data"],
    "properties": {
        "name": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "datatype": {"enum": sorted({"FP32", "INT32", *oip.DATATYPES.values()})},
        "data": {"type": "array"},
    },
}


def _v2_paths() -> dict[str, Any]:
    infer = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "inputs": {"type": "array", "items": _TENSOR},
            "outputs": {"type": "array", "items": {"type": "object", "required": ["name"]}},
        },
    }
    paths = {
        "/v2": {"get": _operation("Server metadata", "v2_server", _OBJECT)},
        "/v2/health/live": {"get": _operation("Server liveness", "v2_live", _OBJECT)},
        "/v2/health/ready": {"get": _operation("Server readiness", "v2_ready", _OBJECT)},
    }
    for root, suffix in (("/v2/models/{name}", ""), ("/v2/models/{name}/versions/{version}", "_version")):
        named = [
            {"name": part, "in": "path", "required": True, "schema": {"type": "string"}}
            for part in ("name", "version")
            if f"{{{part}}}" in root
        ]
        paths[root] = {"parameters": named, "get": _operation("Model metadata", f"v2_model{suffix}", _OBJECT)}
        paths[f"{root}/ready"] = {
            "parameters": named,
            "get": _operation("Model readiness", f"v2_model_ready{suffix}", _OBJECT),
        }
        paths[f"{root}/infer"] = {
            "parameters": named,
            "post": _operation("Infer (Open Inference Protocol v2)", f"v2_infer{suffix}", _OBJECT, infer),
        }
    return paths


def _operations_paths() -> dict[str, Any]:
    text = {"200": {"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}}}
    refused = {"503": _failure("Not ready, with the reason")}
    return {
        "/startupz": {
            "get": {"summary": "The model is proven", "operationId": "startupz", "responses": {**text, **refused}}
        },
        "/livez": {"get": {"summary": "The process can answer", "operationId": "livez", "responses": text}},
        "/readyz": {
            "get": {"summary": "New requests are welcome", "operationId": "readyz", "responses": {**text, **refused}}
        },
        "/metrics": {"get": {"summary": "Prometheus metrics", "operationId": "metrics", "responses": text}},
    }


def _operation(summary: str, name: str, answer: dict[str, Any], request: dict[str, Any] | None = None) -> Any:
    operation: dict[str, Any] = {
        "summary": summary,
        "operationId": name,
        "responses": {
            "200": {"description": "OK", "content": {"application/json": {"schema": answer}}},
            "default": _failure("Refused or failed"),
        },
    }
    if request is not None:
        operation["description"] = _HEADERS
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": request}}}
    return operation


def _failure(description: str) -> dict[str, Any]:
    return {"description": description, "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}

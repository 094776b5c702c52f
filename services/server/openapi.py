"""The OpenAPI document of one served model, with its own fields, and the page that shows it.

BentoML's page loads a tag manager from the internet, and its document does not know mounted routes. Ours is put
together from the APIs of the modality, and the page uses only files that BentoML ships.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, Field

from services.errors import MEDIA_TYPE, Problem
from services.request_options import PRIORITIES
from services.server.lifecycle import Runtime
from services.server.requests import Answer, Request, Route

_HEADERS = (
    "Headers, all optional: x-request-timeout-ms (how long the client waits; 504 after that, 503 at once when the "
    "queue is too long for it), x-request-deadline (the same as a moment, in seconds since 1970), x-request-priority "
    f"({', '.join(PRIORITIES)}: who goes first while requests wait)."
)
_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}
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
        title = f"{runtime.name or runtime.modality.name} {runtime.version}"
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


class FieldError(BaseModel):
    field: str
    message: str


class _Problem(BaseModel):
    """RFC 9457."""

    type: str = Field(json_schema_extra={"format": "uri"})
    title: str
    status: int
    detail: str = ""
    fix: str = ""
    error: str = Field("", description="the same in one line, for /v2")
    errors: list[FieldError] = []


def describe(runtime: Runtime) -> dict[str, Any]:
    """The OpenAPI 3.1 document.

    Raises:
        Problem: 503 while no model is loaded.
    """
    document = runtime.opened().document
    apis = runtime.modality.apis
    keys: dict[str, Any] = {"security": [{name: []} for name in _SECURITY]} if runtime.keys is not None else {}
    schemas = schema("Problem", _Problem)
    for api in apis:
        schemas |= api.schemas(runtime)
    return {
        **keys,
        "openapi": "3.1.0",
        "info": {
            "title": f"{runtime.name} ({document.task}, {runtime.modality.name})",
            "version": runtime.version,
            "description": "; ".join(filter(None, (f"Recipe {document.recipe}", runtime.describe()))) + ".",
        },
        "paths": {path: item for api in apis for path, item in api.paths(runtime).items()} | _operations_paths(),
        "components": {"schemas": schemas, "securitySchemes": _SECURITY},
    }


def schema(name: str, model: type[BaseModel]) -> dict[str, Any]:
    """The schemas of a pydantic model, called `name`, and of those that it refers to, for `Api.schemas`."""
    made = model.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**made.pop("$defs", {}), name: {**made, "title": name}}


def operation(summary: str, name: str, answer: dict[str, Any], request: dict[str, Any] | None = None) -> Any:
    """An operation of the document; `answer` and `request` are schemas of JSON bodies."""
    made: dict[str, Any] = {
        "summary": summary,
        "operationId": name,
        "responses": {
            "200": {"description": "OK", "content": {"application/json": {"schema": answer}}},
            "default": _failure("Refused or failed"),
        },
    }
    if request is not None:
        made["description"] = _HEADERS
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": request}}}
    return made


def _failure(description: str) -> dict[str, Any]:
    return {"description": description, "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}


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

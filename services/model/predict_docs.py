"""The part of the OpenAPI document about ``POST /predict``: the fields of the model, and its problem's answers."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from contracts.decoding import Sampling
from contracts.out_of_distribution import ABSTAIN, OOD
from services.model.columns import UNBOUNDED
from services.model.columns import Field as Column
from services.model.request_schema import RequestSchema
from services.model.runtime import RowRuntime
from services.server.openapi import operation, schema

MAX_REASONS = 50
_JSON_TYPES = {"float64": "number", "int64": "integer", "bool": "boolean", "string": "string", "bytes": "string"}
_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="  # a black PNG
_PRINCIPAL = {
    "type": "array",
    "maxItems": 4,
    "description": "with explain, of an unfavourable answer: what counted most against, in words for whom it is about",
    "items": {
        "type": "object",
        "required": ["feature", "en", "zh"],
        "properties": {name: {"type": "string"} for name in ("feature", "en", "zh")},
    },
}

_COUNTERFACTUAL = {
    "type": "object",
    "description": "of an unfavourable answer: the least change that was found with which it would be favourable",
    "required": ["possible", "changes"],
    "properties": {
        "possible": {"type": "boolean"},
        "changes": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["feature", "from", "to"],
                "properties": {
                    "feature": {"type": "string"},
                    "from": {"type": ["number", "string", "null"]},
                    "to": {"type": ["number", "string"]},
                },
            },
        },
    },
}


_OOD = {
    OOD: {"type": "number", "description": "how far it is from what the model has learned from; 1 is the limit"},
    ABSTAIN: {"type": "boolean", "description": "it is beyond the limit: the answer is not to be relied on"},
}


class _Reason(BaseModel):
    feature: str
    value: float | str | None
    contribution: float = Field(description="log-odds towards the positive or predicted class")


def predict_paths(runtime: RowRuntime) -> dict[str, Any]:
    """The path ``/predict``."""
    model = runtime.model()
    schemas = [one for one in (model.schemas.by_entity, model.schemas.by_features) if one is not None]
    instances = [
        {"type": "array", "items": _instance(one), "minItems": 1, "maxItems": runtime.settings.max_instances}
        for one in schemas
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
        "example": {"instances": [{item.name: _example(item) for item in schemas[0].fields}]},
    }
    if model.counterfactuals is not None:
        asked = {"type": "boolean", "description": "whether a refusal says with which change it would be none"}
        request["properties"]["counterfactual"] = asked  # type: ignore[index]
    if model.rows.sampling is not None:
        about = "lets answers be drawn by chance, as this says; what is left out is as the model's recipe has it"
        request["properties"]["sampling"] = _sampling() | {"description": about}  # type: ignore[index]
    answer = {
        "type": "object",
        "required": ["model", "version", "predictions"],
        "properties": {
            "model": {"type": "string"},
            "version": {"type": "string"},
            "predictions": {"type": "array", "items": {"$ref": "#/components/schemas/Prediction"}},
        },
    }
    predict = operation("Predict", "predict", answer, request)
    predict["requestBody"]["content"] |= model.rows.bodies(model.schemas.by_features)
    return {"/predict": {"post": predict}}


def _sampling() -> dict[str, Any]:
    """Its schema without defaults, which are the recipe's."""
    found = Sampling.model_json_schema()
    properties = {
        name: {key: value for key, value in one.items() if key not in ("default", "title")}
        for name, one in found["properties"].items()
    }
    return {"type": ["object", "null"], "additionalProperties": False, "properties": properties}


def _instance(given: RequestSchema) -> dict[str, Any]:
    return {
        "type": "object",
        "title": "entity keys and request fields" if given.name == "by_entity" else "all inputs of the model",
        "additionalProperties": False,
        "required": [item.name for item in given.fields if item.name not in given.optional],
        "properties": {item.name: _property(item) for item in given.fields},
    }


def _property(item: Column) -> dict[str, Any]:
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


def _example(item: Column) -> Any:
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


def predict_schemas(runtime: RowRuntime) -> dict[str, Any]:
    """The schemas of an answer to one row, from the problem's model of it, and of those that it refers to."""
    model = runtime.model()
    found = schema("Prediction", model.problem.answer_model(model.output))
    answer = found["Prediction"]
    properties = {
        "id": {"type": "string", "description": "joins a label to this prediction later"},
        **answer.get("properties", {}),
        "reasons": {"type": "array", "items": {"$ref": "#/components/schemas/Reason"}},
        **({"principal_reasons": _PRINCIPAL} if model.principal else {}),
        **({"counterfactual": _COUNTERFACTUAL} if model.counterfactuals else {}),
        **(_OOD if model.abstaining else {}),
        "flags": {
            "type": "array",
            "items": {"type": "string"},
            "description": "missing:F, out_of_range:F, unknown_category:F of a field; "
            "not_found:V, outside_max_age:V of a feature view, whose defaults were used; out_of_distribution",
        },
    }
    required = ["id", *answer.get("required", []), *(_OOD if model.abstaining else ()), "flags"]
    answer |= {"properties": properties, "required": required}
    return {**found, **schema("Reason", _Reason)}

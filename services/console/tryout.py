"""The form to try a model: fields by kind of input, made from the signature, and what they become in a request."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from contracts.bundle import Input, Signature
from services.console.documents import Answer, ModelPage
from services.console.rendering import page
from services.console.source import Source

_LONG = ("text", "content", "body", "description", "message", "review", "title")


@dataclass(frozen=True, kw_only=True)
class FormField:
    """One field of the form.

    Attributes:
        kind: number, whole, yes_no, choice, text, entity, time or file.
        error: what is wrong with the value that was sent.
    """

    name: str
    kind: str
    value: str = ""
    choices: Sequence[str] = ()
    minimum: float | None = None
    maximum: float | None = None
    hint: str = ""
    error: str = ""


def fields_of(signature: Signature, *, by_entity: bool) -> list[FormField]:
    """The fields of a request: entity keys and what only the caller knows, or all inputs."""
    if not by_entity:
        return [_field(item) for item in signature.inputs]
    given = {item.name: item for item in signature.inputs if item.source == "request"}
    given.update({item.name: item for item in signature.request})
    fields = [FormField(name=name, kind="entity") for name in signature.entities]
    fields += [_field(item) for item in given.values() if item.name != signature.timestamp]
    return [*fields, *([FormField(name=signature.timestamp, kind="time")] if signature.timestamp else [])]


def has_entities(signature: Signature) -> bool:
    """Whether the endpoint looks features up by entity keys."""
    return bool(signature.entities or signature.request)


def _field(item: Input) -> FormField:
    kinds = {"float64": "number", "int64": "whole", "bool": "yes_no", "bytes": "file", "string": "text"}
    kind = "choice" if item.categories else kinds[item.dtype]
    value = "" if item.default is None else str(item.default)
    return FormField(
        name=item.name, kind=kind, value=value, choices=item.categories or (), minimum=item.minimum,
        maximum=item.maximum, hint=item.description,
    )  # fmt: skip


def instance_of(fields: Sequence[FormField], given: Mapping[str, Any]) -> tuple[dict[str, Any], list[FormField]]:
    """The JSON object that was meant, and the fields with their values and what is wrong with them."""
    instance: dict[str, Any] = {}
    filled = []
    for field in fields:
        raw = given.get(field.name, "")
        text = raw if isinstance(raw, str) else ""
        try:
            value = base64.b64encode(raw).decode() if isinstance(raw, bytes) else _value(field.kind, text)
            error = ""
        except ValueError as err:
            value, error = None, str(err)
        if not (field.kind == "time" and value is None):
            instance[field.name] = value
        filled.append(replace(field, value=text, error=error))
    return instance, filled


def _value(kind: str, text: str) -> Any:
    """What a field's text means; "" means: not known.

    Raises:
        ValueError: a text of the catalogue.
    """
    if kind == "text":
        return text
    stripped = text.strip()
    if not stripped:
        return None
    if kind == "yes_no":
        return stripped == "true"
    if kind == "whole":
        try:
            return int(stripped)
        except ValueError:
            raise ValueError("Write a whole number.") from None
    if kind == "number":
        try:
            number = float(stripped)
        except ValueError:
            raise ValueError("Write a number.") from None
        if not math.isfinite(number):
            raise ValueError("Write a number.")
        return number
    if kind == "entity" and stripped.lstrip("-").isdecimal() and str(int(stripped)) == stripped:
        return int(stripped)
    return text


def _model(request: Request) -> tuple[ModelPage, Signature]:
    source: Source = request.app.state.source
    found = source.model(request.path_params["name"])
    if found is None or found.signature is None:
        raise HTTPException(404)
    return found, found.signature


def form(request: Request) -> Response:
    """The empty form."""
    found, signature = _model(request)
    by_entity = has_entities(signature) and request.query_params.get("by") != "features"
    fields = [_filled(field, found.example) for field in fields_of(signature, by_entity=by_entity)]
    return _shown(request, found, signature, fields, by_entity)


def _filled(field: FormField, example: Mapping[str, Any]) -> FormField:
    """A field with the example's value; a long text or a file is not one to begin with."""
    value = example.get(field.name)
    if value is None or field.kind == "file" or len(str(value)) > 2000:
        return field
    return replace(field, value=str(value).lower() if isinstance(value, bool) else str(value))


async def ask(request: Request) -> Response:
    """Send what was filled in to the endpoint, and show what it says."""
    sent = await request.form(max_files=20, max_fields=2000)
    given: dict[str, Any] = {}
    for name, value in sent.multi_items():
        given[name] = await value.read() if isinstance(value, UploadFile) else value
    return await run_in_threadpool(_ask, request, {name[2:]: v for name, v in given.items() if name[:2] == "f."}, given)


def _ask(request: Request, values: Mapping[str, Any], given: Mapping[str, Any]) -> Response:
    found, signature = _model(request)
    by_entity = has_entities(signature) and given.get("by") != "features"
    instance, fields = instance_of(fields_of(signature, by_entity=by_entity), values)
    explain = given.get("explain") == "on"
    if any(field.error for field in fields):
        return _shown(request, found, signature, fields, by_entity, explain=explain, status=422)
    source: Source = request.app.state.source
    answer = source.predict(found.model.name, instance, explain, str(given.get("key") or "").strip())
    fields, rest = placed(fields, answer.errors)
    answer = replace(answer, errors=rest)
    status = 200 if answer.status == 200 else 422 if 400 <= answer.status < 500 else 502
    return _shown(request, found, signature, fields, by_entity, answer=answer, explain=explain, status=status)


def placed(
    fields: Sequence[FormField], errors: Sequence[tuple[str, str]]
) -> tuple[list[FormField], list[tuple[str, str]]]:
    """The endpoint's errors beside the fields that they are about; second, those about none."""
    by_name: dict[str, str] = {}
    rest = []
    names = {field.name for field in fields}
    for where, message in errors:
        name = where.removeprefix("instances[0].")
        if name in names:
            by_name.setdefault(name, message)
        else:
            rest.append((where, message))
    return [replace(field, error=by_name.get(field.name, "")) for field in fields], rest


def _shown(
    request: Request,
    found: ModelPage,
    signature: Signature,
    fields: Sequence[FormField],
    by_entity: bool,
    *,
    answer: Answer | None = None,
    explain: bool = False,
    status: int = 200,
) -> Response:
    values = {
        "section": "models",
        "page": found,
        "fields": fields,
        "by_entity": by_entity,
        "both": has_entities(signature),
        "answer": answer,
        "facts": facts_of(answer) if answer else [],
        "explain": explain,
        "long": _LONG,
        "files": any(field.kind == "file" for field in fields),
        "ask_key": not found.key_known or (answer is not None and answer.status == 401),
        "wrong": sum(bool(field.error) for field in fields),
    }
    return page(request, "try", values, status)


def facts_of(answer: Answer) -> list[tuple[str, Any]]:
    """What a prediction says beside reasons, flags and shares, in its order; long lists are cut."""
    left_out = ("reasons", "flags", "probabilities")
    return [(name, _plain(value)) for name, value in answer.prediction.items() if name not in left_out]


def _plain(value: Any) -> Any:
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        return value
    if isinstance(value, list) and len(value) > 8:
        return f"{json.dumps(value[:6])[:-1]}, … ({len(value)})"
    return json.dumps(value, ensure_ascii=False)

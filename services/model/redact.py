"""``POST /redact``: texts without personal data, for who is about to send or keep them; no model is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import orjson

from contracts.errors import PlatformError
from contracts.pii.finders import open_finder
from contracts.pii.finding import NAMES
from contracts.pii.redaction import OPERATORS, Redacted, Redactor, counted
from services.errors import Problem, invalid
from services.server.lifecycle import Api, Runtime
from services.server.openapi import operation
from services.server.requests import Answer, Request, Route

_AT_ONCE = 1_500  # characters, about 2 ms; more is read on a thread of its own
_KEYS = frozenset({"texts", "operator", "kinds"})


class RedactHandler:
    """Serves ``/redact`` of one runtime."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def __call__(self, request: Request) -> Answer:
        """Redact ``{"texts": [...], "operator": "label", "kinds": [...]}``; answers never repeat a value.

        Raises:
            Problem: 409 without the key that an operator needs, 422 for what is no such request.
        """
        texts, redactor = self._asked(await request.json())
        if sum(map(len, texts)) <= _AT_ONCE and redactor.finder is None:
            done = redactor.redact_all(texts)
        else:
            done = await asyncio.to_thread(redactor.redact_all, texts)
        return Answer(orjson.dumps({"results": [_result(one) for one in done], "counts": _counts(done)}))

    def _asked(self, document: Any) -> tuple[list[str], Redactor]:
        settings = self._runtime.settings
        if type(document) is not dict or "texts" not in document or not document.keys() <= _KEYS:
            raise invalid([("(request)", 'expected an object: {"texts": [...], "operator": ..., "kinds": [...]}')])
        texts, operator, kinds = document["texts"], document.get("operator", "label"), document.get("kinds", NAMES)
        errors: list[tuple[str, str]] = []
        if type(texts) is not list or not 0 < len(texts) <= settings.max_instances:
            errors.append(("texts", f"expected a list of 1 to {settings.max_instances} texts"))
            texts = []
        for row, text in enumerate(texts):
            if type(text) is not str:
                errors.append((f"texts[{row}]", "expected a text"))
            elif len(text) > settings.max_text_chars:
                errors.append((f"texts[{row}]", f"longer than {settings.max_text_chars} characters"))
        if operator not in list(OPERATORS):
            errors.append(("operator", f"expected one of: {', '.join(OPERATORS)}"))
        if not isinstance(kinds, list | tuple) or any(kind not in NAMES for kind in kinds):
            errors.append(("kinds", f"expected a list of: {', '.join(NAMES)}"))
        if errors:
            raise invalid(errors)
        return texts, _redactor(operator, tuple(kinds), settings.tagger)


@lru_cache(maxsize=64)
def _redactor(operator: str, kinds: tuple[str, ...], tagger: str) -> Redactor:
    try:
        return Redactor(operator, kinds=kinds, finder=open_finder(tagger))
    except PlatformError as err:
        raise Problem(409, err.code.replace("_", "-"), err.headline, err.detail, fix=err.fix) from err


def _result(done: Redacted) -> dict[str, Any]:
    found = [{"kind": span.kind.name, "start": span.start, "end": span.end} for span in done.found]
    return {"text": done.text, "found": found}


def _counts(done: Sequence[Redacted]) -> dict[str, int]:
    return counted(span for one in done for span in one.found)


def redact_paths(runtime: Runtime) -> dict[str, Any]:
    """The path ``/redact``."""
    settings, text, count = runtime.settings, {"type": "string"}, {"type": "integer", "minimum": 0}
    kind = {"type": "string", "enum": list(NAMES)}
    one = {"type": "string", "maxLength": settings.max_text_chars}
    request = {
        "type": "object",
        "required": ["texts"],
        "additionalProperties": False,
        "properties": {
            "texts": {"type": "array", "items": one, "minItems": 1, "maxItems": settings.max_instances},
            "operator": {"type": "string", "enum": list(OPERATORS), "default": "label"},
            "kinds": {"type": "array", "items": kind, "description": "what is looked for; default: all"},
        },
    }
    span = {"type": "object", "properties": {"kind": kind, "start": count, "end": count}}
    found = {"type": "array", "items": span, "description": "places in the text that was sent, in characters"}
    result = {"type": "object", "required": ["text", "found"], "properties": {"text": text, "found": found}}
    answer = {
        "type": "object",
        "required": ["results", "counts"],
        "properties": {
            "results": {"type": "array", "items": result},
            "counts": {"type": "object", "additionalProperties": count},
        },
    }
    return {"/redact": {"post": operation("Take personal data out of texts", "redact", answer, request)}}


REDACT = Api(
    routes=lambda runtime: [Route("/redact", {"POST": RedactHandler(runtime)})],
    busy=("/redact",),
    paths=redact_paths,
)

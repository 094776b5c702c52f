"""``POST /feedback``: what turned out to be true of predictions, by their ids, days later or at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

import orjson

from contracts.bundle import Signature
from contracts.errors import PlatformError
from services.errors import Problem, invalid, unavailable
from services.feedback.label_writing import write_labels
from services.feedback.records import Label, is_id, known_since
from services.problems import get_serving
from services.server.lifecycle import Api, Runtime
from services.server.openapi import operation
from services.server.requests import Answer, Request, Route

_AN_ID = 'expected the "id" of a prediction, 32 hexadecimal digits'


class FeedbackHandler:
    """Serves ``/feedback`` of one runtime."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def __call__(self, request: Request) -> Answer:
        """Keep ``{"labels": [{"id": ..., "label": ..., "time": ...}]}``, all or none.

        Raises:
            Problem: 409 where labels cannot be kept, 422 for what is no label of the model, 503 when the disk is full.
        """
        runtime = self._runtime
        signature, folder, learned = runtime.opened().document.signature, self._folder(), {}
        document = await request.json()
        counted = runtime.metrics.feedback
        given = document.get("labels") if type(document) is dict else None
        try:
            labels = self._labels(signature, document)
        except Problem:
            counted["refused"].inc(len(given) if type(given) is list else 1)
            raise
        try:
            if folder:
                await asyncio.to_thread(write_labels, folder, runtime.name, labels)
            if runtime.learn is not None:
                learned = {"learned": await asyncio.to_thread(runtime.learn, labels)}
        except PlatformError as err:
            counted["failed"].inc(len(labels))
            raise unavailable(err) from err
        counted["accepted"].inc(len(labels))
        answer = {"model": runtime.name, "version": runtime.version, "accepted": len(labels), **learned}
        return Answer(orjson.dumps(answer))

    def _folder(self) -> str:
        folder = self._runtime.settings.predictions.folder
        if not folder and self._runtime.learn is None:
            raise Problem(
                409,
                "no-prediction-log",
                "this service keeps no predictions that labels could be joined to",
                fix="set predictions.folder of the service to a folder or s3://bucket/prefix",
            )
        return folder

    def _labels(self, signature: Signature, document: Any) -> list[Label]:
        serving = get_serving(signature.problem)
        if serving.label_schema(signature.output) is None:
            raise Problem(409, "no-labels", f"answers of problem {signature.problem.name} take no labels")
        if type(document) is not dict or document.keys() != {"labels"} or type(document["labels"]) is not list:
            raise invalid([("(request)", 'expected an object: {"labels": [...]}')])
        rows, most = document["labels"], self._runtime.settings.max_instances
        if not 0 < len(rows) <= most:
            raise invalid([("labels", f"expected 1 to {most} labels, got {len(rows)}")])
        now = datetime.now(UTC)
        checks: dict[str, Callable[[Any], Any]] = {
            "id": _identifier,
            "label": partial(serving.label, signature.output),
            "time": lambda given: known_since(given, now),
        }
        errors: list[tuple[str, str]] = []
        checked = [_values(f"labels[{row}]", one, checks, errors) for row, one in enumerate(rows)]
        if errors:
            raise invalid(errors)
        return [Label(**values, version=self._runtime.version) for values in checked]


def _values(
    where: str, one: Any, checks: Mapping[str, Callable[[Any], Any]], errors: list[tuple[str, str]]
) -> dict[str, Any]:
    if type(one) is not dict or not {"id", "label"} <= one.keys() <= checks.keys():
        errors.append((where, "expected an object with id, label and, if it is not now, time"))
        return {}
    values: dict[str, Any] = {}
    for name, check in checks.items():
        try:
            values[name] = check(one.get(name))
        except ValueError as err:
            errors.append((f"{where}.{name}", str(err)))
    return values


def _identifier(given: Any) -> str:
    if type(given) is not str or not is_id(given):
        raise ValueError(_AN_ID)
    return given


def feedback_paths(runtime: Runtime) -> dict[str, Any]:
    """The path ``/feedback``, of models whose answers are labelled."""
    signature = runtime.opened().document.signature
    label = get_serving(signature.problem).label_schema(signature.output)
    if label is None:
        return {}
    time = {"type": ["string", "null"], "format": "date-time", "description": "since when it is known; default: now"}
    identifier = {"type": "string", "pattern": "^[0-9a-f]{32}$", "description": "the id that /predict answered"}
    item = {
        "type": "object",
        "additionalProperties": False,
        "required": ["id", "label"],
        "properties": {"id": identifier, "label": label, "time": time},
    }
    many = {"type": "array", "items": item, "minItems": 1, "maxItems": runtime.settings.max_instances}
    request = {
        "type": "object",
        "required": ["labels"],
        "additionalProperties": False,
        "properties": {"labels": many},
    }
    text = {"type": "string"}
    said = "labels that adapters have learned from; others came before, or their answers are not known any more"
    learned = {"learned": {"type": "integer", "description": said}} if runtime.learn is not None else {}
    answer = {
        "type": "object",
        "required": ["model", "version", "accepted"],
        "properties": {"model": text, "version": text, "accepted": {"type": "integer"}, **learned},
    }
    return {"/feedback": {"post": operation("Tell what was true", "feedback", answer, request)}}


FEEDBACK = Api(
    routes=lambda runtime: [Route("/feedback", {"POST": FeedbackHandler(runtime)})],
    busy=("/feedback",),
    paths=feedback_paths,
)

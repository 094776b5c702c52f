"""``POST /feedback``: what turned out to be true of predictions and what people say of them, by their ids."""

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
from services.feedback import annotating
from services.feedback.records import Annotation, Label, is_id, known_since
from services.feedback.writing import write_annotations, write_labels
from services.problems import get_serving
from services.server.lifecycle import Api, Runtime
from services.server.openapi import operation
from services.server.requests import Answer, Request, Route

_A_REQUEST = 'expected an object: {"labels": [...]}, {"annotations": [...]} or both'
_AN_ID = 'expected the "id" of a prediction, 32 hexadecimal digits'


class FeedbackHandler:
    """Serves ``/feedback`` of one runtime."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def __call__(self, request: Request) -> Answer:
        """Keep ``{"labels": [{"id": ..., "label": ..., "time": ...}]}``, ``annotations`` of the same form, or both.

        All that is sent is checked before anything is kept. Annotations are written first: sent again, they are kept
        once.

        Raises:
            Problem: 409 where they cannot be kept, 422 for what is no label of the model or no annotation, 503 when
                the disk is full.
        """
        runtime = self._runtime
        signature, folder, more = runtime.opened().document.signature, self._folder(), dict[str, int]()
        document = await request.json()
        counted = runtime.metrics.feedback
        try:
            rows = self._rows(document)
            labels = self._labels(signature, rows["labels"]) if "labels" in rows else []
            annotations = self._annotations(rows["annotations"], folder) if "annotations" in rows else []
        except Problem:
            counted["refused"].inc(_count(document))
            raise
        try:
            if annotations:
                await asyncio.to_thread(write_annotations, folder, runtime.name, annotations)
                more["annotations"] = len(annotations)
            if labels and folder:
                await asyncio.to_thread(write_labels, folder, runtime.name, labels)
            if labels and runtime.learn is not None:
                more["learned"] = await asyncio.to_thread(runtime.learn, labels)
        except PlatformError as err:
            counted["failed"].inc(len(labels) + len(annotations))
            raise unavailable(err) from err
        counted["accepted"].inc(len(labels) + len(annotations))
        answer = {"model": runtime.name, "version": runtime.version, "accepted": len(labels), **more}
        return Answer(orjson.dumps(answer))

    def _folder(self) -> str:
        folder = self._runtime.settings.predictions.folder
        if not folder and self._runtime.learn is None:
            raise _no_log()
        return folder

    def _rows(self, document: Any) -> dict[str, list[Any]]:
        if type(document) is not dict or not document or not document.keys() <= {"labels", "annotations"}:
            raise invalid([("(request)", _A_REQUEST)])
        most = self._runtime.settings.max_instances
        for name, rows in document.items():
            if type(rows) is not list:
                raise invalid([(name, f"expected a list: {_A_REQUEST}")])
            if not 0 < len(rows) <= most:
                raise invalid([(name, f"expected 1 to {most} {name}, got {len(rows)}")])
        return document

    def _annotations(self, rows: list[Any], folder: str) -> list[Annotation]:
        if not folder:
            raise _no_log()
        now, errors, found = datetime.now(UTC), list[tuple[str, str]](), list[Annotation]()
        for row, one in enumerate(rows):
            try:
                found.append(annotating.checked(one, now, self._runtime.version))
            except ValueError as err:
                name, said = err.args
                errors.append((f"annotations[{row}]{name and '.'}{name}", said))
        if errors:
            raise invalid(errors)
        return found

    def _labels(self, signature: Signature, rows: list[Any]) -> list[Label]:
        serving = get_serving(signature.problem)
        if serving.label_schema(signature.output) is None:
            raise Problem(
                409,
                "no-labels",
                f"answers of problem {signature.problem.name} take no labels",
                fix='say what you have to say of them as {"annotations": [...]}',
            )
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


def _no_log() -> Problem:
    return Problem(
        409,
        "no-prediction-log",
        "this service keeps no predictions that labels or annotations could be joined to",
        fix="set predictions.folder of the service to a folder or s3://bucket/prefix",
    )


def _count(document: Any) -> int:
    """How many labels and annotations a document has that is refused; at least 1."""
    given = document.values() if type(document) is dict else ()
    return max(1, sum(len(rows) for rows in given if type(rows) is list))


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
    """The path ``/feedback``; labels are described for models whose answers have some."""
    signature = runtime.opened().document.signature
    label = get_serving(signature.problem).label_schema(signature.output)
    time = {"type": ["string", "null"], "format": "date-time", "description": "since when it is known; default: now"}
    identifier = {"type": "string", "pattern": "^[0-9a-f]{32}$", "description": "the id that /predict answered"}
    of_chats = {**identifier, "pattern": "^(chatcmpl-|cmpl-)?[0-9a-f]{32}$"}

    def many(name: str, said: Any, of: Any) -> dict[str, Any]:
        members = {"id": of, name: said, "time": time}
        item = {"type": "object", "additionalProperties": False, "required": ["id", name], "properties": members}
        return {"type": "array", "items": item, "minItems": 1, "maxItems": runtime.settings.max_instances}

    request = {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": False,
        "properties": {
            **({} if label is None else {"labels": many("label", label, identifier)}),
            "annotations": many("annotation", annotating.schema(), of_chats),
        },
    }
    text = {"type": "string"}
    said = "labels that adapters have learned from; others came before, or their answers are not known any more"
    learned = {"learned": {"type": "integer", "description": said}} if runtime.learn is not None else {}
    counts = {"accepted": {"type": "integer", "description": "labels"}, "annotations": {"type": "integer"}}
    answer = {
        "type": "object",
        "required": ["model", "version", "accepted"],
        "properties": {"model": text, "version": text, **counts, **learned},
    }
    return {
        "/feedback": {"post": operation("Tell what was true, or what there is to say", "feedback", answer, request)}
    }


FEEDBACK = Api(
    routes=lambda runtime: [Route("/feedback", {"POST": FeedbackHandler(runtime)})],
    busy=("/feedback",),
    paths=feedback_paths,
)

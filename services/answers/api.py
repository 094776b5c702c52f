"""``POST /answer``: a question of somebody with labels, and the answer with the passages that it rests on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from contracts import orders
from contracts.problems.answering import SEPARATOR, Answered, document_of
from contracts.written_answers import messages, written
from services.answers.writer import Writer, WriterFailedError
from services.errors import checked_members, invalid
from services.model.predict import record, run
from services.model.request_schema import Batch
from services.model.scoring import Model, Scored
from services.server.lifecycle import Api
from services.server.openapi import operation
from services.server.requests import Answer, Request, Route
from services.server.streams import server_sent, unless_gone

if TYPE_CHECKING:
    from services.answers.runtime import AnswersRuntime

_QUESTION, _LABEL, _LABELS = 4000, 256, 1000  # characters, and how many
ORDER = "order"  # flag: the question orders the model to forget what it was told
QUOTED = "quoted"  # flag: what a chat model wrote was not taken, with the reason behind a colon


class AnswerHandler:
    """Serves ``/answer`` of one runtime."""

    def __init__(self, runtime: AnswersRuntime) -> None:
        self._runtime = runtime

    async def __call__(self, request: Request) -> Answer:
        """Answer ``{"question", "labels", "k", "stream"}``; only the question is needed."""
        runtime, model = self._runtime, self._runtime.model()
        document = await request.json()
        start = perf_counter()
        batch, stream = self._batch(model, document)
        runtime.metrics.stage["decode"].observe(perf_counter() - start)
        scored = await run(runtime, model, batch, 0, request.options)
        work = _Work(runtime, model, batch, scored, request.options.arrived)
        if stream:
            return server_sent(work.events())
        return Answer(orjson.dumps(await unless_gone(request.receive, work.whole())))

    def _batch(self, model: Model, document: Any) -> tuple[Batch, bool]:
        """The row that a request means, and whether it wants a stream.

        Raises:
            Problem: 422, naming every member that is wrong.
        """
        if type(document) is not dict:
            raise invalid([("(request)", 'expected an object, such as {"question": "...", "labels": ["staff"]}')])
        output: Any = model.output
        checks: dict[str, Callable[[Any], Any]] = {
            "question": _question,
            "labels": _labels,
            "k": lambda given: _count(given, output.longest),
            "stream": _yes,
        }
        values = checked_members(document, checks)
        k = output.k if values["k"] is None else values["k"]
        given = {"question": [values["question"]], "labels": [values["labels"]], "k": [k]}
        batch = model.schemas.by_features.batch(given, where="{name}")
        if any(pattern.search(values["question"]) for pattern in orders.PATTERNS.values()):
            batch.flags[0].append(ORDER)
        return batch, values["stream"]


class _Work:
    """One question that was searched for, on its way to an answer."""

    def __init__(self, runtime: AnswersRuntime, model: Model, batch: Batch, scored: Scored, arrived: float) -> None:
        self._runtime, self._model, self._batch, self._scored = runtime, model, batch, scored
        self._arrived = arrived
        self._found: Answered = scored.answers[0]

    async def whole(self) -> dict[str, Any]:
        """The answer as one document."""
        last: dict[str, Any] = {}
        async for event in self.events():
            last = event
        return {name: value for name, value in last.items() if name != "done"}

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """First the passages, then pieces of the answer, and last the whole of it, which is what counts."""
        found, writer = self._found, self._runtime.writer
        first = document_of(found)
        yield {name: first[name] for name in ("found", "confidence", "passages")}
        if writer is not None and found.found:
            pieces: list[str] = []
            try:
                async for piece in self._written(writer):
                    pieces.append(piece)
                    yield {"delta": piece}
                self._take("".join(pieces))
            except WriterFailedError:
                self._batch.flags[0].append(f"{QUOTED}:failed")
        elif found.text:
            yield {"delta": found.text}
        yield {**self._document(), "done": True}

    async def _written(self, writer: Writer) -> AsyncIterator[str]:
        question = str(self._batch.columns["question"][0])
        passages, settings = self._found.passages, self._runtime.settings.writer
        asked = messages(question, passages[: settings.passages], settings.passage_characters)
        async for piece in writer.pieces(asked):
            yield piece

    def _take(self, text: str) -> None:
        found, limit = self._found, self._runtime.settings.writer.passages
        answer, why = written(text, str(self._batch.columns["question"][0]), found, found.passages[:limit])
        if why:
            self._batch.flags[0].append(f"{QUOTED}:{why}" if answer.found else "not_found")
        answers = np.empty(1, dtype=object)
        answers[0] = answer
        self._scored = replace(self._scored, answers=answers, decided=[answer.text])

    def _document(self) -> dict[str, Any]:
        start = perf_counter()
        identifier = record(self._runtime, self._model, self._batch, self._scored, self._arrived)[0]
        document = {
            "model": self._runtime.name,
            "version": self._runtime.version,
            "id": identifier,
            **document_of(self._scored.answers[0]),
            "flags": self._batch.flags[0],
        }
        self._runtime.metrics.stage["encode"].observe(perf_counter() - start)
        return document


def _question(given: Any) -> str:
    if type(given) is not str or not given.strip() or len(given) > _QUESTION:
        raise ValueError(f"expected a text of 1 to {_QUESTION} characters")
    return given


def _labels(given: Any) -> str:
    if given is None:
        return ""
    if type(given) is not list or len(given) > _LABELS:
        raise ValueError(f"expected a list of at most {_LABELS} labels")
    if any(type(one) is not str or not one.strip() or len(one) > _LABEL or SEPARATOR in one for one in given):
        raise ValueError(f"expected labels of 1 to {_LABEL} characters without {SEPARATOR}")
    return SEPARATOR.join(given)


def _count(given: Any, longest: int) -> int | None:
    if given is not None and (type(given) is not int or not 1 <= given <= longest):
        raise ValueError(f"expected a whole number from 1 to {longest}")
    count: int | None = given
    return count


def _yes(given: Any) -> bool:
    if given is not None and type(given) is not bool:
        raise ValueError("expected true or false")
    return bool(given)


def answer_paths(runtime: AnswersRuntime) -> dict[str, Any]:
    """The path ``/answer``."""
    output: Any = runtime.model().output
    label = {"type": "string", "minLength": 1, "maxLength": _LABEL}
    properties: Mapping[str, Any] = {
        "question": {"type": "string", "minLength": 1, "maxLength": _QUESTION},
        "labels": {
            "type": "array", "items": label, "maxItems": _LABELS,
            "description": "of who asks: passages that have one of them, or none, are searched",
        },
        "k": {"type": "integer", "minimum": 1, "maximum": output.longest, "default": output.k},
        "stream": {"type": "boolean", "description": "server-sent events: passages, pieces, the whole answer"},
    }  # fmt: skip
    request = {"type": "object", "additionalProperties": False, "required": ["question"], "properties": properties}
    answer = {
        "type": "object",
        "required": ["model", "version", "id", "answer", "found", "confidence", "citations", "passages", "flags"],
        "properties": {
            "model": {"type": "string"},
            "version": {"type": "string"},
            "id": {"type": "string", "description": "joins whether the answer was right, see /feedback"},
            "answer": {"type": "string", "description": "empty where nothing was found"},
            "found": {"type": "boolean"},
            "confidence": {"type": "number", "minimum": 0, "maximum": 1},
            "citations": {"type": "array", "items": {"$ref": "#/components/schemas/Citation"}},
            "passages": {"type": "array", "items": {"$ref": "#/components/schemas/FoundPassage"}},
            "flags": {"type": "array", "items": {"type": "string"}},
        },
    }
    example = {"question": next(iter(runtime.bundle.golden())).inputs["question"], "labels": [], "k": output.k}  # type: ignore[union-attr]
    return {"/answer": {"post": operation("Answer a question", "answer", answer, {**request, "example": example})}}


ANSWER = Api(
    routes=lambda runtime: [Route("/answer", {"POST": AnswerHandler(runtime)})],
    busy=("/answer",),
    paths=answer_paths,
)

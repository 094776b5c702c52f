"""``POST /predict``: typed JSON in, answers with ids, flags and reason codes out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from time import perf_counter
from typing import Any

import orjson

from contracts.engine import DecodingEngine, UnreadableError
from contracts.errors import PlatformError
from services.batching.terms import Part, Terms
from services.errors import Problem, invalid
from services.model.forms import Batch, part
from services.model.prediction_log import new_id
from services.model.scoring import Model, Scored, Work, joined
from services.server.http import Answer, Request
from services.server.lifecycle import Runtime
from services.server.multipart import parse_form
from services.settings import ServiceSettings

MAX_REASONS = 50
DEFAULT_REASONS = 5
_TOKENISED_AT_ONCE = 4_000  # characters, about 1 ms; more is tokenised on a thread of its own
_MEMBERS = frozenset({"instances", "explain"})


class PredictHandler:
    """Serves ``/predict`` of one runtime."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def __call__(self, request: Request) -> Answer:
        """Answer ``{"instances": [...], "explain": n}``; instances are answered in their order.

        A model of files takes them also as a multipart form, and one as the whole body.
        """
        model = self._runtime.model()
        if model.files is not None and _is_file(request.media):
            body = await request.body()
            start = perf_counter()
            batch, top = self._files(model, request, body), 0
        else:
            document = await request.json()
            start = perf_counter()
            instances, top = self._members(document)
            batch = model.forms.choose(list(instances[0]) if type(instances[0]) is dict else []).rows(instances)
        metrics = self._runtime.metrics
        metrics.stage["decode"].observe(perf_counter() - start)
        scored = await run(self._runtime, model, batch, top, request.terms)
        start = perf_counter()
        ids = record(self._runtime, model, batch, scored)
        body = self._body(model, batch, scored, ids, top > 0)
        metrics.stage["encode"].observe(perf_counter() - start)
        return Answer(body)

    def _members(self, document: Any) -> tuple[list[Any], int]:
        if type(document) is not dict:
            raise invalid([("(request)", 'expected an object: {"instances": [...]}')])
        errors = [
            (name[:64], "unknown member; accepted: instances, explain") for name in document if name not in _MEMBERS
        ]
        instances: Any = document.get("instances")
        if type(instances) is not list or not instances:
            errors.append(("instances", "expected a list of at least one object"))
        top = document.get("explain", 0)
        if type(top) is bool:
            top = DEFAULT_REASONS if top else 0
        if type(top) is not int or not 0 <= top <= MAX_REASONS:
            errors.append(("explain", f"expected true, false or a number of reasons from 0 to {MAX_REASONS}"))
        if errors:
            raise invalid(errors)
        self._check_count(len(instances))
        return instances, top

    def _files(self, model: Model, request: Request, body: bytes) -> Batch:
        field = model.forms.direct.fields[0]
        if request.media != "multipart/form-data":
            return model.forms.direct.batch({field.name: [body]}, where="(body)")
        parts = parse_form(request.header(b"content-type"), body)
        accepted = dict.fromkeys((field.name, "file"))
        errors = [
            (one.name[:64] or "(part)", f"unknown part; accepted, once for each file: {', '.join(accepted)}")
            for one in parts
            if one.name not in accepted
        ]
        if not parts:
            errors.append(("file", "expected at least one part with a file"))
        if errors:
            raise invalid(errors)
        self._check_count(len(parts))
        return model.forms.direct.batch({field.name: [bytes(one.content) for one in parts]}, where="file[{row}]")

    def _check_count(self, rows: int) -> None:
        limit = self._runtime.settings.max_instances
        if rows > limit:
            detail = f"got {rows}, at most {limit} are accepted"
            raise Problem(413, "too-many-rows", "too many instances", detail)

    def _body(self, model: Model, batch: Batch, scored: Scored, ids: list[str], explained: bool) -> bytes:
        predictions = []
        said = model.problem.documents(model.output, model.decision, scored.answers, scored.decided)
        for row, answer in enumerate(said):
            one: dict[str, Any] = {"id": ids[row], **answer}
            if explained:
                one["reasons"] = [
                    {"feature": reason.feature, "value": reason.value, "contribution": reason.contribution}
                    for reason in scored.reasons[row]
                ]
            one["flags"] = batch.flags[row]
            predictions.append(one)
        document = {"model": self._runtime.name, "version": self._runtime.version, "predictions": predictions}
        return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


async def run(runtime: Runtime, model: Model, batch: Batch, top: int, terms: Terms) -> Scored:
    """Score a batch, together with those of other requests.

    Raises:
        Problem: 422 when reasons are asked of a model that has none; 429, 503 and 504 see `Batcher.submit`.
    """
    start = perf_counter()
    ids: Sequence[Sequence[int]] = ()
    if model.files is not None:
        batch = await _decoded(runtime, model.files, batch)
        runtime.metrics.stage["decode"].observe(perf_counter() - start)
    if model.tokens is not None and batch.form == "direct":
        tokenise = partial(model.tokens.tokenise, batch.columns)
        ids = tokenise() if _characters(batch) < _TOKENISED_AT_ONCE else await runtime.prepare(tokenise)
        runtime.metrics.stage["decode"].observe(perf_counter() - start)
    works = _works(runtime.settings, batch, top, ids)
    kind, alone = works[0].kind, top > 0
    try:
        if len(works) == 1:
            lengths = [len(row) for row in ids]
            return await runtime.batcher.submit(
                works[0], kind=kind, rows=batch.rows, lengths=lengths, alone=alone, terms=terms
            )
        parts = [Part(item=one, rows=one.batch.rows, lengths=[len(row) for row in one.ids]) for one in works]
        scored = await runtime.batcher.submit_parts(parts, kind=kind, alone=alone, terms=terms)
        return joined(model.problem, batch, works, scored)
    except asyncio.CancelledError:  # the request's time is over
        for one in works:
            one.given_up = True
        raise
    except PlatformError as err:
        if err.code == "not_explainable":
            raise Problem(422, "not-explainable", err.headline, err.detail, fix="leave 'explain' out") from err
        raise


async def _decoded(runtime: Runtime, files: DecodingEngine, batch: Batch) -> Batch:
    """The batch with pixels in the place of files."""
    most = runtime.settings.max_image_pixels
    try:
        columns = await runtime.prepare(partial(files.decode, batch.columns, most))
    except UnreadableError as err:
        raise invalid([(batch.where.format(row=row, name=name), text) for row, name, text in err.errors]) from None
    return Batch(form=batch.form, rows=batch.rows, columns=columns, flags=batch.flags, where=batch.where)


def _is_file(media: str) -> bool:
    return media.startswith("image/") or media in ("multipart/form-data", "application/octet-stream")


def _works(settings: ServiceSettings, batch: Batch, top: int, ids: Sequence[Sequence[int]]) -> list[Work]:
    """The batch as pieces that fit into one call each: a large request must not make all others wait for it."""
    if batch.rows <= settings.max_batch_rows and not ids:
        return [Work(batch=batch, top=top)]
    works, start, longest = [], 0, 0
    for row in range(batch.rows):
        longest = max(longest, len(ids[row]) if ids else 0)
        rows = row + 1 - start
        if row > start and (rows > settings.max_batch_rows or rows * longest > settings.max_batch_tokens):
            works.append(Work(batch=part(batch, start, row), top=top, ids=ids[start:row]))
            start, longest = row, len(ids[row]) if ids else 0
    whole = part(batch, start, batch.rows) if start else batch
    return [*works, Work(batch=whole, top=top, ids=ids[start:])]


def _characters(batch: Batch) -> int:
    return sum(len(value) for column in batch.columns.values() if column.dtype == object for value in column)


def record(runtime: Runtime, model: Model, batch: Batch, scored: Scored) -> list[str]:
    """Count and log the predictions of a batch; returns their ids."""
    metrics, log = model.metrics, runtime.log
    model.serving.count(scored.answers, scored.decided, metrics.labels, metrics.observed)
    ids = [new_id() for _ in scored.decided]
    if log is not None:
        for row, identifier in enumerate(ids):
            log.add(identifier, row, batch, scored)
    return ids

"""``POST /predict``: typed JSON in, answers with ids, flags and reason codes out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any

import orjson
from pydantic import ValidationError

from contracts.decoding import Sampling
from contracts.errors import PlatformError
from contracts.out_of_distribution import ABSTAIN, OOD
from services.batching.queue_items import Part
from services.errors import Problem, invalid
from services.model.predict_docs import MAX_REASONS, predict_paths, predict_schemas
from services.model.prediction_log import new_id
from services.model.request_schema import Batch, part
from services.model.rows import check_count
from services.model.runtime import RowRuntime
from services.model.scoring import Model, Scored, Work, joined
from services.request_options import RequestOptions
from services.server.lifecycle import Api
from services.server.requests import Answer, Request, Route
from services.settings import ServiceSettings

DEFAULT_REASONS = 5
_MEMBERS = ("instances", "explain", "counterfactual")


class PredictHandler:
    """Serves ``/predict`` of one runtime."""

    def __init__(self, runtime: RowRuntime) -> None:
        self._runtime = runtime

    async def __call__(self, request: Request) -> Answer:
        """Answer ``{"instances": [...], "explain": n, "counterfactual": true}``, instances in their order.

        Where the model can draw its answers by chance, ``"sampling": {"temperature": 0.7, "seed": 1}`` lets it.
        Some modalities read other bodies too, such as forms of files.
        """
        model = self._runtime.model()
        if model.rows.reads(request.media):
            body = await request.body()
            start = perf_counter()
            batch = model.rows.read(model.schemas.by_features, request.header(b"content-type"), body)
            top, counterfactual = 0, False
        else:
            document = await request.json()
            start = perf_counter()
            instances, top, counterfactual = self._members(document, model)
            sampling = _sampling(document, model)
            schema = model.schemas.choose(list(instances[0]) if type(instances[0]) is dict else [])
            batch = await model.schemas.checked(partial(schema.rows, instances))
            if sampling is not None and top:
                said = "reasons are of the likeliest answer, not of one drawn by chance: leave one of the two out"
                raise invalid([("explain", said)])
            if sampling is not None:
                batch = replace(batch, sampling=sampling)
        metrics = self._runtime.metrics
        metrics.stage["decode"].observe(perf_counter() - start)
        scored = await run(self._runtime, model, batch, top, request.options, counterfactual=counterfactual)
        start = perf_counter()
        ids = record(self._runtime, model, batch, scored, request.options.arrived)
        answer = Answer(self._body(model, batch, scored, ids, top))
        metrics.stage["encode"].observe(perf_counter() - start)
        return answer

    def _members(self, document: Any, model: Model) -> tuple[list[Any], int, bool]:
        if type(document) is not dict:
            raise invalid([("(request)", 'expected an object: {"instances": [...]}')])
        known = _MEMBERS if model.rows.sampling is None else (*_MEMBERS, "sampling")
        errors = [
            (name[:64], f"unknown member; accepted: {', '.join(known)}") for name in document if name not in known
        ]
        instances: Any = document.get("instances")
        if type(instances) is not list or not instances:
            errors.append(("instances", "expected a list of at least one object"))
        top = document.get("explain", 0)
        if type(top) is bool:
            top = DEFAULT_REASONS if top else 0
        if type(top) is not int or not 0 <= top <= MAX_REASONS:
            errors.append(("explain", f"expected true, false or a number of reasons from 0 to {MAX_REASONS}"))
        counterfactual = document.get("counterfactual", False)
        if type(counterfactual) is not bool:
            errors.append(("counterfactual", "expected true or false"))
        if errors:
            raise invalid(errors)
        if counterfactual and model.counterfactuals is None:
            said = "its task declares no inputs that may change, see `changes` in pipelines/task.py"
            raise Problem(422, "no-counterfactual", "this model gives no counterfactuals", said)
        check_count(len(instances), self._runtime.settings.max_instances)
        return instances, top, counterfactual

    def _body(self, model: Model, batch: Batch, scored: Scored, ids: list[str], top: int) -> bytes:
        predictions = []
        said = model.problem.documents(model.output, model.decision, scored.answers, scored.decided)
        for row, answer in enumerate(said):
            one: dict[str, Any] = {"id": ids[row], **answer}
            if top:
                one["reasons"] = [
                    {"feature": reason.feature, "value": reason.value, "contribution": reason.contribution}
                    for reason in scored.reasons[row][:top]
                ]
                if model.principal:
                    one["principal_reasons"] = model.principal.of(scored.decided[row], scored.reasons[row])
            if scored.changes and scored.changes[row]:
                one["counterfactual"] = scored.changes[row]
            if scored.ood:
                one[OOD], one[ABSTAIN] = scored.ood[row]
            one["flags"] = batch.flags[row]
            predictions.append(one)
        document = {"model": self._runtime.name, "version": self._runtime.version, "predictions": predictions}
        return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def _sampling(document: Mapping[str, Any], model: Model) -> Sampling | None:
    """How the answers are to be drawn; what a request leaves out is as the model's recipe has it."""
    given = document.get("sampling")
    if given is None or model.rows.sampling is None:
        return None
    if type(given) is not dict:
        raise invalid([("sampling", 'expected an object, such as {"temperature": 0.7, "top_p": 0.9, "seed": 1}')])
    try:
        return Sampling.model_validate({**model.rows.sampling.model_dump(), **given})
    except ValidationError as err:
        known = ", ".join(Sampling.model_fields)
        raise invalid(
            [
                (
                    ".".join(["sampling", *(str(part)[:64] for part in one["loc"][:1])]),
                    f"unknown member; accepted: {known}" if one["type"] == "extra_forbidden" else one["msg"],
                )
                for one in err.errors()
            ]
        ) from err


async def run(
    runtime: RowRuntime,
    model: Model,
    batch: Batch,
    top: int,
    options: RequestOptions,
    *,
    counterfactual: bool = False,
) -> Scored:
    """Score a batch, together with those of other requests.

    Raises:
        Problem: 403 see `RowRuntime.admit`; 422 when reasons are asked of a model that has none; 429, 503 and 504 see
            `Batcher.submit`.
    """
    runtime.admit(batch, options)
    if model.rows.threads and batch.schema == "by_features":
        start, call = perf_counter(), partial(model.rows.prepared, batch)
        ready = call() if model.rows.is_quick(batch) else await runtime.prepare(call)
        # Of whoever asks too: the log tells how large images are, and what there is to say of tokens.
        batch.columns, batch.prepared, batch.lengths = ready.columns, ready.prepared, ready.lengths
        runtime.metrics.stage["decode"].observe(perf_counter() - start)
    works = _works(runtime.settings, batch, top)
    for one in works:
        one.counterfactual = counterfactual
    kind, alone = works[0].kind, top > 0 or counterfactual
    try:
        if len(works) == 1:
            return await runtime.batcher.submit(
                works[0], kind=kind, rows=batch.rows, lengths=batch.lengths, alone=alone, options=options
            )
        parts = [Part(item=one, rows=one.batch.rows, lengths=one.batch.lengths) for one in works]
        scored = await runtime.batcher.submit_parts(parts, kind=kind, alone=alone, options=options)
        return joined(model.problem, batch, works, scored)
    except asyncio.CancelledError:  # the request's time is over
        for one in works:
            one.given_up = True
        raise
    except PlatformError as err:
        if err.code == "not_explainable":
            raise Problem(422, "not-explainable", err.headline, err.detail, fix="leave 'explain' out") from err
        raise


def _works(settings: ServiceSettings, batch: Batch, top: int) -> list[Work]:
    """The batch as pieces that fit into one call each: a large request must not make all others wait for it."""
    lengths = batch.lengths
    if batch.rows <= settings.max_batch_rows and not lengths:
        return [Work(batch=batch, top=top)]
    works, start, longest = [], 0, 0
    for row in range(batch.rows):
        longest = max(longest, lengths[row] if lengths else 0)
        rows = row + 1 - start
        if row > start and (rows > settings.max_batch_rows or rows * longest > settings.max_batch_tokens):
            works.append(Work(batch=part(batch, start, row), top=top))
            start, longest = row, lengths[row] if lengths else 0
    return [*works, Work(batch=part(batch, start, batch.rows) if start else batch, top=top)]


def record(
    runtime: RowRuntime, model: Model, batch: Batch, scored: Scored, arrived: float, given: list[str] | None = None
) -> list[str]:
    """Count and log the predictions of a batch that `arrived` at this moment; returns their ids, by default new."""
    metrics, log = model.metrics, runtime.log
    model.serving.count(scored.answers, scored.decided, metrics.labels, metrics.observed)
    for words in batch.flags:
        if words:
            metrics.flagged.inc()
    if abstained := sum(is_beyond for _, is_beyond in scored.ood):
        metrics.abstained.inc(abstained)
    ids = given or [new_id() for _ in scored.decided]
    if model.personal is not None:
        for identifier, shown in zip(ids, scored.shown, strict=True):
            if shown is not None:
                model.personal.remember(identifier, shown)
    if log is not None:
        latency_ms = round((perf_counter() - arrived) * 1e3, 3)
        for row, identifier in enumerate(ids):
            log.add(identifier, row, batch, scored, latency_ms)
    return ids


PREDICT = Api(
    routes=lambda runtime: [Route("/predict", {"POST": PredictHandler(runtime)})],
    busy=("/predict",),
    paths=predict_paths,
    schemas=predict_schemas,
)

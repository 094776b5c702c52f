"""Inference by the Open Inference Protocol v2: what HTTP and gRPC have in common."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from time import perf_counter
from typing import Any

from contracts.out_of_distribution import ABSTAIN, OOD
from services.errors import Problem
from services.model.predict import record, run
from services.model.prediction_log import new_id
from services.model.request_schema import Batch
from services.model.runtime import RowRuntime
from services.model.scoring import Model, Scored
from services.oip import tensors as oip
from services.request_options import RequestOptions

EXTENSIONS = ("binary_tensor_data",)


def describe_model(runtime: RowRuntime, model: Model) -> dict[str, Any]:
    """The model's metadata."""
    document: dict[str, Any] = {
        "name": runtime.name,
        "versions": [runtime.version],
        "platform": model.bundle.document.engine,
        "inputs": oip.tensors(model.schemas.main),
        "outputs": oip.output_tensors(model.tensors.values()),
        "parameters": {**model.serving.parameters(model.output), "task": model.bundle.document.task},
    }
    if model.schemas.by_entity is not None:
        document["parameters"]["direct_inputs"] = oip.tensors(model.schemas.by_features)
    return document


def check_address(runtime: RowRuntime, given: Mapping[str, str]) -> None:
    """Refuse a request for another name or version than the served ones; an absent one fits.

    Raises:
        Problem: 404.
    """
    for key, have in (("name", runtime.name), ("version", runtime.version)):
        if given.get(key, have) != have:
            what = "model" if key == "name" else "version"
            raise Problem(404, f"unknown-{what}", f"no such {what} here", f"this service has {what} {have}")


async def infer(
    runtime: RowRuntime, model: Model, document: Any, options: RequestOptions
) -> tuple[dict[str, Any], list[str]]:
    """The response document of a request document, and the names of its outputs.

    Raises:
        Problem: 400 and 422 see `oip.read_request`, others see `predict.run`.
    """
    start = perf_counter()
    read = partial(oip.read_request, document, model.schemas, runtime.settings.max_instances, model.tensors)
    batch, wanted = await model.schemas.checked(read)
    stage = runtime.metrics.stage
    stage["decode"].observe(perf_counter() - start)
    scored = await run(runtime, model, batch, 0, options)
    start = perf_counter()
    ids = record(runtime, model, batch, scored, options.arrived)
    answer = {
        "model_name": runtime.name,
        "model_version": runtime.version,
        "id": document.get("id") or new_id(),
        "outputs": [_tensor(model, name, scored, ids, batch) for name in wanted],
    }
    stage["encode"].observe(perf_counter() - start)
    return answer, wanted


def _tensor(model: Model, name: str, scored: Scored, ids: list[str], batch: Batch) -> dict[str, Any]:
    """An output tensor: one of the problem's, or one that every answer has."""
    if name == OOD:
        return {"name": name, "datatype": "FP64", "shape": [batch.rows], "data": [score for score, _ in scored.ood]}
    if name == ABSTAIN:
        return {"name": name, "datatype": "BOOL", "shape": [batch.rows], "data": [is_so for _, is_so in scored.ood]}
    tensor = model.tensors.get(name)
    if tensor is not None:
        shape = [batch.rows, *tensor.shape]
        data = model.problem.values(model.output, name, scored.answers, scored.decided)
        return {"name": name, "datatype": tensor.datatype, "shape": shape, "data": data}
    data = ids if name == oip.ID else [",".join(words) for words in batch.flags]
    return {"name": name, "datatype": "BYTES", "shape": [batch.rows], "data": data}

"""Open Inference Protocol v2 over JSON: tensors to columns and back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from types import NoneType
from typing import Any

from contracts.problems.base import Tensor
from services.errors import Problem
from services.model.columns import Field
from services.model.request_schema import Batch, RequestSchema, RequestSchemas

# What a field is announced as, and what is accepted for it.
DATATYPES = {"float64": "FP64", "int64": "INT64", "bool": "BOOL", "string": "BYTES", "bytes": "BYTES"}
_ACCEPTED = {
    "float64": {"FP64", "FP32"},
    "int64": {"INT64", "INT32"},
    "bool": {"BOOL"},
    "string": {"BYTES"},
    "bytes": {"BYTES"},
    "entity": {"BYTES", "INT64", "INT32", "FP64"},
    "timestamp": {"BYTES"},
}
ID, FLAGS = "prediction_id", "flags"
OUTPUTS = (ID, FLAGS)  # of every problem; flags are words separated by commas, empty when nothing was odd


def datatype(field: Field) -> str:
    """The OIP datatype that `field` is announced as."""
    return DATATYPES[field.dtype] if field.kind == "input" else "BYTES"


def tensors(schema: RequestSchema) -> list[dict[str, Any]]:
    """The metadata of a form's inputs; -1 is the number of rows."""
    return [{"name": item.name, "datatype": datatype(item), "shape": [-1]} for item in schema.fields]


def read_request(
    document: Any, schemas: RequestSchemas, max_rows: int, own: Mapping[str, Tensor]
) -> tuple[Batch, list[str]]:
    """The batch of an inference request and the names of the outputs it asks for, of the problem's `own` and `OUTPUTS`.

    Members that the protocol does not know are passed over: KServe's client says ``model_name``, others have their own.

    Raises:
        Problem: 400 when it does not follow the protocol, 422 when a value does not fit the signature.
    """
    if type(document) is not dict or type(document.get("inputs")) is not list:
        raise _bad("inputs", "expected an object with a list 'inputs' of tensors")
    if type(document.get("id", "")) not in (str, NoneType):
        raise _bad("id", "expected a string")
    given = [_name(tensor, index) for index, tensor in enumerate(document["inputs"])]
    schema = schemas.choose(given)
    by_name = dict(zip(given, document["inputs"], strict=True))
    _check_names(schema, given)
    rows = {}
    for item in schema.fields:
        if item.name in by_name:
            rows[item.name] = _values(by_name[item.name], item, max_rows)
    counts = {len(values) for values in rows.values()}
    if len(counts) > 1:
        sizes = ", ".join(f"{name} has {len(values)}" for name, values in rows.items())
        raise _bad("inputs", f"all tensors must have the same number of rows; {sizes}")
    count = counts.pop() if counts else 0
    if count == 0:
        raise _bad("inputs", "the tensors have no rows")
    for name, value in schema.absent.items():
        rows.setdefault(name, [value] * count)
    return schema.batch(rows, where="inputs.{name}[{row}]"), _outputs(document.get("outputs"), (*own, *OUTPUTS))


def output_tensors(own: Iterable[Tensor]) -> list[dict[str, Any]]:
    """The metadata of the outputs: the problem's own, then `OUTPUTS`."""
    every = [*own, *(Tensor(name=name, datatype="BYTES") for name in OUTPUTS)]
    return [{"name": one.name, "datatype": one.datatype, "shape": [-1, *one.shape]} for one in every]


def _name(tensor: Any, index: int) -> str:
    where = f"inputs[{index}]"
    if type(tensor) is not dict:
        raise _bad(where, "expected a tensor: an object with name, shape, datatype and data")
    for key, kind in (("name", str), ("datatype", str), ("shape", list), ("data", list)):
        if type(tensor.get(key)) is not kind:
            raise _bad(f"{where}.{key}", f"expected a {'string' if kind is str else 'list'}")
    return str(tensor["name"])


def _check_names(schema: RequestSchema, given: Sequence[str]) -> None:
    errors = [
        (f"inputs.{name[:64]}", f"unknown tensor; accepted: {', '.join(item.name for item in schema.fields)}")
        for name in given
        if name not in schema.names
    ]
    errors += [(f"inputs.{name}", "given more than once") for name in set(given) if given.count(name) > 1]
    needed = [item.name for item in schema.fields if item.name not in schema.optional]
    errors += [(f"inputs.{name}", "missing tensor") for name in needed if name not in given]
    if errors:
        raise Problem(400, "bad-tensor", "the tensors are not the model's inputs", errors=errors)


def _values(tensor: dict[str, Any], item: Field, max_rows: int) -> list[Any]:
    accepted = _ACCEPTED[item.dtype if item.kind == "input" else item.kind]
    where = f"inputs.{item.name}"
    if tensor["datatype"] not in accepted:
        got = tensor["datatype"] if tensor["datatype"].isalnum() else "something else"
        raise _bad(f"{where}.datatype", f"expected {' or '.join(sorted(accepted))}, got {got[:16]}")
    shape = tensor["shape"]
    if not all(type(size) is int and size >= 0 for size in shape):
        raise _bad(f"{where}.shape", "expected a list of integers")
    if len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] != 1):
        raise _bad(f"{where}.shape", f"expected [rows] or [rows, 1], got {len(shape)} dimensions of other sizes")
    if shape[0] > max_rows:
        raise Problem(413, "too-many-rows", "too many rows", f"got {shape[0]}, at most {max_rows} are accepted")
    data: list[Any] = tensor["data"]
    if len(shape) == 2 and data and all(type(row) is list for row in data):
        if any(len(row) != 1 for row in data):
            raise _bad(f"{where}.data", "every row must hold one value")
        data = [row[0] for row in data]
    if len(data) != math.prod(shape):
        raise _bad(f"{where}.data", f"has {len(data)} values, shape says {math.prod(shape)}")
    if data and type(data[0]) is bytes and item.dtype != "bytes":
        return _texts(data, where)
    return data


def _texts(data: list[bytes], where: str) -> list[str]:
    try:
        return [str(value, "utf-8") for value in data]
    except UnicodeDecodeError:
        raise _bad(where, "a string is not UTF-8") from None


def _outputs(wanted: Any, known: Sequence[str]) -> list[str]:
    if wanted is None or wanted == []:
        return list(known)
    if type(wanted) is not list or any(type(one) is not dict for one in wanted):
        raise _bad("outputs", "expected a list of objects with a name")
    names = [one.get("name") for one in wanted]
    for name in names:
        if name not in known:
            raise _bad("outputs", f"unknown output; accepted: {', '.join(known)}")
    return list(dict.fromkeys(names))


def _bad(field: str, message: str) -> Problem:
    return Problem(400, "bad-tensor", "not an Open Inference Protocol v2 request", errors=[(field, message)])

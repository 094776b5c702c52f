"""The binary tensor extension: raw bytes after the JSON header, over HTTP; and as raw contents over gRPC.

Numbers are little-endian in row order; a string is four bytes of length and its UTF-8.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from services.errors import Problem

_NUMPY = {
    "BOOL": "?",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}


def decode(datatype: Any, raw: bytes | memoryview, where: str) -> list[Any]:
    """The values of a tensor's bytes; those of BYTES as bytes, which may be a text or a file.

    Raises:
        Problem: 400, naming the tensor.
    """
    if datatype == "BYTES":
        return _strings(memoryview(raw), where)
    kind = _NUMPY.get(datatype) if isinstance(datatype, str) else None
    if kind is None:
        raise _bad(f"{where}.datatype", f"expected BYTES, {', '.join(_NUMPY)}")
    if len(raw) % np.dtype(kind).itemsize:
        raise _bad(where, f"{len(raw)} bytes are no whole number of {datatype} values")
    values: list[Any] = np.frombuffer(raw, kind).tolist()
    return values


def encode(datatype: str, values: Sequence[Any]) -> bytes:
    """The bytes of a tensor's values; the inverse of `decode`."""
    if datatype != "BYTES":
        return np.asarray(values, _NUMPY[datatype]).tobytes()
    parts = [value.encode("utf-8", "replace") for value in values]
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


def fill(document: Any, raw: memoryview) -> None:
    """Give the tensors of a request that have a ``binary_data_size`` their values from `raw`, the bytes behind it.

    Raises:
        Problem: 400 when the sizes do not add up.
    """
    at = 0
    tensors = document.get("inputs") if type(document) is dict else None
    for index, tensor in enumerate(tensors if type(tensors) is list else ()):
        parameters = tensor.get("parameters") if type(tensor) is dict else None
        if type(parameters) is not dict or "binary_data_size" not in parameters:
            continue
        size = parameters["binary_data_size"]
        where = f"inputs[{index}].parameters.binary_data_size"
        if type(size) is not int or not 0 <= size <= len(raw) - at:
            raise _bad(where, f"expected a number of bytes, {len(raw) - at} are left")
        if "data" in tensor:
            raise _bad(f"inputs[{index}].data", "has data in JSON and in binary")
        tensor["data"] = decode(tensor.get("datatype"), raw[at : at + size], f"inputs[{index}]")
        at += size
    if at != len(raw):
        raise _bad("inputs", f"{len(raw) - at} bytes belong to no tensor")


def detach(document: dict[str, Any], binary: Sequence[str]) -> bytes:
    """Take the values of the outputs named in `binary` out of a response; the bytes that follow its JSON header."""
    parts = []
    for tensor in document["outputs"]:
        if tensor["name"] in binary:
            parts.append(encode(tensor["datatype"], tensor.pop("data")))
            tensor["parameters"] = {"binary_data_size": len(parts[-1])}
    return b"".join(parts)


def wants_binary(document: dict[str, Any], outputs: Sequence[str]) -> list[str]:
    """Which of the `outputs` a request wants as bytes: said for all of them, or for one."""
    parameters = document.get("parameters")
    default = type(parameters) is dict and parameters.get("binary_data_output") is True
    said: dict[str, bool] = {}
    for one in document.get("outputs") or ():
        own = one.get("parameters")
        if type(own) is dict and type(own.get("binary_data")) is bool:
            said[one["name"]] = own["binary_data"]
    return [name for name in outputs if said.get(name, default)]


def _strings(raw: memoryview, where: str) -> list[bytes]:
    values, at = [], 0
    while at < len(raw):
        end = at + 4
        if end <= len(raw):
            end += int(struct.unpack_from("<I", raw, at)[0])
        if end > len(raw):
            raise _bad(where, "a string is longer than the bytes that are left")
        values.append(bytes(raw[at + 4 : end]))
        at = end
    return values


def _bad(field: str, message: str) -> Problem:
    return Problem(400, "bad-tensor", "not an Open Inference Protocol v2 request", errors=[(field, message)])

"""What coordinator and sites send each other: one JSON document and named arrays, without a way to run code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.errors import PlatformError

PROTOCOL = 1
_DOCUMENT = "document"
_EMPTY = "empty"  # the format needs one array at least


@dataclass(frozen=True, kw_only=True)
class Message:
    """`document` must be JSON; arrays may have any shape."""

    document: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def packed(message: Message) -> bytes:
    """As bytes (safetensors: lengths, kinds, shapes and numbers)."""
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(value) for name, value in message.arrays.items()} or {_EMPTY: np.zeros(0)}
    return bytes(save(arrays, metadata={_DOCUMENT: json.dumps(message.document)}))


def unpacked(content: bytes, sender: str) -> Message:
    """The message in `content`.

    Raises:
        PlatformError: ``code="bad_message"``.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        content = bytes(content)
        arrays = load(content)
        length = int.from_bytes(content[:8], "little")
        document = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][_DOCUMENT])
        if not isinstance(document, dict):
            raise TypeError("the document is no object")
    except (SafetensorError, ValueError, KeyError, TypeError) as err:
        raise PlatformError(
            f"a message of {sender} cannot be read",
            detail=f"{len(content)} bytes: {err}",
            fix="give coordinator and sites the same version of fairlead",
            code="bad_message",
            site=sender,
        ) from err
    return Message(document=document, arrays={key: value for key, value in arrays.items() if key != _EMPTY})


def of_error(error: PlatformError) -> Message:
    """An answer that is none."""
    return Message(document={"error": error.as_dict()})

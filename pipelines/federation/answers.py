"""What an answer of a site must look like before the coordinator looks into it; who sends others has not answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from contracts.errors import PlatformError
from pipelines.federation.messages import Message, of_error
from pipelines.federation.secure_sum import PRIME, Keys

_MOST_ROWS = 1e12
Check = Callable[[str, Message, Message, int], None]  # site, request, answer, width of the vector that is asked for


def checked(what: str, site: str, request: Message, answer: Message, width: int) -> Message:
    """The answer to `what`, or one that says what is wrong with it."""
    if "error" in answer.document:
        return answer if _is_error(answer.document["error"]) else _wrong(what, site, "an error that is none")
    try:
        CHECKS[what](site, request, answer, width)
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        return _wrong(what, site, f"{type(err).__name__}: {err}"[:200])
    return answer


def _hello(site: str, request: Message, answer: Message, width: int) -> None:
    float(answer.document["time"])
    for one in answer.document["inputs"]:
        one.get("name")


def _keys(site: str, request: Message, answer: Message, width: int) -> None:
    Keys.from_dict(answer.document)


def _shares(site: str, request: Message, answer: Message, width: int) -> None:
    _need(set(answer.document) == set(request.document["keys"]) - {site}, "shares for each other site")
    for share in answer.document.values():
        bytes.fromhex(share)


def _vector(name: str) -> Check:
    def check(site: str, request: Message, answer: Message, width: int) -> None:
        if "shares" in request.document:
            masked = answer.arrays["masked"]
            _need(masked.shape == (width + 1,) and masked.dtype == np.uint64, f"{width + 1} words")
            return
        weight = answer.document["weight"]
        _need(isinstance(weight, int | float) and 0 < weight < _MOST_ROWS, f"a number of rows, not {weight!r}")
        found = answer.arrays[name]
        _need(found.shape == (width,), f"shape ({width},), not {found.shape}")
        _need(found.dtype.kind == "f", f"floating point numbers, not {found.dtype}")
        wrong = int((~np.isfinite(found)).sum())
        _need(not wrong, f"{wrong} of {width} numbers are not finite")
        for key, value in answer.document.get("measured", {}).items():
            _need(isinstance(key, str) and isinstance(value, int | float), "measures that are numbers")

    return check


def _unmask(site: str, request: Message, answer: Message, width: int) -> None:
    asked = {*request.document["survivors"], *request.document["dropped"]}
    _need(set(answer.document) == asked, "a share of each site")
    for share in answer.document.values():
        _need(int.from_bytes(bytes.fromhex(share), "big") < PRIME, "shares below the prime")


def _finish(site: str, request: Message, answer: Message, width: int) -> None:
    found = answer.document
    _need(isinstance(found["accepted"], bool), "a decision")
    _need(all(isinstance(one, str) for one in found["reasons"]), "reasons in words")


def _need(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)


def _is_error(found: Any) -> bool:
    return isinstance(found, Mapping) and isinstance(found.get("headline"), str)


def _wrong(what: str, site: str, why: str) -> Message:
    return of_error(
        PlatformError(
            f"its answer to {what} cannot be used: {why}",
            fix="give coordinator and sites the same version of fairlead",
            code="bad_answer",
            site=site,
        )
    )


CHECKS: Mapping[str, Check] = {
    "hello": _hello,
    "keys": _keys,
    "shares": _shares,
    "sums": _vector("sums"),
    "learn": _vector("update"),
    "unmask": _unmask,
    "finish": _finish,
}

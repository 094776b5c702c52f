"""What may leave, what is masked before it does, and which answers may be given again."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from contracts.guard_rules import RULES, find
from services.chat.guard import Guard
from services.router.backends import Server
from services.router.settings import Route, Target
from services.settings import GuardSettings

_SAID = ("messages", "prompt", "input", "tools", "functions", "response_format", "prediction", "suffix", "stop")
_WHO = ("user", "metadata", "safety_identifier", "prompt_cache_key", "store")  # of no use to an outside provider
_LARGEST = 1 << 20  # bytes of an answer that is kept
_MASK = Guard(GuardSettings(personal="mask", secrets="mask", injection="off"))


def is_personal(document: dict[str, Any]) -> bool:
    """Whether a rule for personal data or for secrets holds in anything that is said."""
    rules = [rule for rule in RULES if rule.group != "injection"]
    return any(find(text, rules) for name in _SAID for text in _texts(document.get(name)))


def allowed(route: Route, personal: bool, order: Sequence[tuple[Server, Target]]) -> list[tuple[Server, Target]]:
    """Those of the targets that the request may be sent to."""
    leaves = route.outside and (not personal or route.personal != "stay")
    return [pair for pair in order if leaves or not pair[0].settings.outside]


def sent(document: dict[str, Any], server: Server, target: Target, route: Route, *, personal: bool) -> bytes:
    """The body for a target: its own name of the model, usage in streams, and for outside no more than may leave."""
    made = {**document, "model": target.model}
    if made.get("stream"):
        made["stream_options"] = {**(made.get("stream_options") or {}), "include_usage": True}
    if server.settings.outside:
        made = {name: value for name, value in made.items() if name not in _WHO}
        if personal and route.personal == "mask":
            made |= {name: _masked(made[name]) for name in _SAID if name in made}
    return orjson.dumps(made)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return _MASK.masked(value, find(value, _MASK.before))
    if isinstance(value, dict):
        return {_masked(name): _masked(inner) for name, inner in value.items()}
    return [_masked(inner) for inner in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Kept:
    """An answer that may be given again."""

    body: bytes
    media: str
    until: float


class Cache:
    """Answers to equal requests; the least recently used leave when their bytes are too many."""

    def __init__(self, most_bytes: int) -> None:
        self._most, self._bytes = most_bytes, 0
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()

    def key(self, route: Route, caller: str, path: str, document: dict[str, Any], *, personal: bool) -> bytes | None:
        """Under which an answer is kept; None for those by chance, personal ones, and routes without a cache."""
        chance = path != "/embeddings" and document.get("temperature") != 0
        if not route.cache_seconds or not self._most or personal or chance or document.get("tools"):
            return None
        who = "" if route.shared_cache else caller
        said = orjson.dumps([path, who, document], option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(said).digest()

    def get(self, key: bytes) -> Kept | None:
        """An answer that is still good."""
        found = self._kept.get(key)
        if found is not None and found.until < time.monotonic():
            self._drop(key)
            return None
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def put(self, key: bytes, body: bytes, media: str, seconds: float) -> None:
        """Keep an answer, unless it is too large."""
        if len(body) > min(_LARGEST, self._most):
            return
        if key in self._kept:
            self._drop(key)
        self._kept[key] = Kept(body, media, time.monotonic() + seconds)
        self._bytes += len(body)
        while self._bytes > self._most:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: bytes) -> None:
        self._bytes -= len(self._kept.pop(key).body)

"""Adapters of a chat model, chosen by its name in a request: matrices of low rank over the weights that all share.

``NAME:tone`` is the adapter that was published as ``tone``. With the setting ``adapters.entity`` at ``user``, who
has an adapter of their own, by the request's member ``user``, gets that one. Where they are kept, cached and deleted is
as of every adapter, see `services.adapters`; here they reach the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Hashable
from dataclasses import dataclass
from time import monotonic
from typing import Any, Protocol

from contracts import metric_names as names
from contracts.adapter import Adapter
from contracts.errors import PlatformError
from contracts.gguf import Head
from contracts.lora import HEADS, misfit, tensor_name
from services.adapters.cache import AdapterCache
from services.adapters.hot import HotCopies
from services.adapters.metrics import AdapterMetrics
from services.adapters.store import AdapterStore
from services.feedback.hashing import hashed
from services.metrics.series import Counter
from services.metrics.service_metrics import ServiceMetrics
from services.settings import ServiceSettings

PERSONAL = "(personal)"  # what metrics and logs call the adapter of a person
USER = "user"  # the member of requests that says whose
_LISTED_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Attributes: name: as metrics and logs say it.  key: entity and version.  adapter: the matrices."""

    name: str
    key: tuple[str, int]
    adapter: Adapter


class Lease(Protocol):
    """An engine that has an adapter, and keeps it until `release`.

    Attributes:
        process: that is asked.  members: of the request's body, by which it is chosen there.
    """

    process: Any
    members: dict[str, Any]

    def release(self) -> None:
        """Let the engine go; may be called more than once."""


class Holder(Protocol):
    """What brings adapters to an engine: one of `services.chat.adapter_sets`, or of `services.chat.remote`."""

    def expect(self, chosen: Chosen) -> Hashable:
        """Begin to load an adapter that is going to be asked for; returns what its answers are computed apart by.

        None: they are computed together with those of others.
        """

    async def lease(self, chosen: Chosen) -> Lease:
        """The engine, once it has the adapter.

        Raises:
            PlatformError: it cannot be loaded.
        """

    def held(self) -> list[tuple[str, int]]:
        """The keys of the adapters that it has."""

    async def lost(self, key: tuple[str, int]) -> None:
        """Take note that the engine has an adapter no more."""

    async def drop(self, keys: list[tuple[str, int]]) -> None:
        """Let the engine forget adapters that are no more, once nobody is answered by them."""

    async def close(self) -> None:
        """End what it started."""


class Adapters:
    """The adapters of one model: found by name or person, and brought to the engine by a `Holder`."""

    def __init__(
        self, settings: ServiceSettings, model: str, base: str, head: Head, metrics: ServiceMetrics, holder: Holder
    ) -> None:
        given = settings.adapters
        self._model, self._salt = model, settings.predictions.salt.encode()
        self.personal = given.entity == USER
        self._head, self.holder = head, holder
        self._store = AdapterStore(given.folder, model, base)
        hot = HotCopies(given.redis, model, base) if given.redis else None
        counts = AdapterMetrics(model, metrics.registry)
        self._cache = AdapterCache(
            self._store, hot, base, self._misfit, counts, given.cached, max(given.fresh_seconds, 0.01)
        )
        self._hot, self._fresh, self._heard = hot, max(given.fresh_seconds, 0.2), ""
        label = names.ADAPTER_LABELS
        self.answers = Counter(
            names.ADAPTER_ANSWERS,
            "Answers by adapter, by how they ended.",
            label[names.ADAPTER_ANSWERS],
            metrics.registry,
        )
        self.tokens = Counter(
            names.ADAPTER_TOKENS, "Tokens of answers by adapter.", label[names.ADAPTER_TOKENS], metrics.registry
        )
        self._listed: tuple[float, list[str]] = (-1e9, [])
        self._watch: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch for adapters that are replaced or deleted."""
        self._watch = asyncio.create_task(self._look())

    async def close(self) -> None:
        """End the watch, and what holds them."""
        if self._watch is not None:
            self._watch.cancel()
        await self.holder.close()

    async def names(self) -> list[str]:
        """The published adapters, as clients call them; the last known ones where the store does not answer."""
        at, found = self._listed
        if monotonic() - at > _LISTED_SECONDS:
            with contextlib.suppress(PlatformError, OSError):
                found = await asyncio.to_thread(self._store.named)
            self._listed = monotonic(), found
        return [f"{self._model}:{name}" for name in found]

    async def published(self) -> list[Chosen]:
        """All adapters with a name that can be used."""
        found = [await self.named(name) for name in await self.names()]
        return [one for one in found if isinstance(one, Chosen)]

    async def named(self, model: str) -> Chosen | str:
        """The adapter that clients call `model`, or why there is none, by the words of `services.adapters.cache`."""
        name = model.removeprefix(f"{self._model}:")
        return await self._of(self._store.entity_of(name), name) if self._store.is_name(name) else ""

    async def of_user(self, user: str) -> Chosen | None:
        """A person's own adapter; None where there is none that can be used: the base answers."""
        found = await self._of(hashed(self._salt, user), PERSONAL)
        return found if isinstance(found, Chosen) else None

    async def _of(self, entity: str, name: str) -> Chosen | str:
        (entry,) = await asyncio.to_thread(self._cache.get, [entity])
        if entry.adapter is None:
            return entry.flag
        return Chosen(name=name, key=(entity, entry.adapter.version), adapter=entry.adapter)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(self._fresh / 2)
            if self._hot is not None:
                now = monotonic()
                if (found := await asyncio.to_thread(self._hot.changes, self._heard)) is not None:
                    self._heard, entities = found
                    self._cache.changed(entities, now)
            if held := self.holder.held():
                entries = await asyncio.to_thread(self._cache.get, [entity for entity, _ in held])
                kept = [
                    key
                    for key, entry in zip(held, entries, strict=True)
                    if entry.flag in ("", "adapter_unavailable")
                    and (entry.adapter is None or entry.adapter.version == key[1])
                ]
                if gone := [key for key in held if key not in kept]:
                    await self.holder.drop(gone)

    def _misfit(self, adapter: Adapter) -> str:
        """What of an adapter does not fit this base; "" where all does."""
        if wrong := misfit(adapter):
            return wrong
        head = self._head
        heads = (head.of_model("attention.head_count"), head.of_model("attention.head_count_kv"))
        if None not in heads and all(isinstance(one, int) for one in heads) and tuple(adapter.tensors[HEADS]) != heads:
            return f"it is of {adapter.tensors[HEADS].tolist()} heads, and the base has {list(heads)}"
        for name, one in adapter.tensors.items():
            stem, _, side = name.removeprefix("base_model.model.").partition(".lora_")
            if not side:
                continue
            ours = f"{tensor_name(stem)}.weight"
            ours = "token_embd.weight" if ours not in head.shapes and ours == "output.weight" else ours
            shape = head.shapes.get(ours)
            if shape is None:
                return f"it changes {stem}, which the base has not"
            if (one.shape[1] if side[0] == "A" else one.shape[0]) != shape[side[0] == "A"]:
                return f"{name} has shape {one.shape}, and the base's is {shape}"
        return ""

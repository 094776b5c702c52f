"""Adapters in memory: found in Redis or their store when they are asked for, and the least recently used leave first.

What another server has learned shows within `fresh` seconds: while the changes that Redis announces are followed, a
copy in memory holds until its own is among them; else it is looked up again after that time.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from time import monotonic
from typing import TypeGuard
from zlib import crc32

from contracts.adapter import Adapter, read_adapter
from contracts.errors import PlatformError
from services.adapters.hot import HotCopies
from services.adapters.metrics import AdapterMetrics
from services.adapters.store import AdapterStore, Kept
from services.logs import log_event

_LONGEST = 60.0  # seconds after which a copy is looked up in any case
MISSING, OTHER_BASE = "adapter_missing", "adapter_of_another_base"
UNREADABLE, UNAVAILABLE = "adapter_unreadable", "adapter_unavailable"


@dataclass(slots=True)
class Entry:
    """What is known of an entity.

    Attributes:
        adapter: None where the base answers alone.
        flag: why it does; "" where it does not.
        mark: of the copy that was read last, another one where it has other bytes.
        at: when it was.
    """

    adapter: Adapter | None
    flag: str
    mark: int = 0
    at: float = 0.0


class AdapterCache:
    """At most `size` entities' adapters, over one base. Safe to share between threads.

    Args:
        fits: of an adapter what does not fit the base; "" where all does.
        clock: seconds.
    """

    def __init__(
        self,
        store: AdapterStore,
        hot: HotCopies | None,
        base: str,
        fits: Callable[[Adapter], str],
        metrics: AdapterMetrics,
        size: int,
        fresh: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._store, self._hot, self._base, self._fits, self._metrics = store, hot, base, fits, metrics
        self._size, self._fresh, self._clock = size, fresh, clock
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._changes: dict[str, float] = {}  # entities that have changed of late, and when that was heard
        self._polled = self._since = -_LONGEST  # all changes between the two are known
        self._lock = Lock()
        metrics.held.set_function(lambda: len(self._entries))

    def get(self, entities: Sequence[str]) -> list[Entry]:
        """What is known of each; Redis is asked once for all that are not in memory, or are there too long.

        Errors of the storage and of Redis raise nothing: the last copy holds, and where there is none the base alone.
        """
        now, wanted = self._clock(), dict.fromkeys(entities)
        with self._lock:
            held = {one: self._entries[one] for one in wanted if one in self._entries}
            for one in held:
                self._entries.move_to_end(one)
        stale = [one for one in wanted if one not in held or not self._is_fresh(held[one], now)]
        self._metrics.reads["hit"].inc(len(wanted) - len(stale))
        if stale:
            held |= self._looked_up(stale, held, now)
        return [held[one] for one in entities]

    def changed(self, entities: Sequence[str], at: float) -> None:
        """What has been announced until `at`, a time of the clock; called often, and never while Redis is away."""
        with self._lock:
            if at - self._polled > self._fresh:
                self._since = at
            self._polled = at
            for entity in entities:
                self._changes[entity] = at
                self._entries.pop(entity, None)
            if len(self._changes) > self._size:
                self._changes = {one: heard for one, heard in self._changes.items() if at - heard < _LONGEST}

    def _is_fresh(self, entry: Entry, now: float) -> bool:
        age = now - entry.at
        followed = self._since <= entry.at and now - self._polled < self._fresh
        return 0 <= age < (_LONGEST if followed else self._fresh)

    def put(self, entity: str, adapter: Adapter) -> None:
        """What was just learned here."""
        self._keep({entity: Entry(adapter, "", 0, self._clock())})

    def forget(self, entity: str) -> None:
        """Hold nothing of an entity."""
        with self._lock:
            self._entries.pop(entity, None)

    def _looked_up(self, stale: Sequence[str], held: dict[str, Entry], now: float) -> dict[str, Entry]:
        copies: Sequence[Kept | None] | None = [None] * len(stale)
        if self._hot is not None:
            copies = self._hot.get(stale)
        found = {}
        for at, entity in enumerate(stale):
            known = held.get(entity)
            try:
                if copies is None:  # Redis does not answer, and a store in S3 takes too long to be asked instead
                    found[entity] = known or Entry(None, UNAVAILABLE)
                    self._metrics.reads["unavailable"].inc()
                    continue
                if self._holds(known, copies[at], entity):
                    known.at = now
                    self._metrics.reads["hit"].inc()
                    found[entity] = known
                    continue
                kept = copies[at] or self._loaded(entity)
            except (PlatformError, OSError) as err:
                log_event("adapters_unavailable", logging.WARNING, error=str(err))
                self._metrics.reads["unavailable"].inc()
                found[entity] = known or Entry(None, UNAVAILABLE)
                continue
            if known is not None and kept.version and known.mark == crc32(kept.data):
                known.at = now
                self._metrics.reads["hit"].inc()
                found[entity] = known
                continue
            found[entity] = self._entry(entity, kept, now)
        self._keep({entity: entry for entity, entry in found.items() if entry.at == now})
        return found

    def _holds(self, known: Entry | None, copy: Kept | None, entity: str) -> TypeGuard[Entry]:
        """Whether what is in memory is the last version, without its bytes."""
        return (
            known is not None
            and known.adapter is not None
            and copy is None
            and self._store.version(entity) == known.adapter.version
        )

    def _loaded(self, entity: str) -> Kept:
        """From the store, with a copy in Redis; a copy of what is forgotten meanwhile is taken away again."""
        kept = self._store.last(entity)
        if self._hot is not None and self._hot.put(entity, kept) and kept.version:
            again = self._store.last(entity)
            if again.version < kept.version:
                self._hot.drop(entity)
                kept = again
        return kept

    def _entry(self, entity: str, kept: Kept, now: float) -> Entry:
        reads = self._metrics.reads
        if not kept.version:
            reads["other_base" if kept.others else "missing"].inc()
            return Entry(None, OTHER_BASE if kept.others else MISSING, 0, now)
        try:
            adapter = read_adapter(kept.data)
        except PlatformError as err:
            return self._refused(entity, kept, now, str(err.detail))
        if adapter.base != self._base:
            reads["other_base"].inc()
            return Entry(None, OTHER_BASE, crc32(kept.data), now)
        if wrong := "it is another entity's" if adapter.entity != entity else self._fits(adapter):
            return self._refused(entity, kept, now, wrong)
        reads["loaded"].inc()
        return Entry(adapter, "", crc32(kept.data), now)

    def _refused(self, entity: str, kept: Kept, now: float, why: str) -> Entry:
        self._metrics.reads["unreadable"].inc()
        log_event("adapter_refused", logging.WARNING, entity=entity, version=kept.version, error=why)
        return Entry(None, UNREADABLE, crc32(kept.data), now)

    def _keep(self, entries: dict[str, Entry]) -> None:
        with self._lock:
            for entity, entry in entries.items():
                known = self._entries.get(entity)
                if (known is not None and known.at > entry.at) or self._changes.get(entity, -1.0) >= entry.at:
                    continue  # it has changed while it was looked up
                self._entries[entity] = entry
                self._entries.move_to_end(entity)
            while len(self._entries) > self._size:
                self._entries.popitem(last=False)
                self._metrics.evicted.inc()

"""The personal part of a served model: whose adapter a row wants, what was answered, and what feedback makes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import random
from secrets import token_hex
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any

import orjson
from prometheus_client import CollectorRegistry

from contracts import storage
from contracts.adapter import Adapter, read_adapter
from contracts.bundle import Bundle
from contracts.engine import Engine
from contracts.errors import PlatformError
from services.adapters.cache import AdapterCache
from services.adapters.hot import Answers, HotCopies
from services.adapters.layer import Example, Layer, open_layer
from services.adapters.metrics import AdapterMetrics
from services.adapters.store import AdapterStore, Kept, remove_all
from services.feedback.hashing import hashed
from services.feedback.records import Label, id_time
from services.settings import ServiceSettings

_TRIES, _PAUSE = 40, 0.005
_FOLLOW_SECONDS = 0.1
_MARKS = 16
_refused = partial(PlatformError, "adapters cannot be kept as the settings say", code="bad_settings")
Shown = tuple[str, Any]  # the entity of an answer, and what its layer needs to learn from it


@dataclass(frozen=True, slots=True)
class _Taught:
    """Attributes: identifier: of the answer.  moment: at which it was made, in seconds since 1970."""

    identifier: str
    moment: float
    example: Example


class Personal:
    """Applies and teaches the adapters of one model over one base. Safe to share between threads.

    Args:
        model: its name, under which adapters are kept.
        entity: the column of requests that says whose adapter is wanted.
        salt: of the hashes that stand for entities, the one of the log of predictions.
    """

    def __init__(
        self, layer: Layer, store: AdapterStore, hot: HotCopies | None, metrics: AdapterMetrics, *, model: str,
        base: str, entity: str, salt: str, cached: int, fresh: float, wait: int,
    ) -> None:  # fmt: skip
        self.entity = entity
        self._layer, self._store, self._hot, self._metrics = layer, store, hot, metrics
        self._model, self._base, self._salt = model, base, salt.encode()
        self._answers = Answers(hot, wait)
        self._cache = AdapterCache(store, hot, base, layer.fits, metrics, cached, fresh)
        self._closed, self._pause = Event(), min(fresh / 4, _FOLLOW_SECONDS)
        if hot is not None and fresh:
            Thread(target=self._follow, args=(hot,), name="adapter-changes", daemon=True).start()

    def predict(
        self, engine: Callable[..., Any], columns: Mapping[str, Any], flags: Sequence[list[str]]
    ) -> tuple[Any, list[Shown | None]]:
        """The answers to all rows, each by its entity's adapter, and what can be learned from them.

        A row whose entity has no adapter gets the base's answer and a flag; one that names nobody gets no flag.

        Args:
            engine: gives the base's answers; see `services.adapters.layer.Layer.apply`.
            columns: of the request.
        """
        named = [str(value) for value in columns[self.entity]]
        keys = [hashed(self._salt, name) if name else "" for name in named]
        wanted = [key for key in keys if key]
        entries = dict(zip(wanted, self._cache.get(wanted), strict=True)) if wanted else {}
        for key, words in zip(keys, flags, strict=True):
            if key and entries[key].flag:
                words.append(entries[key].flag)
        adapters = [entries[key].adapter if key else None for key in keys]
        applied = self._layer.apply(engine, adapters)
        shown = [
            (key, said) if key and said is not None else None for key, said in zip(keys, applied.shown, strict=True)
        ]
        return applied.answers, shown

    def remember(self, identifier: str, shown: Shown) -> None:
        """Keep what an answer was, so that feedback by its id can teach."""
        self._answers.remember(identifier, orjson.dumps(shown))

    def learn(self, labels: Sequence[Label]) -> int:
        """Teach the adapters of those whom labels are about; how many labels were new and are kept.

        A label of an answer that is not known any more teaches nothing, nor does one that was learned before.

        Raises:
            PlatformError: the storage's own, or others go on changing an adapter; what was not kept may come again.
        """
        groups = self._groups(labels)
        count, left = 0, list(groups)
        for entity, taught in groups.items():
            try:
                self._update(entity, taught)
            except (PlatformError, OSError):
                for one in (one for other in left for one in groups[other]):
                    self._metrics.updates["failed"].inc()
                    for part in one.example.parts:
                        self._answers.release(one.identifier, part)
                raise
            left.remove(entity)
            count += len(taught)
            self._metrics.updates["learned"].inc(len(taught))
        return count

    def close(self) -> None:
        """Write what is queued, and end the threads."""
        self._closed.set()
        self._answers.close()

    def _follow(self, hot: HotCopies) -> None:
        """Hear of changes that other servers make."""
        last = ""
        while not self._closed.wait(self._pause):
            now = monotonic()
            if (found := hot.changes(last)) is not None:
                last, entities = found
                self._cache.changed(entities, now)

    def _groups(self, labels: Sequence[Label]) -> dict[str, list[_Taught]]:
        """What labels teach, by the entity."""
        updates, groups = self._metrics.updates, dict[str, list[_Taught]]()
        for one in labels:
            data, moment = self._answers.recall(one.id), id_time(one.id).timestamp()
            entity, shown = orjson.loads(data) if data else ("", None)
            if not entity or moment < self._forgotten(entity):
                updates["unknown"].inc()
                continue
            parts = [part for part in self._layer.parts(one.label) if self._answers.claim(one.id, part)]
            if not parts:
                updates["repeated"].inc()
                continue
            groups.setdefault(entity, []).append(_Taught(one.id, moment, Example(shown=shown, parts=parts)))
        return groups

    def _update(self, entity: str, taught: Sequence[_Taught]) -> None:
        """Make the next version: of two who see the same one, one starts again from what the other has made."""
        examples, mark = [one.example for one in taught], token_hex(4)
        for attempt in range(_TRIES):
            kept = self._store.last(entity)
            known = self._readable(entity, kept)
            new = Adapter(
                layer=self._layer.name,
                base=self._base,
                entity=entity,
                version=kept.version + 1,
                tensors=self._layer.learned(known, examples),
                updates=[*([] if known is None else known.updates), mark][-_MARKS:],
            )
            data = new.to_bytes()
            if self._store.put(entity, new.version, data):
                self._publish(entity, new, data, min(one.moment for one in taught))
                return
            found = self._readable(entity, self._store.last(entity))
            if found is not None and mark in found.updates:  # another one has gone on from it already
                return
            sleep(_PAUSE * attempt * random())
        raise PlatformError(
            "the adapter is changed by others all the time",
            detail=f"tried {_TRIES} times",
            fix="send the labels again",
            code="adapter_busy",
        )

    def _publish(self, entity: str, new: Adapter, data: bytes, moment: float) -> None:
        """Let all servers see a version, unless its entity has been forgotten meanwhile."""
        if self._hot is not None:
            self._hot.put(entity, Kept(version=new.version, data=data))
            self._hot.announce(entity)
        if self._forgotten(entity) > moment:
            remove_all(self._store.folder, self._model, entity)
        elif self._hot is None or self._store.last(entity).version >= new.version:
            self._cache.put(entity, new)
            return
        self._cache.forget(entity)
        if self._hot is not None:
            self._hot.drop(entity)

    def _readable(self, entity: str, kept: Kept) -> Adapter | None:
        """The adapter to learn on from; None where there is none, or none of this base."""
        try:
            found = read_adapter(kept.data) if kept.version else None
        except PlatformError:
            return None
        fits = found is not None and (found.base, found.entity) == (self._base, entity) and not self._layer.fits(found)
        return found if fits else None

    def _forgotten(self, entity: str) -> float:
        return 0.0 if self._hot is None else self._hot.forgotten(entity)


def open_personal(
    settings: ServiceSettings, bundle: Bundle, engine: Engine, model: str, registry: CollectorRegistry
) -> Personal | None:
    """The personal part of a bundle; None where the service is told of no place for adapters.

    Raises:
        PlatformError: ``code="bad_settings"``, naming the key.
    """
    given, signature = settings.adapters, bundle.document.signature
    if not given.folder:
        return None
    check_place(settings)
    layer = open_layer(signature.problem.name, engine, signature.output)
    entity = given.entity or layer.entity or (signature.entities[0] if len(signature.entities) == 1 else "")
    if not entity or (layer.entity and entity != layer.entity):
        raise _refused(
            detail=f"adapters.entity is {given.entity or 'empty'}, which names nobody of {bundle.document.name}",
            fix=f"set it to {layer.entity or 'the field of requests that says whose is wanted, such as customer'}",
            key="adapters.entity",
        )
    base = bundle.digest
    hot = HotCopies(given.redis, model, base) if given.redis else None
    return Personal(
        layer, AdapterStore(given.folder, model, base), hot, AdapterMetrics(model, registry), model=model, base=base,
        entity=entity, salt=settings.predictions.salt, cached=given.cached, fresh=given.fresh_seconds,
        wait=given.wait_seconds,
    )  # fmt: skip


def check_place(settings: ServiceSettings) -> None:
    """Refuse settings by which adapters cannot be found, or not in time.

    Raises:
        PlatformError: ``code="bad_settings"``, naming the key.
    """
    given = settings.adapters
    if not settings.predictions.salt:
        raise _refused(
            detail="adapters are found by keyed hashes of whose they are, and every process needs the same key",
            fix="set predictions.salt of the service",
            key="predictions.salt",
        )
    if storage.is_remote(given.folder) and not given.redis:
        raise _refused(
            detail="S3 takes too long to be asked for every request",
            fix="set adapters.redis of the service to redis://host:port/db",
            key="adapters.redis",
        )

"""Adapters in llama.cpp, which takes them at its start only: a second process has a set of them, chosen per request.

Beside the process of the base, which is never touched, one runs with the adapters that were used last, at most
`AdapterSettings.loaded`. Who asks for another one waits while a process with the next set starts; those that are being
answered end where they began, and then the old process ends. The file of the base is mapped, so that all have it once.
llama.cpp keeps what a slot has read by the adapters that it was read with, and chooses slots by their texts alone: an
adapter gets the slot that it had last, if nobody else had it since, so that it need not read the same again.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from contracts.adapter import Adapter
from contracts.errors import PlatformError
from contracts.llama_process import LlamaOptions, LlamaProcess
from contracts.lora import to_gguf
from services.chat.adapters import Chosen
from services.logs import log_event

Key = tuple[str, int]


@dataclass(eq=False)
class _Set:
    """Attributes: places: of the adapters in the process.  users: leases.  idle: set while there are none.

    had: by slot the adapter that read there last, from the slot that was used least recently.  busy: slots in use.
    """

    process: LlamaProcess
    places: dict[Key, int]
    had: OrderedDict[int, Key | None] = field(default_factory=OrderedDict)
    busy: set[int] = field(default_factory=set)
    users: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    def slot(self, key: Key) -> int | None:
        """A free slot for an adapter: that which it had last, else that which was used least recently."""
        free = [number for number in self.had if number not in self.busy]
        if not free:
            return None
        number = next((one for one in reversed(free) if self.had[one] == key), free[0])
        self.had[number] = key
        self.had.move_to_end(number)
        self.busy.add(number)
        return number


class SetLease:
    """See `services.chat.adapters.Lease`."""

    def __init__(self, held: _Set, key: Key) -> None:
        self._held: _Set | None = held
        self.process = held.process
        self._slot = held.slot(key)
        self.members: dict[str, Any] = {"lora": [{"id": held.places[key], "scale": 1.0}]}
        if self._slot is not None:
            self.members["id_slot"] = self._slot
        held.users += 1
        held.idle.clear()

    def release(self) -> None:
        """Let the process go."""
        held, self._held = self._held, None
        if held is not None:
            held.users -= 1
            held.busy.discard(-1 if self._slot is None else self._slot)
            if not held.users:
                held.idle.set()


class AdapterSets:
    """See `services.chat.adapters.Holder`.

    Args:
        options: of the process of the base.
        most: adapters of one process.

    Attributes:
        others: tells which adapters may be asked for as well: while there is room they come with those that are waited
            for, so that each of them does not cost a start of its own.
    """

    def __init__(self, options: LlamaOptions, most: int) -> None:
        self._options, self._most = replace(options, adapters=(), chosen=True), most
        self.others: Callable[[], Awaitable[Sequence[Chosen]]] | None = None
        self._current: _Set | None = None
        self._leaving: set[_Set] = set()  # that end after the last of their answers
        self._recent: OrderedDict[Key, Adapter] = OrderedDict()  # the last one was used last
        self._wanted: dict[Key, Adapter] = {}
        self._refused: dict[Key, PlatformError] = {}
        self._change: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def expect(self, chosen: Chosen) -> Key:
        """Start the next process while others are answered, if an adapter is in none; llama.cpp computes each apart."""
        if self._with(chosen.key) is None:
            self._want(chosen)
        return chosen.key

    async def lease(self, chosen: Chosen) -> SetLease:
        """The process with an adapter.

        Raises:
            PlatformError: ``code="bad_weights"``, llama.cpp refuses it, or has no room.
        """
        key = chosen.key
        while True:
            if (held := self._with(key)) is not None:
                self._recent[key] = chosen.adapter
                self._recent.move_to_end(key)
                return SetLease(held, key)
            if (refused := self._refused.pop(key, None)) is not None:
                raise refused
            await asyncio.shield(self._want(chosen))  # who leaves does not take it away from others

    def _with(self, key: Key) -> _Set | None:
        """The running process, if it has an adapter."""
        held = self._current
        return held if held is not None and key in held.places and held.process.running else None

    def _want(self, chosen: Chosen) -> asyncio.Task[None]:
        self._wanted[chosen.key] = chosen.adapter
        if self._change is None or self._change.done():
            self._change = asyncio.create_task(self._next())
        return self._change

    def held(self) -> list[Key]:
        """The keys of the adapters in memory."""
        return list(dict.fromkeys([*(self._current.places if self._current else ()), *self._recent]))

    async def lost(self, key: Key) -> None:
        """Nothing: a process has what it was started with."""

    async def drop(self, keys: Sequence[Key]) -> None:
        """Forget adapters: a process that has one takes no more requests, and ends after those that it answers."""
        for key in keys:
            self._recent.pop(key, None)
            self._wanted.pop(key, None)
        if self._current is not None and not self._current.places.keys().isdisjoint(keys):
            self._retire(self._current)
            self._current = None

    async def close(self) -> None:
        """End the processes."""
        if self._change is not None:
            self._change.cancel()
        for task in self._closing:
            task.cancel()
        for held in [*self._leaving, *([self._current] if self._current else [])]:
            await asyncio.to_thread(held.process.stop)
        self._current = None

    async def _next(self) -> None:
        """Start a process with those that are waited for, and those that were used last."""
        for held in list(self._leaving):  # no third one: each has a cache of its own
            await held.idle.wait()
        wanted = dict(list(self._wanted.items())[: self._most])
        recent = [(key, one) for key, one in reversed(self._recent.items()) if key not in wanted]
        some = wanted | dict(recent[: self._most - len(wanted)])
        if len(some) < self._most and self.others is not None:
            more = [(one.key, one.adapter) for one in await self.others() if one.key not in some]
            some |= dict(more[: self._most - len(some)])
        for key in wanted:
            self._wanted.pop(key, None)
        try:
            try:
                process = await asyncio.to_thread(_started, self._options, list(some.values()))
            except PlatformError:  # perhaps not for one of those that are waited for
                if len(some) == len(wanted):
                    raise
                some = wanted
                process = await asyncio.to_thread(_started, self._options, list(some.values()))
        except PlatformError as err:
            for key in wanted:
                self._recent.pop(key, None)
                self._refused[key] = err
            log_event("adapters_refused", logging.ERROR, entities=[entity for entity, _ in wanted], **err.as_dict())
            return
        before, self._current = self._current, _Set(process, {key: at for at, key in enumerate(some)})
        self._current.had.update(dict.fromkeys(range(self._options.slots)))
        self._current.idle.set()
        self._recent = OrderedDict((key, some[key]) for key in reversed(list(some)))  # who was asked for goes last
        log_event("adapters_loaded", adapters=len(some), pid=process.pid)
        if before is not None:
            self._retire(before)

    def _retire(self, held: _Set) -> None:
        """End a process after the last of its answers."""
        self._leaving.add(held)

        async def leave() -> None:
            await held.idle.wait()
            await asyncio.to_thread(held.process.stop)
            self._leaving.discard(held)

        task = asyncio.create_task(leave())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _started(options: LlamaOptions, adapters: Sequence[Adapter]) -> LlamaProcess:
    """A process with these adapters; it has read their files when it answers, so they are nowhere else."""
    with tempfile.TemporaryDirectory(prefix="adapters-") as name:
        files = []
        for at, adapter in enumerate(adapters):
            file = Path(name) / f"{at}.gguf"
            file.write_bytes(to_gguf(adapter))
            files.append(str(file))
        return LlamaProcess(replace(options, adapters=tuple(files)))

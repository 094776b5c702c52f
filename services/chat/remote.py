"""What vLLM needs beside its protocol: adapters that are written where it reads them, and whether it answers at all."""

from __future__ import annotations

import asyncio
import shutil
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contracts.errors import PlatformError
from contracts.lora import write_peft
from contracts.remote_engine import RemoteEngine
from services.chat.adapters import Chosen

Key = tuple[str, int]


class RemoteLease:
    """See `services.chat.adapters.Lease`."""

    def __init__(self, holder: RemoteAdapters, key: Key) -> None:
        self._holder: RemoteAdapters | None = holder
        self.process, self.members, self._key = holder.process, {"model": holder.called(key)}, key

    def release(self) -> None:
        """Let it be unloaded when others need its place."""
        holder, self._holder = self._holder, None
        if holder is not None:
            holder.left(self._key)


class RemoteAdapters:
    """See `services.chat.adapters.Holder`: vLLM loads and unloads adapters while it answers.

    Args:
        folder: that vLLM reads as well.
        most: adapters that it has at a time, while nobody is answered by more.
    """

    def __init__(self, process: RemoteEngine, folder: str, most: int) -> None:
        self.process, self._folder, self._most = process, Path(folder), most
        for name in process.adapters():  # of before this process was started again: some may be forgotten by now
            process.unload_adapter(name)
        for left in self._folder.glob("*"):
            shutil.rmtree(left, ignore_errors=True)
        self._users: OrderedDict[Key, int] = OrderedDict()  # of those that are loaded; the last one was used last
        self._lock = asyncio.Lock()

    def called(self, key: Key) -> str:
        """What vLLM calls an adapter."""
        return f"{self.process.model}:{key[0]}.{key[1]}"

    def expect(self, chosen: Chosen) -> None:
        """Nothing: vLLM loads an adapter in little time, and computes it together with others."""

    async def lease(self, chosen: Chosen) -> RemoteLease:
        """vLLM, once it has an adapter.

        Raises:
            PlatformError: it does not take it.
        """
        key = chosen.key
        async with self._lock:
            if key not in self._users:
                await asyncio.to_thread(self._load, chosen)
                self._users[key] = 0
                for other in [one for one, users in self._users.items() if not users and one != key]:
                    if len(self._users) > self._most:
                        await self._unload(other)
            self._users[key] += 1
            self._users.move_to_end(key)
        return RemoteLease(self, key)

    def left(self, key: Key) -> None:
        """One user less."""
        if key in self._users:
            self._users[key] -= 1

    def held(self) -> list[Key]:
        """The keys of the adapters that vLLM has."""
        return list(self._users)

    async def lost(self, key: Key) -> None:
        """vLLM says that it has it not: it was started again."""
        self._users.pop(key, None)

    async def drop(self, keys: Sequence[Key]) -> None:
        """Unload adapters; answers that are being written end by themselves."""
        async with self._lock:
            for key in keys:
                if key in self._users:
                    await self._unload(key)

    async def close(self) -> None:
        """Unload all."""
        await self.drop(self.held())

    def _load(self, chosen: Chosen) -> None:
        folder = self._folder / f"{chosen.key[0]}.{chosen.key[1]}"
        try:
            write_peft(chosen.adapter, folder)
        except OSError as err:
            raise PlatformError(
                "an adapter cannot be written for the engine",
                detail=f"{folder}: {err.strerror}",
                fix="mount the folder of engine.adapters in both containers",
                code="bad_settings",
                key="engine.adapters",
            ) from err
        self.process.load_adapter(self.called(chosen.key), str(folder))

    async def _unload(self, key: Key) -> None:
        self._users.pop(key, None)
        await asyncio.to_thread(self.process.unload_adapter, self.called(key))
        await asyncio.to_thread(shutil.rmtree, self._folder / f"{key[0]}.{key[1]}", True)


def remote_metrics(process: Any) -> bytes:
    """vLLM's own metrics; b"" where the engine is ours, whose are the service's."""
    return process.metrics() if isinstance(process, RemoteEngine) else b""

"""Where packed rows are kept, by address: a SQLite file, or ``redis://`` and ``rediss://`` with options."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from feature_repo.stores.packed_rows import Layout

Change = Callable[[Sequence[bytes], Sequence[bytes | None]], Sequence[bytes]]


class Backend(Protocol):
    """What online store and reader need of a database. Keys are those of `keys.py`."""

    def fetch(self, project: str, wanted: Sequence[tuple[str, Sequence[bytes]]]) -> list[list[bytes | None]]:
        """The rows of several views, ``(view, keys)`` each, in one round trip; None for keys that are not there.

        Raises:
            PlatformError: the database cannot be read (``online_unavailable``) or was never filled.
        """
        ...

    def store(
        self, project: str, view: str, layout: Layout, keys: Sequence[bytes], rows: Sequence[bytes], ttl_seconds: int
    ) -> int:
        """Write rows; of two for one key the later (event, created) stays, whoever comes first. Safe to repeat.

        Returns:
            how many rows were left out because a later one was there.

        Raises:
            PlatformError: the database cannot be written, after retries; or it is full (``online_full``).
        """
        ...

    def update(
        self, project: str, view: str, layout: Layout, keys: Sequence[bytes], change: Change, ttl_seconds: int
    ) -> None:
        """Put what `change` makes of some keys and their rows in the place of these, with nobody in between.

        `change` may be called again for the same keys, and for parts of them. Where the answer of a server to a write
        is lost, it is done once more.

        Raises:
            PlatformError: as of `store`; ``online_busy``: others change the same rows all the time.
        """
        ...

    def prepare(self, project: str, view: str) -> None:
        """Make a view known, so that reading it before the first write finds no entity instead of failing."""
        ...

    def schema(self, project: str, digest: bytes) -> Any:
        """The fields of a schema that rows were written with; None when it is not known."""
        ...

    def remove(self, project: str, view: str) -> None:
        """Delete all rows of a view."""
        ...

    def keys(self, project: str, view: str) -> Iterator[bytes]:
        """The keys of all entities of a view."""
        ...

    def delete(self, project: str, view: str, keys: Sequence[bytes]) -> int:
        """Delete the rows of some entities, so that no byte of them stays; returns how many there were."""
        ...

    def sample(self, project: str, view: str, limit: int) -> list[tuple[bytes, bytes]]:
        """Some (key, row) of a view."""
        ...

    def count(self, project: str, view: str) -> int:
        """How many entities a view has; reads all keys."""
        ...

    def close(self) -> None:
        """Give connections back."""
        ...


def open_backend(address: str, *, writing: bool = False) -> Any:
    """The backend of an address; `writing` waits and retries where reading would rather fail fast."""
    if is_redis(address):
        from feature_repo.stores.backend_redis import RedisBackend

        return RedisBackend(address, writing=writing)
    from feature_repo.stores.backend_sqlite import SqliteBackend

    return SqliteBackend(address)


def is_redis(address: str) -> bool:
    """Whether an address names a Redis server; otherwise it is a SQLite file."""
    return address.startswith(("redis://", "rediss://"))

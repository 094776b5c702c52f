"""Packed rows in one SQLite file: the embedded online store. Readers go on while a writer works."""

from __future__ import annotations

import json
import sqlite3
import struct
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from contracts.errors import PlatformError
from feature_repo.stores.packed_rows import Layout

_CHUNK = 500  # keys of one query; SQLite admits 999 parameters in old builds
_SCHEMAS = "packed_schemas"


class SqliteBackend:
    """See `backend.py` for what the methods promise. Each thread has a connection of its own.

    Args:
        file: made by the first write.  timeout: seconds to wait for another writer.
    """

    def __init__(self, file: str | Path, *, timeout: float = 30.0) -> None:
        self.file, self._timeout, self._local = Path(file), timeout, threading.local()

    def fetch(self, project: str, wanted: Sequence[tuple[str, Sequence[bytes]]]) -> list[list[bytes | None]]:
        found: list[list[bytes | None]] = []
        for view, keys in wanted:
            try:
                found.append(self._fetch(_table(project, view), keys))
            except sqlite3.OperationalError as err:
                if "no such table" not in str(err):
                    raise
                raise not_materialised(f"no table of feature view {view} in {self.file}") from err
        return found

    def _fetch(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        return self._rows(self.reading(), table, keys)

    @staticmethod
    def _rows(connection: sqlite3.Connection, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        rows: dict[bytes, bytes] = {}
        distinct = list(dict.fromkeys(keys))
        for start in range(0, max(1, len(distinct)), _CHUNK):
            part = distinct[start : start + _CHUNK]
            marks = ",".join("?" * len(part))
            rows.update(connection.execute(f"SELECT key, row FROM {table} WHERE key IN ({marks})", part).fetchall())
        return [rows.get(key) for key in keys]

    def has(self, project: str, view: str) -> bool:
        name = _name(project, view)
        return bool(self.reading().execute("SELECT 1 FROM sqlite_master WHERE name = ?", [name]).fetchone())

    def store(
        self, project: str, view: str, layout: Layout, keys: Sequence[bytes], rows: Sequence[bytes], ttl_seconds: int
    ) -> int:
        """SQLite forgets nothing by itself: `ttl_seconds` is checked when rows are read."""
        import numpy as np

        heads = np.frombuffer(b"".join(row[8:24] for row in rows), dtype="<i8").reshape(-1, 2).tolist()
        connection, table = self._writing(), _table(project, view)
        with connection:
            _make(connection, table)
            connection.execute(
                f"INSERT OR IGNORE INTO {_SCHEMAS} VALUES (?, ?)", [layout.digest, json.dumps(layout.document)]
            )
            before = connection.total_changes
            connection.executemany(
                f"""INSERT INTO {table} (key, event, created, row) VALUES (?, ?, ?, ?)
                ON CONFLICT (key) DO UPDATE SET event = excluded.event, created = excluded.created, row = excluded.row
                WHERE (excluded.event, excluded.created) >= (event, created)""",
                ((key, event, made, row) for key, (event, made), row in zip(keys, heads, rows, strict=True)),
            )
            return len(rows) - (connection.total_changes - before)

    def update(
        self, project: str, view: str, layout: Layout, keys: Sequence[bytes], change: Any, ttl_seconds: int
    ) -> None:
        connection, table = self._writing(), _table(project, view)
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            _make(connection, table)
            connection.execute(
                f"INSERT OR IGNORE INTO {_SCHEMAS} VALUES (?, ?)", [layout.digest, json.dumps(layout.document)]
            )
            rows = self._rows(connection, table, keys)
            made = [
                (key, *struct.unpack_from("<qq", row, 8), row)
                for key, row in zip(keys, change(keys, rows), strict=True)
            ]
            connection.executemany(
                f"INSERT OR REPLACE INTO {table} (key, event, created, row) VALUES (?, ?, ?, ?)", made
            )

    def prepare(self, project: str, view: str) -> None:
        connection = self._writing()
        with connection:
            _make(connection, _table(project, view))

    def schema(self, project: str, digest: bytes) -> Any:
        found = self.reading().execute(f"SELECT fields FROM {_SCHEMAS} WHERE digest = ?", [digest]).fetchone()
        return json.loads(found[0]) if found else None

    def remove(self, project: str, view: str) -> None:
        connection = self._writing()
        with connection:
            connection.execute(f"DROP TABLE IF EXISTS {_table(project, view)}")

    def keys(self, project: str, view: str) -> Iterator[bytes]:
        for (key,) in self.reading().execute(f"SELECT key FROM {_table(project, view)}"):
            yield key

    def delete(self, project: str, view: str, keys: Sequence[bytes]) -> int:
        """The file is written anew: free pages and the log of writes keep what was deleted, and former rows."""
        connection = self._writing()
        with connection:
            found = connection.executemany(
                f"DELETE FROM {_table(project, view)} WHERE key = ?", [[key] for key in keys]
            )
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return found.rowcount

    def sample(self, project: str, view: str, limit: int) -> list[tuple[bytes, bytes]]:
        query = f"SELECT key, row FROM {_table(project, view)} LIMIT {int(limit)}"
        return self.reading().execute(query).fetchall()

    def count(self, project: str, view: str) -> int:
        return int(self.reading().execute(f"SELECT count(*) FROM {_table(project, view)}").fetchone()[0])

    def reading(self) -> sqlite3.Connection:
        """A connection that cannot write.

        Raises:
            PlatformError: there is no such file.
        """
        made: sqlite3.Connection | None = getattr(self._local, "reading", None)
        if made is None:
            if not self.file.exists():
                raise not_materialised(f"no online store at {self.file}")
            made = sqlite3.connect(f"{self.file.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)
            self._local.reading = made
        return made

    def _writing(self) -> sqlite3.Connection:
        made: sqlite3.Connection | None = getattr(self._local, "writing", None)
        if made is None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            made = sqlite3.connect(self.file, timeout=self._timeout)
            made.execute("PRAGMA journal_mode=WAL")
            made.execute("PRAGMA synchronous=NORMAL")
            made.execute(f"CREATE TABLE IF NOT EXISTS {_SCHEMAS} (digest BLOB PRIMARY KEY, fields TEXT)")
            self._local.writing = made
        return made

    def close(self) -> None:
        for name in ("reading", "writing"):
            if connection := self._local.__dict__.pop(name, None):
                connection.close()


def _make(connection: sqlite3.Connection, table: str) -> None:
    columns = "key BLOB PRIMARY KEY, event INTEGER NOT NULL, created INTEGER NOT NULL, row BLOB NOT NULL"
    connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns}) WITHOUT ROWID")


def _name(project: str, view: str) -> str:
    return f"packed_{project}_{view}"


def _table(project: str, view: str) -> str:
    return '"' + _name(project, view).replace('"', '""') + '"'


def not_materialised(detail: str) -> PlatformError:
    """The error of a store that was never filled."""
    return PlatformError(
        "the online store has not been materialised",
        detail=detail,
        fix="run the task once, which materialises its features: fairlead run TASK",
        code="not_materialised",
    )

"""Vectors of passages in a database, in the place of the bundle's own: PostgreSQL with the extension pgvector.

A bundle has a table of its own, named after its digest, which the first service that starts with it fills, whole or not
at all. Labels are part of each row: who asks searches among what they may read, and the answer is checked again here.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from contracts.errors import PlatformError

if TYPE_CHECKING:
    from contracts.answering import Access

_ROWS = 5_000  # of one copy
_DIGEST = re.compile(r"[0-9a-f]{12,64}")


class PgVectors:
    """See `contracts.answering.VectorStore`.

    Args:
        address: postgresql://user:password@host:port/database.
        digest: of the bundle.
        vectors: shape (passages, dimensions), of length one or zero.

    Raises:
        PlatformError: ``code="no_vector_store"``: it cannot be reached, has no pgvector, or lets nobody make a table.
    """

    def __init__(self, address: str, digest: str, vectors: NDArray[Any], access: Access) -> None:
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"{digest!r} is no digest")
        self._address, self.table = address, f"fairlead_passages_{digest[:32]}"
        self._lock = threading.Lock()
        self._connection: Any = None
        try:
            self._fill(vectors, access)
        except ImportError as err:
            raise _refused(address, f"{err.name} is not installed", "pip install 'fairlead[answers]'") from err
        except self._errors() as err:
            raise _refused(address, str(err).splitlines()[0] if str(err) else type(err).__name__) from err

    def search(self, vector: NDArray[np.float32], count: int, labels: Sequence[str]) -> NDArray[np.int64]:
        """See `VectorStore`; a connection that broke is opened again once."""
        try:
            return self._search(vector, count, labels)
        except self._errors():
            self.close()
            return self._search(vector, count, labels)

    def close(self) -> None:
        """Leave the database; the table stays for the next service of this bundle."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _search(self, vector: NDArray[np.float32], count: int, labels: Sequence[str]) -> NDArray[np.int64]:
        query = (
            f"SELECT place FROM {self.table} WHERE labels = '{{}}' OR labels && %s::text[] "
            "ORDER BY vector <#> %s::vector, place LIMIT %s"
        )
        with self._lock:
            rows = self._open().execute(query, (list(labels), _text(vector), count)).fetchall()
        return np.array([row[0] for row in rows], dtype=np.int64)

    def _open(self) -> Any:
        if self._connection is None or self._connection.closed:
            import psycopg

            self._connection = psycopg.connect(self._address, autocommit=True, connect_timeout=10)
        return self._connection

    def _fill(self, vectors: NDArray[Any], access: Access) -> None:
        """Make the table in one transaction; two services that start at once wait for each other."""
        connection = self._open()
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (self.table,))
            if connection.execute("SELECT to_regclass(%s)", (self.table,)).fetchone()[0] is not None:
                return
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            size = int(vectors.shape[1])
            connection.execute(
                f"CREATE TABLE {self.table} "
                f"(place integer PRIMARY KEY, labels text[] NOT NULL, vector vector({size}) NOT NULL)"
            )
            copy = f"COPY {self.table} (place, labels, vector) FROM STDIN"
            with connection.cursor() as cursor, cursor.copy(copy) as out:
                for place, vector in enumerate(vectors):
                    out.write_row((place, list(access.sets[int(access.of[place])]), _text(vector)))
            if len(vectors) > _ROWS:
                connection.execute(f"CREATE INDEX ON {self.table} USING hnsw (vector vector_ip_ops)")

    @staticmethod
    def _errors() -> tuple[type[Exception], ...]:
        try:
            import psycopg
        except ImportError:
            return (OSError,)
        return (psycopg.Error, OSError)


def _text(vector: NDArray[Any]) -> str:
    return "[" + ",".join(f"{value:.7g}" for value in np.asarray(vector, dtype=np.float64).tolist()) + "]"


def _refused(address: str, detail: str, fix: str = "") -> PlatformError:
    parts = urlsplit(address)
    where = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
    return PlatformError(
        f"no vectors can be kept in {where}",
        detail=detail,
        fix=fix or "give a database with pgvector (CREATE EXTENSION vector), or leave vector_store empty",
        code="no_vector_store",
    )

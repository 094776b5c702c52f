"""Vectors of passages in the vector sets of Redis 8 or later (VADD, VSIM): a graph of HNSW, of few an exact search.

A bundle has a set of its own, named after its digest, which the first service that starts with it fills beside its
place and puts there at once, whole. It may be lost, as all that Redis keeps: whoever finds it gone fills it again.
Redis gets no texts and no labels: an element is the place of a passage, with the numbers of the labels that open it.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from contracts.errors import PlatformError
from feature_repo.stores.redis_address import connect, parse_address

if TYPE_CHECKING:
    from contracts.answering import Access

_ROWS = 500  # of one round trip
_EXACT = 5_000  # vectors that are compared one by one; of more the graph is asked
_EXPLORED = 200  # of the graph's elements, at least
_LABELS = 30  # of one filter
_FILLING = 60  # seconds after which a service that fills and says nothing is gone
_DIGEST = re.compile(r"[0-9a-f]{12,64}")


class RedisVectors:
    """See `contracts.answering.VectorStore`. A vector of length zero is like nothing and is not stored.

    Args:
        address: redis:// or rediss://, see `feature_repo.stores.redis_address`; `deadline` is that of a search.
        digest: of the bundle.
        vectors: shape (passages, dimensions), of length one or zero.
        access: who may read which passage.

    Raises:
        PlatformError: ``code="no_vector_store"``: it cannot be reached, has no vector sets, or what stands there under
            the bundle's name has other dimensions or another number of vectors; ``code="bad_settings"``: the address.
    """

    def __init__(self, address: str, digest: str, vectors: NDArray[Any], access: Access) -> None:
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"{digest!r} is no digest")
        self._address = parse_address(address)
        self.key = f"{{fairlead:passages:{digest[:32]}}}:vectors"  # in braces: all keys of a bundle are on one node
        self._vectors, self._access = vectors, access
        self._stored = np.flatnonzero(np.any(np.asarray(vectors) != 0, axis=1))
        self._numbers = {label: at for at, label in enumerate(sorted({one for each in access.sets for one in each}), 1)}
        self._lock = threading.Lock()
        self._reader = connect(self._address, writing=False)
        self._writer = connect(self._address, writing=True)
        self._checked(self._fill)

    def search(self, vector: NDArray[np.float32], count: int, labels: Sequence[str]) -> NDArray[np.int64]:
        """See `VectorStore`; a set that Redis has lost is filled again, by one request while the others wait.

        Raises:
            PlatformError: ``code="no_vector_store"``: Redis does not answer within the address's deadline.
        """
        if not len(self._stored):
            return np.zeros(0, dtype=np.int64)
        found = self._checked(lambda: self._nearest(vector, count, labels))
        if not found and not self._checked(lambda: self._reader.exists(self.key)):
            with self._lock:
                self._checked(self._fill)
            found = self._checked(lambda: self._nearest(vector, count, labels))
        return np.array(found[:count], dtype=np.int64)

    def close(self) -> None:
        """Leave Redis; the vectors stay for the next service of this bundle."""
        self._reader.close()
        self._writer.close()

    def _nearest(self, vector: NDArray[np.float32], count: int, labels: Sequence[str]) -> list[int]:
        """Places, the nearest first; many labels are asked for in parts, as a filter takes longer with each."""
        size, pipe = len(self._stored), self._reader.pipeline(transaction=False)
        asked = ["VSIM", self.key, "FP32", _bytes(vector), "WITHSCORES", "COUNT", count]
        asked += ["TRUTH"] if size <= _EXACT else ["EF", max(2 * count, _EXPLORED)]
        known = [self._numbers[label] for label in dict.fromkeys(labels) if label in self._numbers]
        for part in [[0, *known[:_LABELS]], *(known[at : at + _LABELS] for at in range(_LABELS, len(known), _LABELS))]:
            among = ["FILTER", " or ".join(f"{number} in .l" for number in part)] if self._numbers else []
            far = (
                ["FILTER-EF", size] if among and size > _EXACT else []
            )  # few that may be read, among many that may not
            pipe.execute_command(*asked, *among, *far)
        scores = {int(rows[at]): float(rows[at + 1]) for rows in pipe.execute() for at in range(0, len(rows), 2)}
        return sorted(scores, key=lambda place: (-scores[place], place))

    def _fill(self) -> None:
        """Put the set there, or wait until another service has."""
        lock, token, end = f"{self.key}:lock", secrets.token_hex(8), time.monotonic() + 3600
        while not (self._there() or not len(self._stored)):
            if self._writer.set(lock, token, nx=True, ex=_FILLING):
                try:
                    if not self._there():  # another service may have ended between the look and the lock
                        self._put(f"{self.key}:{token}", lock)
                finally:
                    self._writer.delete(lock)
                return
            if time.monotonic() > end:
                raise self._refused("another service has been filling it for an hour", "start this one again later")
            time.sleep(0.2)

    def _there(self) -> bool:
        if not self._writer.exists(self.key):
            return False
        found = self._writer.execute_command("VDIM", self.key), self._writer.execute_command("VCARD", self.key)
        wanted = self._vectors.shape[1], len(self._stored)
        if found != wanted:
            detail = "{} has {} dimensions and {} vectors, the bundle {} and {}".format(self.key, *found, *wanted)
            raise self._refused(detail, f"delete the key {self.key}: the service fills it again")
        return True

    def _put(self, aside: str, lock: str) -> None:
        for start in range(0, len(self._stored), _ROWS):
            pipe = self._writer.pipeline(transaction=False)
            for place in self._stored[start : start + _ROWS].tolist():
                labels = self._access.sets[int(self._access.of[place])]
                opened = orjson.dumps({"l": [self._numbers[one] for one in labels] or [0]})
                row = ("FP32", _bytes(self._vectors[place]), place, "NOQUANT", "SETATTR", opened)
                pipe.execute_command("VADD", aside, *row)
            pipe.expire(aside, _FILLING)  # of a service that ends here nothing stays
            pipe.expire(lock, _FILLING)
            pipe.execute()
        self._writer.persist(aside)
        if not self._writer.renamenx(aside, self.key):
            self._writer.delete(aside)

    def _checked(self, ask: Any) -> Any:
        from redis.exceptions import RedisClusterException, RedisError, ResponseError

        try:
            return ask()
        except ResponseError as err:
            if "unknown command" not in str(err).lower():
                raise self._refused(str(err)) from err
            detail = f"{self._version()} has no vector sets (VADD)"
            raise self._refused(
                detail, "use Redis 8.0 or later, or PostgreSQL with pgvector, or leave vector_store empty"
            ) from err
        except (RedisError, RedisClusterException, OSError) as err:
            raise self._refused(str(err) or type(err).__name__) from err

    def _version(self) -> str:
        from redis.exceptions import RedisError

        try:
            said = self._writer.info("server")
        except RedisError:  # who may not ask
            return "this Redis"
        return f"{str(said.get('server_name', 'Redis')).capitalize()} {said.get('redis_version', '')}".strip()

    def _refused(self, detail: str, fix: str = "") -> PlatformError:
        return PlatformError(
            f"no vectors can be kept in Redis at {self._address.place}",
            detail=detail,
            fix=fix or "check that Redis runs and can be reached (vector_store, FAIRLEAD_REDIS_PASSWORD)",
            code="no_vector_store",
        )


def _bytes(vector: NDArray[Any]) -> bytes:
    return np.asarray(vector, dtype="<f4").tobytes()

"""Hot copies of adapters in Redis, for all servers of a model, and what was answered until feedback to it comes.

Redis may lose all of it: adapters are found in their store again, feedback to answers that it forgot teaches nothing.
Addresses are those of `feature_repo.stores.redis_address`.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from threading import Event, Lock, Thread
from time import monotonic, time
from typing import Any, TypeVar

from feature_repo.stores.redis_address import connect, parse_address
from services.adapters.store import Kept
from services.logs import log_event

T = TypeVar("T")
_DIGITS = 12  # of the version before the adapter's bytes
_OTHERS = b"others"  # in the place of bytes: there is none, but the entity has one of another base
_KEEP_SECONDS = 30 * 86_400
_NONE_SECONDS = 3600  # for which it is remembered that an entity has none
_REST_SECONDS = 1.0  # for which Redis is not asked again after it has failed
_ANNOUNCED = 100_000
_FLUSH_SECONDS = 0.02
_IN_MEMORY = 20_000  # answers, of up to 2 KB
_MAX_QUEUED = 20_000

# A later version is never replaced by an earlier one. ARGV: version, value, seconds.
_WRITE = """
local old = redis.call('GETRANGE', KEYS[1], 0, 11)
if #old == 12 and tonumber(old) > tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
"""


class HotCopies:
    """Redis, as it is used for one model over one base. Safe to share between threads."""

    def __init__(self, address: str, model: str, base: str) -> None:
        self._address, self._client = parse_address(address), None
        self._head, self._base = f"fl-adapter:{model}", base[:12]
        self._rests_until = 0.0

    def get(self, entities: Sequence[str]) -> list[Kept | None] | None:
        """Of each entity what Redis has; None in the place of all where it does not answer."""
        keys = [self._key(one) for one in entities]
        mget = self.client.mget_nonatomic if self._address.cluster else self.client.mget
        found = self._asked(lambda: mget(keys), None)
        return None if found is None else [_kept(value) for value in found]

    def put(self, entity: str, kept: Kept) -> bool:
        """Keep a copy; False where Redis does not answer, or has a later version.

        It is not announced: that a copy of what is known was made changes nothing.
        """
        data = kept.data or (_OTHERS if kept.others else b"")
        value, seconds = b"%012d%b" % (kept.version, data), _KEEP_SECONDS if kept.version else _NONE_SECONDS
        key = self._key(entity)
        return bool(self._asked(lambda: self.client.eval(_WRITE, 1, key, kept.version, value, seconds), 0))

    def drop(self, entity: str) -> None:
        """Remove the copy of an entity's adapter."""
        self._asked(lambda: self.client.delete(self._key(entity)), None)

    def announce(self, entity: str) -> None:
        """Tell all servers that an entity's adapter is another one now; after it is."""
        self._asked(lambda: _announce(self.client, self._head, entity), None)

    def changes(self, last: str) -> tuple[str, list[str]] | None:
        """Entities that were announced after the mark `last`, and the next mark; None where Redis does not answer.

        Args:
            last: "" gives no entities, and the mark of now.
        """
        key = f"{self._head}:changes"

        def ask() -> tuple[str, list[str]]:
            if not last:
                newest = self.client.xrevrange(key, count=1)
                return (newest[0][0].decode() if newest else "0-0"), []
            found = self.client.xread({key: last})
            rows = found[0][1] if found else []
            return (rows[-1][0].decode() if rows else last), [row[b"entity"].decode() for _, row in rows]

        return self._asked(ask, None)

    def remember(self, answers: Mapping[str, bytes], seconds: int) -> bool:
        """Keep what was answered, by the ids of the answers; False where Redis does not answer."""

        def write() -> bool:
            pipe = self.client.pipeline(transaction=False)
            for identifier, data in answers.items():
                pipe.set(self._answer(identifier), data, ex=seconds)
            pipe.execute()
            return True

        return self._asked(write, False)

    def recall(self, identifier: str) -> bytes | None:
        """What was answered under an id."""
        found: bytes | None = self._asked(lambda: self.client.get(self._answer(identifier)), None)
        return found

    def claim(self, identifier: str, name: str, seconds: int) -> bool | None:
        """Whether nobody has learned this from this answer before; None where Redis does not answer."""
        key = f"{self._answer(identifier)}:learned"

        def write() -> bool:
            pipe = self.client.pipeline(transaction=False)
            pipe.sadd(key, name)
            pipe.expire(key, seconds)
            return bool(pipe.execute()[0])

        return self._asked(write, None)

    def release(self, identifier: str, name: str) -> None:
        """Undo a claim: what was claimed has not been learned."""
        self._asked(lambda: self.client.srem(f"{self._answer(identifier)}:learned", name), None)

    def forgotten(self, entity: str) -> float:
        """When the entity was forgotten, in seconds since 1970; 0 where it was not."""
        return float(self._asked(lambda: self.client.get(f"{self._head}:forgotten:{entity}"), None) or 0)

    @property
    def client(self) -> Any:
        """The client of redis-py, connected when it is first used."""
        if self._client is None:
            self._client = connect(self._address, writing=False)
        return self._client

    def _key(self, entity: str) -> str:
        return f"{self._head}:of:{entity}:{self._base}"

    def _answer(self, identifier: str) -> str:
        """Of this base alone: what was shown has no meaning for another one."""
        return f"{self._head}:answer:{self._base}:{identifier}"

    def _asked(self, ask: Callable[[], T], otherwise: T) -> T:
        """The answer of `ask`, or `otherwise` while Redis does not answer, which is then left alone for a second."""
        from redis.exceptions import RedisClusterException, RedisError

        if monotonic() < self._rests_until:
            return otherwise
        try:
            return ask()
        except (RedisError, RedisClusterException, OSError) as err:
            self._rests_until = monotonic() + _REST_SECONDS
            log_event("adapters_unavailable", logging.WARNING, place=self._address.place, error=type(err).__name__)
            return otherwise


def _announce(client: Any, head: str, entity: str) -> None:
    client.xadd(f"{head}:changes", {"entity": entity}, maxlen=_ANNOUNCED, approximate=True)


def _kept(value: bytes | None) -> Kept | None:
    if value is None:
        return None
    version, data = int(value[:_DIGITS]), value[_DIGITS:]
    return Kept(version=version, data=data if version else b"", others=not version and data == _OTHERS)


def forget_hot(address: str, model: str, entity: str, seconds: int) -> int:
    """Remove the hot copies of an entity, over every base, and let answers of before teach nothing; how many it had.

    Args:
        seconds: for which answers wait for feedback.

    Raises:
        redis.exceptions.RedisError: the copies may still be there.
    """
    client = connect(parse_address(address), writing=True)
    head = f"fl-adapter:{model}"
    client.set(f"{head}:forgotten:{entity}", repr(time()), ex=seconds)
    keys = list(client.scan_iter(match=f"{head}:of:{entity}:*", count=5000))
    for key in keys:
        client.delete(key)
    _announce(client, head, entity)
    client.close()
    return len(keys)


class Answers:
    """What was answered, until feedback comes: in memory, and in Redis where there is one, written by a thread.

    Args:
        hot: None where one process is all there is.
        seconds: for which answers wait.
    """

    def __init__(self, hot: HotCopies | None, seconds: int) -> None:
        self._hot, self._seconds = hot, seconds
        self._own: OrderedDict[str, tuple[float, bytes, set[str]]] = OrderedDict()
        self._queue: deque[tuple[str, bytes]] = deque(maxlen=_MAX_QUEUED)
        self._lock, self._closed = Lock(), Event()
        self._thread = Thread(target=self._write_loop, name="adapter-answers", daemon=True)
        if hot is not None:
            self._thread.start()

    def remember(self, identifier: str, data: bytes) -> None:
        """Keep what was answered under an id."""
        with self._lock:
            self._own[identifier] = (monotonic(), data, set())
            while len(self._own) > _IN_MEMORY:
                self._own.popitem(last=False)
        if self._hot is not None:
            self._queue.append((identifier, data))

    def recall(self, identifier: str) -> bytes | None:
        """What was answered under an id; None where nobody knows any more."""
        with self._lock:
            own = self._own.get(identifier)
        if own is not None and monotonic() - own[0] < self._seconds:
            return own[1]
        return None if self._hot is None else self._hot.recall(identifier)

    def claim(self, identifier: str, name: str) -> bool:
        """Whether nobody has learned this from this answer before: of many who ask, one is told so."""
        if self._hot is not None:
            found = self._hot.claim(identifier, name, self._seconds)
            if found is not None:
                return found
        with self._lock:
            learned = self._own.get(identifier, (0.0, b"", {name}))[2]
            if name in learned:
                return False
            learned.add(name)
            return True

    def release(self, identifier: str, name: str) -> None:
        """Undo a claim."""
        if self._hot is not None:
            self._hot.release(identifier, name)
        with self._lock:
            if identifier in self._own:
                self._own[identifier][2].discard(name)

    def close(self) -> None:
        """Write what is queued and end the thread."""
        self._closed.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=5)

    def _write_loop(self) -> None:
        assert self._hot is not None
        closed = False
        while not closed:
            closed = self._closed.wait(_FLUSH_SECONDS)
            if self._queue:
                taken = dict(self._queue.popleft() for _ in range(len(self._queue)))
                self._hot.remember(taken, self._seconds)

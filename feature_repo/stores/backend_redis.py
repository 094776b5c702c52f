"""Packed rows in Redis: one string per entity and view, read by one MGET, written by a script that compares moments.

`redis_address.py` says what addresses there are. Keys of one entity share a hash tag of 1,024, so that in a cluster all
views of an entity are on one node and one script writes many of its rows.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any, TypeVar
from urllib.parse import quote
from zlib import crc32

from contracts.errors import PlatformError
from feature_repo.stores.packed_rows import Layout
from feature_repo.stores.redis_address import connect, parse_address

_TAGS = [b"{%03x}" % number for number in range(1024)]
_PER_SCRIPT = 500  # rows: about 1 ms, in which the server answers nobody else
_PER_TRIP = 8_000
_PER_CHANGE, _TRIES = 50, 100  # rows that are changed at once, and how often
_PER_MGET = 10_000  # rows of one answer: about 5 ms, in which the server answers nobody else
_ATTEMPTS, _PAUSE = 18, 0.1  # writing: 0.1, 0.2, 0.4, then 0.8 seconds: 12 in all, which a failover takes
_KEEP = 86_400  # seconds longer than a view's time to live, so that a reader can tell "too old" from "unknown"

# ARGV[1]: seconds to keep; ARGV[i + 1]: the row for KEYS[i]. Moments are compared as two halves, since Lua's numbers
# are exact to 53 bits only.
_WRITE = """
local kept = 0
for i, key in ipairs(KEYS) do
  local row, newer = ARGV[i + 1], true
  local old = redis.call('GETRANGE', key, 8, 23)
  if #old == 16 then
    local el, eh, cl, ch = struct.unpack('<I4i4I4i4', row, 9)
    local ol, oh, pl, ph = struct.unpack('<I4i4I4i4', old)
    if eh ~= oh then newer = eh > oh
    elseif el ~= ol then newer = el > ol
    elseif ch ~= ph then newer = ch > ph
    else newer = cl >= pl end
  end
  if not newer then kept = kept + 1
  elseif ARGV[1] == '0' then redis.call('SET', key, row)
  else redis.call('SET', key, row, 'EX', ARGV[1]) end
end
return kept
"""

# ARGV: what the row was, empty where there was none; what it is to be; and seconds to keep, or nothing.
_REPLACE = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
if ARGV[3] == '' then redis.call('SET', KEYS[1], ARGV[2])
else redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) end
return 1
"""

T = TypeVar("T")


def redis_keys(project: str, view: str, keys: Iterable[bytes]) -> list[bytes]:
    """Names of the rows of entities in Redis."""
    head = _head(project, view)
    return [head + tagged for tagged in _tagged(keys)]


@lru_cache(maxsize=4096)
def _head(project: str, view: str) -> bytes:
    return f"fl:{quote(project)}:{quote(view)}:".encode()


@lru_cache(maxsize=4096)
def _begin(project: str, view: str, size: int) -> bytes:
    """What stands before a name's last `size` bytes in a command."""
    head = _head(project, view)
    return b"$%d\r\n%b" % (len(head) + size, head)


def _tagged(keys: Iterable[bytes]) -> list[bytes]:
    return [_TAGS[crc32(key) & 1023] + key for key in keys]


def mget(project: str, wanted: Sequence[tuple[str, Sequence[bytes]]]) -> bytes:
    """The MGET of the rows of several views in Redis' protocol: packed by joining, a client packs name by name."""
    shared: dict[int, tuple[list[bytes], set[int]]] = {}  # views of one entity have the same list of keys
    parts = []
    for view, keys in wanted:
        if not keys:
            continue
        if id(keys) not in shared:
            tagged = _tagged(keys)
            shared[id(keys)] = tagged, set(map(len, tagged))
        tagged, sizes = shared[id(keys)]
        if len(sizes) == 1:
            begin = _begin(project, view, len(tagged[0]))
            parts.append(begin + (b"\r\n" + begin).join(tagged))
        else:
            parts.append(b"\r\n".join([_begin(project, view, len(name)) + name for name in tagged]))
    count = sum(len(keys) for _, keys in wanted)
    return b"*%d\r\n$4\r\nMGET\r\n%b\r\n" % (count + 1, b"\r\n".join(parts))


class RedisBackend:
    """See `backend.py` for what the methods promise. Safe to share between threads."""

    def __init__(self, address: str, *, writing: bool = False) -> None:
        self.address = parse_address(address)
        self._writing, self._client, self._script = writing, None, ""
        self._schemas: set[tuple[str, bytes]] = set()
        self._idle: deque[Any] = deque()  # connections of `_ask`: as many as there were readers at once
        self._process = os.getpid()

    @property
    def client(self) -> Any:
        """The redis-py client, connected when it is first used."""
        if self._client is None:
            self._client = connect(self.address, self._writing)
        return self._client

    def fetch(self, project: str, wanted: Sequence[tuple[str, Sequence[bytes]]]) -> list[list[bytes | None]]:
        count = sum(len(keys) for _, keys in wanted)
        if not count:
            rows: list[bytes | None] = []
        elif self.address.cluster or count > _PER_MGET:
            rows = self._many([name for view, keys in wanted for name in redis_keys(project, view, keys)])
        else:
            rows = self.reading(lambda: self._ask(mget(project, wanted)))
        at, found = 0, []
        for _, keys in wanted:
            found.append(rows[at : at + len(keys)])
            at += len(keys)
        return found

    def _ask(self, command: bytes) -> Any:
        """The answer to a packed command, on a connection of redis-py but past its client, which takes longer than the
        server. A connection that went stale is replaced once."""
        from redis.exceptions import ConnectionError as Lost

        if self._process != os.getpid():  # after a fork, connections are the parent's
            self._process, self._idle = os.getpid(), deque()
        attempts: tuple[bool, ...] = (True, False)  # whether the connection may be stale
        try:
            connection = self._idle.pop()
        except IndexError:
            pool = self.client.connection_pool
            connection, attempts = pool.connection_class(**pool.connection_kwargs), (False,)
        for may_be_stale in attempts:
            try:
                if not may_be_stale:
                    connection.connect()  # which asks sentinels, other than connecting while sending
                connection.send_packed_command([command])
                answer = connection.read_response(disable_decoding=True)
                break
            except BaseException as err:
                connection.disconnect()  # the answer may still come: it must never be taken for the next one's
                if not (may_be_stale and isinstance(err, Lost)):
                    raise
        self._idle.append(connection)
        return answer

    def _many(self, names: list[bytes]) -> list[bytes | None]:
        """Rows by name, however many there are; in a cluster, from every node at once."""
        if not self.address.cluster:
            parts = [names[at : at + _PER_MGET] for at in range(0, len(names), _PER_MGET)]
            return [row for part in parts for row in self.reading(partial(self.client.mget, part))]
        groups: dict[bytes, list[int]] = {}
        for at, name in enumerate(names):
            groups.setdefault(_tag(name), []).append(at)
        pipe = self.client.pipeline()
        for places in groups.values():
            pipe.execute_command("MGET", *[names[at] for at in places])
        merged: list[bytes | None] = [None] * len(names)
        for places, part in zip(groups.values(), self.reading(pipe.execute), strict=True):
            for at, row in zip(places, part, strict=True):
                merged[at] = row
        return merged

    def reading(self, ask: Callable[[], T]) -> T:
        """The answer of `ask`; errors of Redis become the PlatformError of an unavailable store."""
        from redis.exceptions import RedisClusterException, RedisError

        try:
            return ask()
        except (RedisError, RedisClusterException, OSError) as err:
            raise PlatformError(
                "the online store cannot be read",
                detail=f"{self.address.place}: {type(err).__name__}: {err}",
                fix="check that Redis runs and can be reached; the option deadline says how long a read may take",
                code="online_unavailable",
            ) from err

    def has(self, project: str, view: str) -> bool:
        return True

    def prepare(self, project: str, view: str) -> None:
        self._retrying(lambda: self.client.ping(), 0)

    def store(
        self, project: str, view: str, layout: Layout, keys: Sequence[bytes], rows: Sequence[bytes], ttl_seconds: int
    ) -> int:
        self._add_schema(project, layout)
        keep, skipped = ttl_seconds + _KEEP if ttl_seconds else 0, 0
        for start in range(0, len(rows), _PER_TRIP):
            names = redis_keys(project, view, keys[start : start + _PER_TRIP])
            part = rows[start : start + _PER_TRIP]
            skipped += self._retrying(partial(self._write, names, part, keep), start)
        return skipped

    def update(
        self, project: str, view: str, layout: Layout, keys: Sequence[bytes], change: Any, ttl_seconds: int
    ) -> None:
        """By optimistic locking; on a cluster, where rows of one view are on many nodes, one row at a time."""
        self._add_schema(project, layout)
        keep = ttl_seconds + _KEEP if ttl_seconds else None
        at_once = 1 if self.address.cluster else _PER_CHANGE
        for start in range(0, len(keys), at_once):
            part = keys[start : start + at_once]
            self._retrying(partial(self._change, redis_keys(project, view, part), partial(change, part), keep), start)

    def _change(
        self, names: list[bytes], change: Callable[[Sequence[bytes | None]], Sequence[bytes]], keep: Any
    ) -> None:
        from redis.exceptions import WatchError

        for _ in range(_TRIES):
            if self.address.cluster:
                row = self.client.get(names[0])
                if self.client.eval(_REPLACE, 1, names[0], row or b"", change([row])[0], keep or ""):
                    return
                continue
            with self.client.pipeline(transaction=True) as pipe:
                try:
                    pipe.watch(*names)
                    rows = pipe.mget(names)
                    pipe.multi()
                    for name, row in zip(names, change(rows), strict=True):
                        pipe.set(name, row, ex=keep)
                    pipe.execute()
                    return
                except WatchError:
                    continue
        raise PlatformError(
            "rows of the online store are changed by others all the time",
            detail=f"tried {_TRIES} times",
            fix="try again",
            code="online_busy",
        )

    def _write(self, names: list[bytes], rows: Sequence[bytes], keep: int) -> int:
        from redis.exceptions import NoScriptError

        pipe = self.client.pipeline(transaction=False)
        self._script = self._script or self.client.script_load(_WRITE)
        for places in self._scripts(names):
            given = [rows[at] for at in places]
            # Otherwise redis-py asks a node which keys every script has, and fails for ever when that node is lost.
            where = {"target_nodes": self.client.get_node_from_key(names[places[0]])} if self.address.cluster else {}
            command = ("EVALSHA", self._script, len(places), *[names[at] for at in places], keep, *given)
            pipe.execute_command(*command, **where)
        try:
            return sum(pipe.execute())
        except NoScriptError:  # a server that was restarted, or took over
            self._script = ""
            raise

    def _scripts(self, names: list[bytes]) -> Iterator[Sequence[int]]:
        """Places of the rows of each script: in a cluster, only those of one hash tag."""
        if not self.address.cluster:
            yield from (range(at, min(at + _PER_SCRIPT, len(names))) for at in range(0, len(names), _PER_SCRIPT))
            return
        groups: dict[bytes, list[int]] = {}
        for at, name in enumerate(names):
            groups.setdefault(_tag(name), []).append(at)
        yield from groups.values()

    def _retrying(self, write: Callable[[], T], written: int) -> T:
        """Call `write` until it succeeds; writes are safe to repeat because the later row always stays."""
        from redis.exceptions import (
            AuthenticationError,
            ReadOnlyError,
            RedisClusterException,
            RedisError,
            ResponseError,
        )

        for attempt in range(_ATTEMPTS):
            try:
                return write()
            except (RedisError, RedisClusterException, OSError) as err:
                full = isinstance(err, ResponseError) and ("OOM" in str(err) or "maxmemory" in str(err))
                if full or isinstance(err, AuthenticationError) or attempt == _ATTEMPTS - 1:
                    raise self._not_written(err, full, attempt + 1, written) from err
                if isinstance(err, ReadOnlyError) and not self.address.cluster:
                    self.client.connection_pool.disconnect()  # a primary no more: the address may lead to another now
                time.sleep(_PAUSE * min(2**attempt, 8))
        raise AssertionError

    def _not_written(self, err: Exception, full: bool, attempts: int, written: int) -> PlatformError:
        return PlatformError(
            "the online store is full" if full else "the online store cannot be written",
            detail=f"{self.address.place}: {err} (tried {attempts} times; {written} rows of this batch are written)",
            fix="give Redis more memory (maxmemory), then materialise again"
            if full
            else "check that Redis runs, can be reached and accepts the password; then materialise again",
            code="online_full" if full else "online_unavailable",
            rows_written=written,
        )

    def _add_schema(self, project: str, layout: Layout) -> None:
        if (project, layout.digest) not in self._schemas:
            text = json.dumps(layout.document)
            self._retrying(lambda: self.client.set(_schema_key(project, layout.digest), text), 0)
            self._schemas.add((project, layout.digest))

    def schema(self, project: str, digest: bytes) -> Any:
        found = self.reading(lambda: self.client.get(_schema_key(project, digest)))
        return json.loads(found) if found else None

    def names(self, project: str, view: str) -> Iterator[bytes]:
        """The names of all rows of a view, in no order; each has a tag, which keys of others have not."""
        pattern = f"fl:{_literal(quote(project))}:{_literal(quote(view))}:{{*"
        yield from self.client.scan_iter(match=pattern, count=5000)

    def remove(self, project: str, view: str) -> None:
        batch: list[bytes] = []
        for name in self.names(project, view):
            batch.append(name)
            if len(batch) == _PER_SCRIPT:
                self._unlink(batch)
                batch = []
        self._unlink(batch)

    def keys(self, project: str, view: str) -> Iterator[bytes]:
        head = len(_head(project, view)) + len(_TAGS[0])
        for name in self.names(project, view):
            yield name[head:]

    def delete(self, project: str, view: str, keys: Sequence[bytes]) -> int:
        """Of the server's memory; its files on disk keep rows until they are written anew."""
        return self._unlink(redis_keys(project, view, keys))

    def _unlink(self, names: list[bytes]) -> int:
        pipe = self.client.pipeline(transaction=False)
        for name in names:
            pipe.execute_command("UNLINK", name)
        return sum(self._retrying(pipe.execute, 0))

    def sample(self, project: str, view: str, limit: int) -> list[tuple[bytes, bytes]]:
        names: list[bytes] = []
        for name in self.names(project, view):
            names.append(name)
            if len(names) == limit:
                break
        rows = self._many(names)
        head = len(f"fl:{quote(project)}:{quote(view)}:") + len(_TAGS[0])
        return [(name[head:], row) for name, row in zip(names, rows, strict=True) if row is not None]

    def count(self, project: str, view: str) -> int:
        return sum(1 for _ in self.names(project, view))

    def close(self) -> None:
        while self._idle:
            self._idle.pop().disconnect()
        if self._client is not None:
            self._client.close()
            self._client = None


def _tag(name: bytes) -> bytes:
    at = name.index(b"{")
    return name[at : at + 5]


def _literal(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "*?[]\\^-" else letter for letter in text)


def _schema_key(project: str, digest: bytes) -> str:
    return f"fl-schema:{quote(project)}:{digest.hex()}"

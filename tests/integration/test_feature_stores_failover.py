"""A Redis that fails over: reads give flagged defaults in time and recover by themselves, writes wait or report."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from contracts.errors import PlatformError
from feature_repo.stores.backend_redis import RedisBackend
from feature_repo.stores.packed_rows import Layout
from feature_repo.stores.reader import OnlineReader
from tests.integration import redis_servers as servers
from tests.integration.redis_servers import until
from tests.integration.test_feature_stores_redis import LAYOUT, PLAN, names, rows, stored, write_numbers

pytestmark = pytest.mark.integration

DEADLINE = 0.3


class Watch:
    """Asks for `entities` again and again."""

    def __init__(self, address: str, entities: list[str]) -> None:
        self.reader = OnlineReader(PLAN, f"{address}&deadline={DEADLINE}")
        self.entities, self.over = entities, threading.Event()
        self.seen: list[tuple[float, set[str], list[float]]] = []
        """Seconds that a read took, its statuses, and the values."""

    def run(self) -> None:
        while not self.over.is_set():
            start = time.monotonic()
            read = self.reader.read({"k": self.entities})
            took = time.monotonic() - start
            self.seen.append((took, set(read.status["v"]), read.columns["v_x"].tolist()))
            time.sleep(0.01)

    def sees(self, status: str) -> bool:
        """Whether the last read had this status only."""
        return bool(self.seen) and self.seen[-1][1] == {status}


@contextmanager
def watching(address: str, entities: list[str]) -> Iterator[Watch]:
    watch = Watch(address, entities)
    thread = threading.Thread(target=watch.run)
    thread.start()
    try:
        until("reads are answered", lambda: watch.sees("PRESENT"))
        yield watch
    finally:
        watch.over.set()
        thread.join()


def check(watch: Watch, expected: list[float]) -> None:
    """No read hung, and none gave a value that is not the entity's."""
    statuses = [found for _, found, _ in watch.seen]
    assert {"UNAVAILABLE"} in statuses
    assert statuses[-1] == {"PRESENT"}
    assert max(took for took, _, _ in watch.seen) < 100 * DEADLINE  # this machine may be busy
    assert all(values == expected for _, found, values in watch.seen if found == {"PRESENT"})


def write(address: str, value: int, event: int) -> None:
    """A later row of ``key-0``; returns when it is written."""
    RedisBackend(address, writing=True).store("p", "v", LAYOUT, names(1), rows([value], event), 0)


def test_a_replica_that_a_sentinel_promotes_takes_over(tmp_path: Path) -> None:
    with servers.watched(tmp_path) as (primary, replica, address):
        entities = write_numbers(address, 20)
        write(address, 1, event=1)
        until("the replica has it all", lambda: replica.client.dbsize() == primary.client.dbsize())
        writer = RedisBackend(address, writing=True)  # connected to what will be lost
        writer.store("p", "v", LAYOUT, names(1), rows([2], 2), 0)
        with watching(address, entities) as watch:
            with servers.no_promotion(address):
                primary.kill()
                until("reads fail", lambda: watch.sees("UNAVAILABLE"))
            writer.store("p", "v", LAYOUT, names(1), rows([3], 3), 0)  # waits for the new primary
            until("reads recover", lambda: watch.sees("PRESENT"))
        check(watch, list(range(20)))
        assert stored(RedisBackend(f"redis://127.0.0.1:{replica.port}/0"), names(1)) == [3]


def test_a_cluster_that_loses_a_primary_goes_on(tmp_path: Path) -> None:
    with servers.cluster(tmp_path, replicas=1) as nodes:
        address = f"redis://127.0.0.1:{nodes[1].port}?cluster=true"
        entities = write_numbers(address, 300)
        until("replicas are in step", lambda: sum(node.client.dbsize() for node in nodes) == 2 * (600 + 2))
        lost = next(node for node in nodes if node is not nodes[1] and "master" in node.client.info()["role"])
        writer = RedisBackend(address, writing=True)
        writer.store("p", "w", LAYOUT, names(500), rows([1] * 500, 1), 0)
        with watching(address, entities) as watch:
            with servers.no_failover(nodes):
                lost.kill()
                until("reads fail", lambda: watch.sees("UNAVAILABLE"))
            assert writer.store("p", "w", LAYOUT, names(500), rows([2] * 500, 2), 0) == 0
            until("reads recover", lambda: watch.sees("PRESENT"))
        check(watch, list(range(300)))
        found = RedisBackend(address).fetch("p", [("w", names(500))])[0]
        decoded = Layout(LAYOUT.document).decode(found)
        assert decoded is not None
        assert decoded.records["int64"][:, 0].tolist() == [2] * 500


def test_a_writer_that_meets_a_replica_waits_for_the_primary(tmp_path: Path) -> None:
    """The address still leads to a server that is the primary no more."""
    one, two = servers.Server(tmp_path / "one"), servers.Server(tmp_path / "two")
    try:
        writer = RedisBackend(one.address, writing=True)
        writer.store("p", "v", LAYOUT, names(1), rows([1], 1), 0)
        one.client.replicaof("127.0.0.1", two.port)
        back = threading.Timer(0.6, lambda: one.client.replicaof("NO", "ONE"))
        back.start()
        writer.store("p", "v", LAYOUT, names(1), rows([2], 2), 0)
        back.join()
        assert stored(RedisBackend(one.address), names(1)) == [2]
    finally:
        one.stop()
        two.stop()


def test_a_writer_reports_that_nobody_took_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feature_repo.stores.backend_redis._PAUSE", 0.001)
    with servers.watched(tmp_path) as (primary, replica, address):
        write(address, 1, event=1)
        replica.kill()
        primary.kill()
        with pytest.raises(PlatformError, match="cannot be written") as caught:
            write(address, 2, event=2)
        assert (caught.value.code, caught.value.context["rows_written"]) == ("online_unavailable", 0)
        assert "(primary store)" in caught.value.detail

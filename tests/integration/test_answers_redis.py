"""Vectors of passages in a real Redis 8: who may read what, several services, what Redis loses, and what is refused."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.answering import Access
from contracts.errors import PlatformError
from contracts.text_vectors import unit
from services.answers import redis_vectors
from services.answers.redis_vectors import RedisVectors
from tests.integration.redis_servers import Server, newer_redis
from tests.problem_bundles import small_answerer

pytestmark = pytest.mark.integration
RNG = np.random.default_rng(0)
VECTORS = unit(np.concatenate([RNG.normal(size=(299, 8)), np.zeros((1, 8))]))
ACCESS = Access([[], ["a", "b"], ["c"]], RNG.integers(0, 3, 300).astype(np.int32))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = Server(tmp_path_factory.mktemp("redis"), program=newer_redis())
    yield found
    found.stop()


def wanted(vector: Any, labels: list[str], count: int = 10) -> list[int]:
    allowed = ACCESS.allowed(labels) & VECTORS.any(axis=1)
    order = np.argsort(-np.where(allowed, VECTORS @ vector, -9), kind="stable")[:count]
    return [int(place) for place in order]


def test_vectors_are_searched_among_what_may_be_read(server: Server) -> None:
    store = RedisVectors(server.address, secrets.token_hex(8), VECTORS, ACCESS)
    for labels in ([], ["a"], ["c", "b"], ['"] or 1 == 1 or "'], [f"x{at}" for at in range(99)] + ["c"]):
        assert store.search(VECTORS[7], 10, labels).tolist() == wanted(VECTORS[7], labels)
    assert server.client.keys("*passages*") == [store.key.encode()], "nothing else is left there"
    assert server.client.ttl(store.key) == -1
    store.close()


def test_many_labels_are_asked_for_in_parts(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_vectors, "_LABELS", 1)
    store = RedisVectors(server.address, secrets.token_hex(8), VECTORS, ACCESS)
    assert store.search(VECTORS[3], 20, ["c", "b", "a"]).tolist() == wanted(VECTORS[3], ["a", "c"], 20)


def test_of_many_the_graph_is_asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_vectors, "_EXACT", 10)
    few = Access([["x"], ["c"]], (np.arange(300) % 50 == 0).astype(np.int32))
    store = RedisVectors(server.address, secrets.token_hex(8), VECTORS, few)
    assert sorted(store.search(VECTORS[5], 10, ["c"]).tolist()) == [0, 50, 100, 150, 200, 250], "few are all found"
    assert store.search(VECTORS[5], 10, []).tolist() == []
    near = np.argsort(-np.where(few.allowed(["x"]), VECTORS @ VECTORS[5], -9))[:10]
    assert len(set(near.tolist()) & set(store.search(VECTORS[5], 10, ["x"]).tolist())) >= 9


def added(server: Server) -> int:
    return int(server.client.info("commandstats").get("cmdstat_VADD", {"calls": 0})["calls"])


def test_several_services_fill_it_once_and_again_when_it_is_lost(server: Server) -> None:
    digest, before = secrets.token_hex(8), added(server)
    with ThreadPoolExecutor(3) as pool:
        stores = list(pool.map(lambda _: RedisVectors(server.address, digest, VECTORS, ACCESS), range(3)))
    assert added(server) - before == 299
    server.client.flushall()
    assert stores[1].search(VECTORS[0], 3, []).tolist() == wanted(VECTORS[0], [], 3)
    assert server.client.execute_command("VCARD", stores[0].key) == 299


def test_who_gets_the_lock_after_another_has_filled_it_fills_nothing(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RedisVectors(server.address, secrets.token_hex(8), VECTORS, ACCESS)
    before, looks, there = added(server), iter([False]), store._there
    monkeypatch.setattr(store, "_there", lambda: next(looks, None) is None and there())
    store._fill()
    assert added(server) == before
    assert server.client.exists(f"{store.key}:lock") == 0


def test_what_stands_there_is_of_this_bundle(server: Server) -> None:
    digest = secrets.token_hex(8)
    key = RedisVectors(server.address, digest, VECTORS, ACCESS).key
    with pytest.raises(PlatformError, match="no vectors can be kept") as refused:
        RedisVectors(server.address, digest, VECTORS[:, :4], ACCESS)
    assert "has 8 dimensions and 299 vectors, the bundle 4 and 299" in refused.value.detail
    assert key in refused.value.fix


def test_a_redis_without_vector_sets_is_named_with_what_to_do(tmp_path: Path) -> None:
    old = Server(tmp_path)
    try:
        with pytest.raises(PlatformError) as refused:
            RedisVectors(old.address, secrets.token_hex(8), VECTORS, ACCESS)
    finally:
        old.stop()
    assert refused.value.code == "no_vector_store"
    assert "has no vector sets (VADD)" in refused.value.detail
    assert refused.value.detail.startswith("Redis 7."), "Debian's"
    assert "Redis 8.0 or later" in refused.value.fix


def test_a_server_that_is_away_is_said_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match=r"no vectors can be kept in Redis at 127\.0\.0\.1:9") as refused:
        RedisVectors("redis://me:secret@127.0.0.1:9/0", "0" * 12, VECTORS, ACCESS)
    assert "secret" not in str(refused.value)
    ends = Server(tmp_path, program=newer_redis())
    store = RedisVectors(ends.address, "0" * 12, VECTORS, ACCESS)
    ends.stop()
    with pytest.raises(PlatformError) as refused:
        store.search(VECTORS[0], 3, [])
    assert refused.value.code == "no_vector_store"


def test_an_answerer_takes_its_vectors_from_there(server: Server, tmp_path: Path) -> None:
    class Encoder:
        def of(self, texts: Any) -> Any:
            return unit(np.ones((len(texts), 4)))

    model = replace(small_answerer(tmp_path), vectors=unit(np.ones((6, 4))), encoder=Encoder())
    store = RedisVectors(server.address, secrets.token_hex(8), model.vectors, model.access)
    there = replace(model, elsewhere=store)
    for labels in ([], ["staff"], ["board"]):
        asked = "How long is the warranty of the Ora pump?"
        assert there.answer(asked, labels) == model.answer(asked, labels)

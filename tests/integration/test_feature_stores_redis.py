"""The packed store on a real Redis: alone, with TLS and password, as a cluster, and in every kind of trouble."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.errors import PlatformError
from feature_repo.stores.backend_redis import RedisBackend
from feature_repo.stores.packed_rows import NEVER, Layout
from tests import feature_stores as repos
from tests.integration import redis_servers as servers

pytestmark = pytest.mark.integration


LAYOUT = Layout([{"name": "x", "dtype": "int64"}])
PLAN: dict[str, Any] = {
    "project": "p",
    "views": [
        {
            "name": name,
            "join_keys": [{"name": "k", "dtype": "string"}],
            "features": [{"name": f"{name}_x", "dtype": "int64"}],
            "ttl_seconds": 0,
        }
        for name in ("v", "w")
    ],
}


def rows(values: list[int], event: int, created: int = NEVER, layout: Layout = LAYOUT) -> list[bytes]:
    n = len(values)
    name = layout.fields[0][0]
    return layout.encode({name: np.array(values)}, {}, np.full(n, event), np.full(n, created))


def names(n: int) -> list[bytes]:
    return [f"key-{at}".encode() for at in range(n)]


def stored(backend: RedisBackend, keys: list[bytes]) -> list[int | None]:
    decoded = LAYOUT.decode(backend.fetch("p", [("v", keys)])[0])
    assert decoded is not None
    values = LAYOUT.values(decoded, "x").tolist()
    return [value if found else None for value, found in zip(values, decoded.found.tolist(), strict=True)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Any]:
    made = servers.Server(tmp_path / "redis")
    yield made
    made.stop()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feature_repo.stores.backend_redis._PAUSE", 0.01)


EDGES = [0, 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**53 + 1, 2**62, -1, -(2**32), -(2**53) - 1]


@pytest.mark.parametrize("first", EDGES)
def test_the_server_compares_moments_exactly(server: Any, first: int) -> None:
    backend = RedisBackend(server.address, writing=True)
    for second in EDGES:
        backend.client.flushdb()
        assert backend.store("p", "v", LAYOUT, [b"a"], rows([1], first), 0) == 0
        assert backend.store("p", "v", LAYOUT, [b"a"], rows([2], second), 0) == int(second < first)
        assert stored(backend, [b"a"]) == [2 if second >= first else 1]
        assert backend.store("p", "w", LAYOUT, [b"a"], rows([1], 5, first), 0) == 0
        assert backend.store("p", "w", LAYOUT, [b"a"], rows([2], 5, second), 0) == int(second < first)


def test_many_writers_at_once_leave_the_newest(server: Any) -> None:
    keys, moments = names(50), np.random.default_rng(0).permutation(40)

    def write(part: Any) -> None:
        backend = RedisBackend(server.address, writing=True)
        for moment in part.tolist():
            backend.store("p", "v", LAYOUT, keys, rows([moment] * 50, moment), 0)

    threads = [threading.Thread(target=write, args=[part]) for part in np.array_split(moments, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stored(RedisBackend(server.address), keys) == [39] * 50


def test_keys_expire_after_the_time_to_live_and_are_renewed_by_every_write(server: Any) -> None:
    backend = RedisBackend(server.address, writing=True)
    backend.store("p", "v", LAYOUT, [b"a"], rows([1], 5), 100)
    name = next(backend.names("p", "v"))
    assert 86_400 < server.client.ttl(name) <= 86_500
    server.client.expire(name, 10)
    backend.store("p", "v", LAYOUT, [b"a"], rows([1], 5), 100)
    assert server.client.ttl(name) > 86_400
    backend.store("p", "w", LAYOUT, [b"a"], rows([1], 5), 0)
    assert server.client.ttl(next(backend.names("p", "w"))) == -1


def test_views_are_counted_sampled_and_removed_by_themselves(server: Any) -> None:
    backend = RedisBackend(server.address, writing=True)
    backend.store("p", "v", LAYOUT, names(1500), rows([1] * 1500, 5), 0)
    backend.store("p", "v2", LAYOUT, names(3), rows([1] * 3, 5), 0)
    assert (backend.count("p", "v"), backend.count("p", "v2")) == (1500, 3)
    assert {key for key, _ in backend.sample("p", "v2", 10)} == set(names(3))
    backend.remove("p", "v")
    assert (backend.count("p", "v"), backend.count("p", "v2")) == (0, 3)


def test_rows_of_some_entities_are_deleted(server: Any) -> None:
    backend = RedisBackend(server.address, writing=True)
    backend.store("p", "v", LAYOUT, names(20), rows([1] * 20, 5), 0)
    assert set(backend.keys("p", "v")) == set(names(20))
    assert backend.delete("p", "v", [*names(3), b"nobody"]) == 3
    assert set(backend.keys("p", "v")) == set(names(20)) - set(names(3))


def test_keys_of_others_in_the_same_database_are_left_alone(server: Any) -> None:
    server.client.rpush("fl:p:v:theirs", "a", "b")
    server.client.set("fl:p:v", "theirs")
    server.client.hset("p:v", "field", "theirs")
    server.client.sadd("fl-schema:theirs", "x")
    before = {name: server.client.dump(name) for name in server.client.scan_iter()}
    backend = RedisBackend(server.address, writing=True)
    backend.store("p", "v", LAYOUT, names(5), rows([1] * 5, 5), 0)
    assert backend.count("p", "v") == len(backend.sample("p", "v", 10)) == 5
    backend.remove("p", "v")
    assert backend.count("p", "v") == 0
    assert {name: server.client.dump(name) for name in before} == before


def test_several_views_are_one_command(server: Any) -> None:
    from feature_repo.stores.reader import OnlineReader

    writer = RedisBackend(server.address, writing=True)
    for view in PLAN["views"]:
        layout = Layout(view["features"])
        writer.store("p", view["name"], layout, [b""], rows([1], 5, layout=layout), 0)
    reader = OnlineReader(PLAN, server.address)
    reader.read({"k": ["a"]})
    before = server.client.info("commandstats")
    reader.read({"k": [str(at) for at in range(200)]})
    after = server.client.info("commandstats")
    assert after["cmdstat_mget"]["calls"] - before["cmdstat_mget"]["calls"] == 1


def test_a_cluster_of_three_keeps_and_gives_everything(tmp_path: Path) -> None:
    with servers.cluster(tmp_path) as nodes:
        address = f"redis://127.0.0.1:{nodes[0].port}?cluster=true"
        store = RedisBackend(address, writing=True)
        keys = names(20_000)
        assert store.store("p", "v", LAYOUT, keys, rows(list(range(20_000)), 5), 60) == 0
        assert store.store("p", "v", LAYOUT, keys, rows([0] * 20_000, 4), 60) == 20_000
        assert stored(RedisBackend(address), keys) == list(range(20_000))
        assert all(node.client.dbsize() > 4_000 for node in nodes)
        assert store.count("p", "v") == 20_000
        repos.write_history(tmp_path, "v", [{"driver": "a", "event": repos.second(0), "f64": 1.5}])
        view, _ = repos.view_of("v", ["f64"])
        repos.materialise_view(repos.engine(tmp_path, address), view, repos.second(-1), repos.second(1))
        assert RedisBackend(address).count("test", "v") == 1


def test_tls_and_passwords(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject]
    subprocess.run([*make, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    port = servers.free_port()
    tls = ["--tls-port", str(port), "--port", "0", "--tls-auth-clients", "no", "--requirepass", "s3cret"]
    files = ["--tls-cert-file", str(cert), "--tls-key-file", str(key), "--tls-ca-cert-file", str(cert)]
    made = servers.Server(tmp_path / "redis", *tls, *files, port=port)
    try:
        address = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={cert}&on_failure=refuse&deadline=2"
        with pytest.raises(PlatformError, match="cannot be written") as caught:
            RedisBackend(address, writing=True).store("p", "v", LAYOUT, [b"a"], rows([1], 5), 0)
        assert "uthentication" in caught.value.detail
        monkeypatch.setenv("FAIRLEAD_REDIS_PASSWORD", "s3cret")
        RedisBackend(address, writing=True).store("p", "v", LAYOUT, [b"a"], rows([1], 5), 0)
        assert stored(RedisBackend(address), [b"a"]) == [1]
        with pytest.raises(PlatformError, match="cannot be read"):
            RedisBackend(f"rediss://127.0.0.1:{port}/0").fetch("p", [("v", [b"a"])])  # nobody vouches for it
    finally:
        made.stop()


def test_a_full_server_refuses_writes_and_still_reads(server: Any, quick: None) -> None:
    backend = RedisBackend(server.address, writing=True)
    backend.store("p", "v", LAYOUT, [b"a"], rows([1], 5), 0)
    server.client.config_set("maxmemory-policy", "noeviction")
    server.client.config_set("maxmemory", "1mb")
    with pytest.raises(PlatformError, match="online store is full") as caught:
        backend.store("p", "v", LAYOUT, names(100_000), rows([1] * 100_000, 5), 0)
    assert caught.value.code == "online_full"
    assert "maxmemory" in caught.value.fix
    assert stored(RedisBackend(server.address), [b"a"]) == [1]


def test_a_writer_goes_on_after_a_restart(server: Any) -> None:
    """The server loses its scripts and is away for a moment, as in a failover."""
    backend = RedisBackend(server.address, writing=True)
    backend.store("p", "v", LAYOUT, [b"a"], rows([1], 5), 0)
    server.stop()
    back = threading.Timer(0.5, server.start)
    back.start()
    backend.store("p", "v", LAYOUT, names(100), rows([1] * 100, 5), 0)
    back.join()
    assert stored(RedisBackend(server.address), names(100)) == [1] * 100


def open_reader(address: str) -> Any:
    from feature_repo.stores.reader import OnlineReader

    return OnlineReader(PLAN, address)


def write_numbers(address: str, count: int) -> list[str]:
    """Entities ``e0`` ..., each with its number in both views of `PLAN`; their keys."""
    from feature_repo.stores.keys import serialise_keys

    entities = [f"e{at}" for at in range(count)]
    writer = RedisBackend(address, writing=True)
    for view in PLAN["views"]:
        layout = Layout(view["features"])
        keys = serialise_keys(view["join_keys"], {"k": entities})
        writer.store("p", view["name"], layout, keys, rows(list(range(count)), 5, layout=layout), 0)
    return entities


def test_a_reader_degrades_within_its_deadline_and_recovers(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feature_repo.stores.reader._REST", 0.2)
    write_numbers(server.address, 2)
    reader = open_reader(server.address + "?deadline=0.3")
    assert reader.read({"k": ["e0"]}).columns["v_x"].tolist() == [0]
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        start = time.monotonic()
        assert reader.read({"k": ["e0"]}).status["v"] == ["UNAVAILABLE"]
        assert time.monotonic() - start < 2
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    time.sleep(0.3)
    late = reader.read({"k": ["e1"]})  # the answer about e0, which came too late, is nobody's
    assert (late.columns["v_x"].tolist(), late.columns["w_x"].tolist()) == ([1], [1])
    server.stop()
    assert reader.read({"k": ["e0"]}).status["v"] == ["UNAVAILABLE"]
    server.start()
    time.sleep(0.3)
    assert reader.read({"k": ["e0"]}).status["v"] == ["NOT_FOUND"]


def test_a_connection_that_the_server_closed_is_replaced_unnoticed(server: Any) -> None:
    write_numbers(server.address, 1)
    reader = open_reader(server.address + "?on_failure=refuse")
    for _ in range(3):
        assert reader.read({"k": ["e0"]}).columns["v_x"].tolist() == [0]
        server.client.client_kill_filter(_type="normal", skipme=True)


def test_threads_share_a_reader_and_get_their_own_answers(server: Any) -> None:
    entities, wrong = write_numbers(server.address, 200), []
    reader = open_reader(server.address + "?on_failure=refuse&deadline=10")

    def ask(first: int) -> None:
        for at in range(first, 200):
            if reader.read({"k": entities[first:at]}).columns["w_x"].tolist() != list(range(first, at)):
                wrong.append((first, at))

    threads = [threading.Thread(target=ask, args=[first]) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_more_entities_than_one_command_may_ask_for(server: Any) -> None:
    """100,000 entities of two views: the server answers others in between."""
    entities = write_numbers(server.address, 100_000)
    reader = open_reader(server.address + "?on_failure=refuse&deadline=10")
    before = server.client.info("commandstats").get("cmdstat_mget", {"calls": 0})["calls"]
    read = reader.read({"k": [*entities[:-1], "nobody"]})
    assert read.columns["v_x"].tolist()[:-1] == read.columns["w_x"].tolist()[:-1] == list(range(99_999))
    assert read.status["w"][-2:] == ["PRESENT", "NOT_FOUND"]
    assert server.client.info("commandstats")["cmdstat_mget"]["calls"] - before == 20
    assert reader.read({"k": []}).columns["v_x"].shape == (0,)


def feast_store(folder: Path, server: Any, **options: Any) -> Any:
    online = {"type": "redis", "connection_string": f"127.0.0.1:{server.port}", **options}
    return repos.make_store(
        folder, [repos.view_of("v", ["f64", "i64", "name"], ttl=timedelta(days=1))], online=online, batch_engine="local"
    )


def test_what_feast_wrote_to_redis_is_read(server: Any, tmp_path: Path) -> None:
    s = repos.second
    rows = [{"driver": "a", "event": s(0.5), "f64": 1.5, "i64": -7, "name": "x"}, {"driver": "b", "event": s(0)}]
    repos.write_history(tmp_path, "v", rows)
    store = feast_store(tmp_path, server)
    repos.materialise(store, s(1))
    reader = repos.reader(store, server.address + "?layout=feast&on_failure=refuse")
    read = reader.read({"driver": ["a", "b", "nobody"]}, s(1.5))
    assert read.status["v"] == ["PRESENT", "PRESENT", "NOT_FOUND"]
    assert read.age_seconds["v"][0] == 1
    assert read.native("i64").tolist()[0] == -7
    assert read.native("name").tolist() == ["x", None, None]
    assert read.statuses("f64") == ["PRESENT", "NULL", "NOT_FOUND"]
    assert reader.read({"driver": ["a"]}, s(90_000)).status["v"] == ["OUTSIDE_MAX_AGE"]


def test_feasts_redis_calls_the_unknown_present_and_serves_what_is_too_old(server: Any, tmp_path: Path) -> None:
    from feast.protos.feast.serving.ServingService_pb2 import FieldStatus

    verdicts = {}
    for owner in ("feast", "ours"):
        folder = tmp_path / owner
        folder.mkdir()
        repos.write_history(folder, "v", [{"driver": "a", "event": repos.second(0), "f64": 1.5, "i64": 1, "name": ""}])
        ours = {"type": "feature_repo.stores.online.PackedOnlineStore", "address": server.address}
        views = [repos.view_of("v", ["f64"], ttl=timedelta(days=1))]
        store = feast_store(folder, server) if owner == "feast" else repos.make_store(folder, views, online=ours)
        repos.materialise(store, repos.second(1))
        frame = pd.DataFrame({"driver": ["new"], "event": [datetime.now(UTC)], "f64": [1.0], "i64": [1], "name": [""]})
        store.write_to_online_store("v", df=frame)
        asked = [{"driver": driver} for driver in ("a", "nobody", "new")]
        answer = store.get_online_features(features=["v:f64"], entity_rows=asked).proto
        at = list(answer.metadata.feature_names.val).index("f64")
        verdicts[owner] = list(answer.results[at].statuses)
    present, unknown, old = FieldStatus.PRESENT, FieldStatus.NOT_FOUND, FieldStatus.OUTSIDE_MAX_AGE
    assert verdicts == {"feast": [present, present, present], "ours": [old, unknown, present]}


@pytest.mark.parametrize("owner", ["feast", "ours"])
def test_what_is_written_again_is_kept_longer_only_by_ours(server: Any, tmp_path: Path, owner: str) -> None:
    """Feast skips a row whose moment it has already, and with it the new expiry: what every run writes goes away."""
    if owner == "feast":
        store = feast_store(tmp_path, server, key_ttl_seconds=90_000)
    else:
        ours = {"type": "feature_repo.stores.online.PackedOnlineStore", "address": server.address}
        store = repos.make_store(
            tmp_path, [repos.view_of("v", ["f64", "i64", "name"], ttl=timedelta(hours=1))], online=ours
        )
    frame = pd.DataFrame({"driver": ["a"], "event": [datetime.now(UTC)], "f64": [1.0], "i64": [1], "name": [""]})
    store.write_to_online_store("v", df=frame)
    (key,) = (key for key in server.client.scan_iter() if not key.startswith(b"fl-schema"))
    assert 89_000 < server.client.ttl(key) <= 90_000
    server.client.expire(key, 10)
    store.write_to_online_store("v", df=frame)
    assert (server.client.ttl(key) > 80_000) == (owner == "ours")

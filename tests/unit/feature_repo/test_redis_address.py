"""Addresses of Redis, and what a reader does when nobody answers."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.errors import PlatformError
from feature_repo.stores.backend_redis import redis_keys
from feature_repo.stores.redis_address import connect, parse_address


def test_options_are_taken_out_of_the_address() -> None:
    found = parse_address("rediss://user:pw@host:7000/2?cluster=true&deadline=0.1&ssl_ca_certs=/ca.pem")
    assert found.url == "rediss://user:pw@host:7000/2"
    assert (found.cluster, found.deadline, found.on_failure, found.layout) == (True, 0.1, "default", "packed")
    assert found.ssl == (("ssl_ca_certs", "/ca.pem"),)


@pytest.mark.parametrize(
    "option",
    [
        "sentinel=",
        "sentinel_auth=1",
        "deadline=0",
        "deadline=soon",
        "cluster=yes",
        "on_failure=guess",
        "layout=x",
        "socket_timeout=1",
        "x=",
    ],
)
def test_an_option_that_is_not_known_is_refused(option: str) -> None:
    with pytest.raises(PlatformError, match=f"option {option}") as caught:
        parse_address(f"redis://host/0?{option}")
    assert "deadline" in caught.value.detail


def test_sentinels_are_asked_for_the_primary() -> None:
    address = parse_address("rediss://me:p%40ss@one:7,two/3?sentinel=store&sentinel_auth=true&deadline=0.1")
    assert address.hosts == [("one", 7), ("two", 26379)]
    assert address.place == "one:7, two:26379 (primary store)"
    pool = connect(address, writing=False).connection_pool
    assert {name: pool.connection_kwargs[name] for name in ("db", "username", "password", "socket_timeout")} == {
        "db": 3,
        "username": "me",
        "password": "p@ss",
        "socket_timeout": 0.1,
    }
    keepers = pool.sentinel_manager.sentinels
    assert [keeper.connection_pool.connection_kwargs["password"] for keeper in keepers] == ["p@ss", "p@ss"]
    with pytest.raises(PlatformError, match="a cluster and sentinels"):
        parse_address("redis://one/0?cluster=true&sentinel=store")


def test_views_of_one_entity_share_a_slot_and_names_cannot_break_out() -> None:
    one, two = (redis_keys("p", view, [b"\x01{}key"])[0] for view in ("a", "b{x}:*"))
    assert one.count(b"{") == two.count(b"{") == 2
    assert one[one.index(b"{") : one.index(b"}")] == two[two.index(b"{") : two.index(b"}")]
    assert redis_keys("p", "a:b", [b"c"]) != redis_keys("p", "a", [b"b:c"])


PLAN = {
    "project": "p",
    "views": [
        {
            "name": "v",
            "join_keys": [{"name": "k", "dtype": "string"}],
            "features": [{"name": "x", "dtype": "float64"}, {"name": "s", "dtype": "string"}],
            "ttl_seconds": 0,
        }
    ],
}


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def reader(address: str) -> Any:
    from feature_repo.stores.reader import OnlineReader

    return OnlineReader(PLAN, address)


def test_names_are_packed_as_the_client_packs_them() -> None:
    import redis

    from feature_repo.stores.backend_redis import mget, redis_keys

    alike, uneven = [b"aa", b"bb", b"cc"], [b"", b"x" * 300, "\u5ba2".encode(), b"a\r\nb"]
    wanted = [("v", alike), ("w:1", uneven), ("none", []), ("v", alike)]
    names = [name for view, keys in wanted for name in redis_keys("p q", view, keys)]
    theirs = redis.Connection().pack_command("MGET", *names)
    assert mget("p q", wanted) == b"".join(theirs)


def test_a_store_that_is_down_gives_flagged_defaults(repos: Any) -> None:
    read = reader(f"redis://127.0.0.1:{closed_port()}/0").read({"k": ["a", "b"]})
    assert read.status == {"v": ["UNAVAILABLE", "UNAVAILABLE"]}
    assert read.statuses("x") == ["UNAVAILABLE", "UNAVAILABLE"]
    assert np.isnan(read.columns["x"]).all()
    assert read.columns["s"].tolist() == [None, None]


def test_or_an_error_when_the_address_says_so() -> None:
    with pytest.raises(PlatformError, match="online store cannot be read"):
        reader(f"redis://127.0.0.1:{closed_port()}/0?on_failure=refuse").read({"k": ["a"]})


def test_a_store_that_hangs_costs_one_deadline_and_then_none() -> None:
    """A server that accepts and never answers; the next reads do not wait for it at all."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        hanging = reader(f"redis://127.0.0.1:{silent.getsockname()[1]}/0?deadline=0.2")
        start = time.monotonic()
        assert hanging.read({"k": ["a"]}).status["v"] == ["UNAVAILABLE"]
        first = time.monotonic() - start
        for _ in range(20):
            hanging.read({"k": ["a"]})
        assert first < 2
        assert time.monotonic() - start - first < 2  # 20 deadlines would be 4 s


def test_a_writer_reports_what_it_could_not_write(
    repos: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_repo: Callable[..., Any]
) -> None:
    monkeypatch.setattr("feature_repo.stores.backend_redis._PAUSE", 0.001)
    repos.write_history(tmp_path, "v", [{"driver": "a", "event": repos.second(0), "f64": 1.0}])
    view, _ = repos.view_of("v", ["f64"])
    engine = repos.engine(tmp_path, f"redis://127.0.0.1:{closed_port()}/0")
    with pytest.raises(PlatformError, match="cannot be written") as caught:
        repos.materialise_view(engine, view, repos.second(-1), repos.second(1))
    assert "tried 18 times" in caught.value.detail
    assert caught.value.code == "online_unavailable"

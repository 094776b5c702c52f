"""Adapters of two servers that share Redis, over HTTP: a click shows on both within a second, and Redis may be lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from contracts.adapter import read_adapter
from services.adapters.forgetting import forget_adapters
from services.adapters.hot import HotCopies
from services.feedback.hashing import hashed
from services.settings import AdapterSettings
from tests.integration.redis_servers import Server
from tests.integration.test_services import Service, services
from tests.problem_bundles import lists

pytestmark = pytest.mark.integration

SALT = "of-tests"
Pair = tuple[Service, Service, Server, Path]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    tmp_path = tmp_path_factory.mktemp("adapters")
    redis, bundle = Server(tmp_path / "redis"), lists(tmp_path)
    given = {"adapters.folder": str(tmp_path / "adapters"), "adapters.redis": f"{redis.address}?deadline=0.2"}
    with services(tmp_path) as begin:
        first, second = (begin(bundle, **given, **{"predictions.salt": SALT}) for _ in range(2))
        first.wait()
        second.wait()
        yield first, second, redis, tmp_path / "adapters"
    redis.stop()


def ask(service: Service, user: str) -> Any:
    answer = service.http.post("/recommend", json={"user": user, "k": 5})
    assert answer.status_code == 200, answer.text
    return answer.json()


def names(answer: Any) -> list[str]:
    return [one["item"] for one in answer["items"]]


def click(service: Service, answer: Any, *items: str) -> int:
    told = service.http.post("/feedback", json={"labels": [{"id": answer["id"], "label": list(items)}]})
    assert told.status_code == 200, told.text
    return int(told.json()["learned"])


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        if holds():
            return True
        time.sleep(0.01)
    return False


def kept(folder: Path, user: str) -> list[Path]:
    return [one for one in folder.rglob("*.safetensors") if hashed(SALT.encode(), user) in one.parts]


def reads(service: Service, outcome: str) -> float:
    families = text_string_to_metric_families(service.http.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples if "adapter_reads" in sample.name]
    return sum(sample.value for sample in samples if sample.labels["outcome"] == outcome)


def test_a_click_at_one_server_changes_the_next_answer_of_both_within_a_second(pair: Pair) -> None:
    first, second, redis, _ = pair
    before = ask(second, "eve")
    shown = ask(first, "eve")
    assert names(before) == names(shown)
    assert "adapter_missing" in before["flags"]
    time.sleep(0.1)  # the answer reaches Redis
    assert click(second, shown, "d") == 1, "the other server knows the answer too"
    assert names(ask(second, "eve")) != names(before)
    assert within(1, lambda: names(ask(first, "eve")) == names(ask(second, "eve")) != names(before))
    assert click(first, shown, "d") == 0, "it was learned by the other server"
    assert "eve" not in str(redis.client.keys()), "keys are hashes"


def test_clicks_at_two_servers_at_once_are_all_learned(pair: Pair) -> None:
    first, second, _, folder = pair
    answers = [ask(service, "ann") for service in (first, second) for _ in range(6)]
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda at: click((first, second)[at // 6], answers[at], "b"), range(12)))
    assert done == [1] * 12
    assert [read_adapter(one.read_bytes()).version for one in kept(folder, "ann")] == [12]


def test_who_is_forgotten_is_so_everywhere_and_what_they_saw_before_teaches_nothing(pair: Pair) -> None:
    first, second, redis, folder = pair
    old = ask(first, "zoe")
    assert click(first, ask(first, "zoe"), "d") == 1
    assert within(1, lambda: "adapter_missing" not in ask(second, "zoe")["flags"])
    where = AdapterSettings(folder=str(folder), redis=redis.address)
    assert forget_adapters(where, "ranking", "zoe", SALT) == 1
    assert within(1, lambda: "adapter_missing" in ask(first, "zoe")["flags"])
    assert within(1, lambda: "adapter_missing" in ask(second, "zoe")["flags"])
    assert click(first, old, "e") == 0
    assert not kept(folder, "zoe")
    assert click(first, ask(first, "zoe"), "e") == 1, "who comes back begins anew"


def test_what_one_base_has_shown_teaches_no_other(pair: Pair) -> None:
    _, _, redis, _ = pair
    one, other = (HotCopies(redis.address, "ranking", base * 32) for base in ("ab", "cd"))
    assert one.remember({"0" * 32: b"shown"}, 60)
    assert (one.recall("0" * 32), other.recall("0" * 32)) == (b"shown", None)
    assert [one.claim("0" * 32, "d", 60) for _ in range(2)] == [True, False]
    one.release("0" * 32, "d")
    assert one.claim("0" * 32, "d", 60)


def test_redis_may_lose_all_and_be_away(pair: Pair) -> None:
    first, second, redis, _ = pair
    assert click(first, ask(first, "kim"), "d") == 1
    learned = names(ask(first, "kim"))
    redis.client.flushall()
    assert within(1, lambda: names(ask(second, "kim")) == learned), "it is found in its store"
    redis.stop()
    time.sleep(0.6)
    began = time.perf_counter()
    answers = [ask(second, "kim") for _ in range(20)]
    assert time.perf_counter() - began < 5
    assert all(names(one) == learned for one in answers), "the copy in memory holds"
    assert ask(second, "bob")["flags"] == ["adapter_unavailable"]
    assert reads(second, "unavailable") > 0
    redis.start()
    assert within(10, lambda: ask(second, "bob")["flags"] == ["adapter_missing"])

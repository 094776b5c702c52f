"""The store of online features fails while a service answers from it: Redis killed, hanging, away at the start.

And windows that several servers move on in one Redis.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from contracts.bundle import Bundle
from contracts.ranking_features import WINDOWED
from feature_repo.stores.backend_redis import RedisBackend
from tests.bench.serving_models import four_floats, publish
from tests.integration.redis_servers import Server, cluster
from tests.integration.test_services import Service, Start, services

pytestmark = pytest.mark.integration

VIEW: dict[str, Any] = {
    "name": "habits",
    "join_keys": [{"name": "customer", "dtype": "string"}],
    "features": [{"name": "a", "dtype": "float64"}, {"name": "b", "dtype": "float64"}],
    "ttl_seconds": 86_400,
}
PLAN = {"project": "shop", "views": [VIEW]}
ASK = {"instances": [{"customer": "C1", "c": -2.0, "d": 3.0}]}
WEIGHTS = np.array([0.4, -0.2, 0.1, 0.3])
DEADLINE = 0.2


def expected(a: float, b: float) -> float:
    return float(1 / (1 + np.exp(-(WEIGHTS @ np.array([a, b, -2.0, 3.0])))))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Four floats, two of them online with the defaults 0.1 and 0.2."""
    folder = tmp_path_factory.mktemp("habits")
    floats = four_floats(folder / "floats")
    source = folder / "source"
    (source / "model").mkdir(parents=True)
    (source / "model" / "model.onnx").write_bytes((floats.model_path / "model.onnx").read_bytes())
    (source / "features.json").write_text(json.dumps(PLAN))
    inputs = [
        {"name": name, "dtype": "float64", "source": "online", "default": default}
        for name, default in (("a", 0.1), ("b", 0.2))
    ]
    inputs += [{"name": name, "dtype": "float64", "source": "request"} for name in ("c", "d")]
    signature = {"inputs": inputs, "classes": ["no", "yes"], "entities": ["customer"]}
    golden = [{"inputs": dict(example.inputs), "probabilities": example.expected} for example in floats.golden()]
    return publish(
        source, golden, folder / "bundles", name="habits", modality="tabular", engine="onnx", signature=signature
    )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    redis = Server(tmp_path / "redis")
    fill(redis)
    yield redis
    if redis.process is not None:
        redis.process.send_signal(signal.SIGCONT)
    redis.stop()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with services(tmp_path) as begin:
        yield begin


def fill(server: Server) -> None:
    """C1 has a = 5 and b = 7."""
    from feature_repo.stores.backend_redis import RedisBackend
    from feature_repo.stores.keys import serialise_keys
    from feature_repo.stores.packed_rows import Layout

    layout, keys = Layout(VIEW["features"]), serialise_keys(VIEW["join_keys"], {"customer": ["C1"]})
    given = {"a": np.array([5.0]), "b": np.array([7.0])}
    rows = layout.encode(given, {}, np.array([int(time.time() * 1e6)]), np.array([0]))
    RedisBackend(server.address, writing=True).store("shop", "habits", layout, keys, rows, 86_400)


def ask(service: Service) -> tuple[int, float, list[str], float]:
    """Status, probability and flags of an answer, and the seconds that it took."""
    start = time.perf_counter()
    answer = service.http.post("/predict", json=ASK)
    seconds = time.perf_counter() - start
    if answer.status_code != 200:
        return answer.status_code, 0.0, [], seconds
    one = answer.json()["predictions"][0]
    return 200, one["probabilities"]["yes"], one["flags"], seconds


def reads(service: Service, status: str) -> float:
    families = text_string_to_metric_families(service.http.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples if "feature_reads" in sample.name]
    return sum(sample.value for sample in samples if sample.labels["status"] == status)


def recovered(service: Service) -> bool:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if ask(service)[2] == []:
            return True
        time.sleep(0.1)
    return False


def test_a_store_that_dies_costs_features_and_no_request(start: Start, bundle: Bundle, server: Server) -> None:
    service = start(bundle, online=f"{server.address}?deadline={DEADLINE}")
    service.wait()
    assert ask(service)[:3] == (200, pytest.approx(expected(5, 7)), [])
    server.stop()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(service), range(100)))
    assert {status for status, *_ in answers} == {200}
    assert {tuple(flags) for _, _, flags, _ in answers} == {("unavailable:habits",)}
    assert [p for _, p, _, _ in answers] == pytest.approx([expected(0.1, 0.2)] * 100)
    assert max(seconds for *_, seconds in answers) < DEADLINE + 0.5
    assert reads(service, "UNAVAILABLE") == 100
    assert service.http.get("/readyz").status_code == 200, "it answers, so it stays in traffic"
    server.start()
    fill(server)
    assert recovered(service)
    assert ask(service)[1] == pytest.approx(expected(5, 7))


def test_a_store_that_hangs_is_waited_for_once_and_not_by_everybody(
    start: Start, bundle: Bundle, server: Server
) -> None:
    service = start(bundle, online=f"{server.address}?deadline={DEADLINE}")
    service.wait()
    assert ask(service)[2] == []
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    answers = [ask(service) for _ in range(10)]
    assert {(status, *flags) for status, _, flags, _ in answers} == {(200, "unavailable:habits")}
    assert answers[0][3] < 2 * DEADLINE + 0.5
    assert sum(seconds > DEADLINE / 2 for *_, seconds in answers) <= 2
    server.process.send_signal(signal.SIGCONT)
    assert recovered(service)


def test_a_store_that_must_be_there_gives_a_problem_until_it_is_back(
    start: Start, bundle: Bundle, server: Server
) -> None:
    service = start(bundle, online=f"{server.address}?deadline={DEADLINE}&on_failure=refuse")
    service.wait()
    server.stop()
    answer = service.http.post("/predict", json=ASK)
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:fairlead:problem:features-unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    whole = {"instances": [{"a": 0.5, "b": 1.5, "c": -2.0, "d": 3.0}]}
    assert service.http.post("/predict", json=whole).status_code == 200, "nobody has to be looked up for this"
    assert "Traceback" not in service.log.read_text()
    server.start()
    fill(server)
    assert recovered(service)


def test_a_store_that_is_away_at_the_start_is_no_reason_not_to_answer(
    start: Start, bundle: Bundle, server: Server
) -> None:
    server.stop()
    service = start(bundle, online=f"{server.address}?deadline={DEADLINE}")
    service.wait()
    assert ask(service)[:3] == (200, pytest.approx(expected(0.1, 0.2)), ["unavailable:habits"])
    strict = start(bundle, online=f"{server.address}?deadline={DEADLINE}&on_failure=refuse")
    problem = strict.wait(status=503).json()
    assert str(server.port) in problem["detail"]


@pytest.fixture(params=["cluster", "alone"])
def redis_of(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a server, or of a cluster of three."""
    if request.param == "cluster":
        with cluster(tmp_path / "nodes") as nodes:
            yield f"redis://127.0.0.1:{nodes[0].port}?cluster=true"
        return
    server = Server(tmp_path / "redis")
    yield server.address
    server.stop()


def test_windows_are_moved_on_in_place_by_several_servers_and_expire(redis_of: str) -> None:
    """No click and no view is lost, though they are of one item."""
    from feature_repo.recommend import item_windows, user_windows
    from feature_repo.stores.plan import compile_view
    from services.adapters.hot import Answers
    from services.feedback.records import Label
    from services.model.prediction_log import new_id
    from services.recommend.windows import ListWindows

    transform = {"function": "feature_repo.transforms.recommend:list_request", "outputs": list(WINDOWED)}
    views = [compile_view(one) for one in (user_windows, item_windows)]
    plan = {"project": "recommend", "timestamp": "time", "views": views, "transforms": [transform]}
    opened = [ListWindows(plan, redis_of, Answers(None, 3_600)) for _ in range(3)]

    def click(one: ListWindows) -> None:
        for number in range(20):
            shown = new_id()
            one.shown(shown, f"u{number}", ["a"])
            assert one.learn([Label(id=shown, label=["a"], time=datetime.now(UTC), version="1")]) == 1

    with ThreadPoolExecutor() as pool:
        list(pool.map(click, opened))
    for one in opened:
        one.close()  # and what was shown is written
    last = ListWindows(plan, redis_of, Answers(None, 3_600))
    clicked, found = last.read("u3", ["a"]) or ([], np.zeros((1, len(WINDOWED))))
    last.close()
    counted = [float(np.expm1(found[0, WINDOWED.index(name)])) for name in ("item_clicks_1d", "item_views_1d")]
    assert counted == pytest.approx([60, 60], abs=0.01)
    assert clicked == ["a"]
    store = RedisBackend(redis_of)
    keys = list(store.names("recommend", "user_windows"))
    assert len(keys) == 20
    assert all(store.client.ttl(name) > views[0]["ttl_seconds"] > 0 for name in keys)

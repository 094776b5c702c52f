"""Topics into the feature store, over the protocol of Kafka: librdkafka's own broker, with groups and offsets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from contracts.errors import PlatformError
from contracts.ports import free_port

pytest.importorskip("confluent_kafka", reason="extra streams")

SECONDS = 180.0  # at most: a process that imports Feast takes long where others build images


class Brokers:
    """Brokers in this process, and a producer."""

    def __init__(self) -> None:
        from confluent_kafka import Producer

        self._home = Producer({"test.mock.num.brokers": 1, "log_level": 0})
        self.address = ",".join(f"{one.host}:{one.port}" for one in self._home.list_topics(timeout=10).brokers.values())
        self._producer = Producer({"bootstrap.servers": self.address})

    def topic(self, name: str) -> None:
        """Make a topic: the broker makes what is asked for."""
        self._producer.list_topics(name, timeout=10)
        time.sleep(0.1)

    def send(self, topic: str, *rows: Any, partition: int = 0) -> None:
        for row in rows:
            value = row if isinstance(row, bytes) or row is None else json.dumps(row).encode()
            self._producer.produce(topic, value=value, key=b"k", partition=partition)
        assert self._producer.flush(10) == 0

    def go(self) -> None:
        """End the brokers."""
        del self._home

    def read(self, topic: str, count: int) -> list[Any]:
        """The first messages of a topic's four partitions."""
        from confluent_kafka import Consumer, TopicPartition

        reader = Consumer({"bootstrap.servers": self.address, "group.id": f"reads-{topic}"})
        reader.assign([TopicPartition(topic, number, 0) for number in range(4)])
        found: list[Any] = []
        until = time.monotonic() + SECONDS
        while len(found) < count and time.monotonic() < until:
            found += [one for one in reader.consume(100, 0.2) if one.error() is None]
        reader.close()
        return found


@pytest.fixture(scope="module")
def brokers() -> Brokers:
    return Brokers()


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, f"{what}"
        time.sleep(0.05)


class Running:
    """A consumer in a thread, whose pushes go to `push`."""

    def __init__(self, settings: Any, push: Callable[[pd.DataFrame], None]) -> None:
        from feature_repo.stream.consumer import Stream
        from feature_repo.stream.exposition import Figures

        self.figures, self.stop = Figures(), threading.Event()
        self.error: PlatformError | None = None
        sources = {one.topic: ({"n": "n"}, push) for one in settings.topics}
        self._stream = Stream(settings, sources, self.figures)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._stream.run(self.stop)
        except PlatformError as err:
            self.error = err

    def end(self) -> PlatformError | None:
        self.stop.set()
        return self.wait()

    def wait(self) -> PlatformError | None:
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()
        return self.error

    def lags(self, topic: str) -> list[float | None]:
        """Of those of its four partitions that are measured."""
        found = (self.value("fairlead_stream_lag_messages", topic=topic, partition=str(number)) for number in range(4))
        return [one for one in found if one is not None]

    def value(self, name: str, **labels: str) -> float | None:
        found: float | None = self.figures.registry.get_sample_value(name, labels)
        return found


def settings(topic: str, address: str, **more: Any) -> Any:
    from feature_repo.stream.settings import StreamSettings

    given = {
        "brokers": address,
        "kafka": {"session.timeout.ms": 6000},
        "group": f"group-{topic}",
        "topics": [{"topic": topic, "source": "ps"}],
        **more,
    }
    return StreamSettings.model_validate(given)


def test_what_is_refused_is_set_aside_and_a_store_that_is_away_is_waited_for(brokers: Brokers) -> None:
    brokers.topic("mixed")
    brokers.topic("aside")
    written: list[int] = []
    away = [3]

    def push(frame: pd.DataFrame) -> None:
        if (frame["n"] == -1).any():
            raise PlatformError("feature n: -1", code="bad_feature_value")
        if away[0]:
            away[0] -= 1
            raise OSError("the store is away")
        written.extend(frame["n"])

    brokers.send("mixed", *({"n": number} for number in range(50)), {"n": -1}, b"{", None)
    running = Running(settings("mixed", brokers.address, dead_letters="aside"), push)
    try:
        until(lambda: len(written) >= 50, "rows did not come")
        until(lambda: running.value("fairlead_stream_rows_total", topic="mixed", outcome="tombstone") == 1, "tombstone")
        brokers.send("mixed", {"n": 50}, partition=3)
        until(lambda: 50 in written, "the partition stayed paused")
        until(lambda: running.value("fairlead_stream_lag_messages", topic="mixed", partition="0") == 0, "lag")
    finally:
        error = running.end()
    assert error is None
    assert sorted(written) == list(range(51))
    assert running.value("fairlead_stream_push_failures_total", topic="mixed") == 3
    aside = brokers.read("aside", 2)
    said = {one.value(): dict(one.headers()) for one in aside}
    assert said[b"{"]["offset"] == b"51"
    assert said[b'{"n": -1}'] == {"reason": b"feature n: -1", "topic": b"mixed", "partition": b"0", "offset": b"50"}


def test_what_is_before_a_groups_beginning_does_not_wait_and_brokers_that_go_are_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from feature_repo.stream import consumer

    monkeypatch.setattr(consumer, "_TOLD_MS", 200)
    home = Brokers()
    home.topic("late")
    home.send("late", {"n": 1}, {"n": 2})
    written: list[int] = []
    late = settings("late", home.address, start="latest")
    running = Running(late, lambda frame: written.extend(frame["n"]))
    try:
        until(lambda: len(lags := running.lags("late")) == 4 and not any(lags), "messages before the beginning wait")
        home.send("late", {"n": 3})
        until(lambda: written == [3], "the first row after the beginning")
        until(lambda: running.value("fairlead_stream_up") == 1, "up")
        home.go()
        until(lambda: running.value("fairlead_stream_up") == 0, "brokers that are gone count as up")
    finally:
        error = running.end()
    assert error is None


def test_without_a_place_for_refused_messages_the_first_one_stops_it_and_is_met_again(brokers: Brokers) -> None:
    brokers.topic("strict")
    brokers.send("strict", {"n": 1}, b"[]", {"n": 2})
    written: list[int] = []
    for _ in range(2):
        error = Running(settings("strict", brokers.address), lambda frame: written.extend(frame["n"])).wait()
        assert error is not None
        assert (error.code, error.context) == ("bad_message", {"topic": "strict", "partition": 0, "offset": 1})
        assert "a JSON object is wanted, not list" in error.detail
    assert written == [1, 2, 1, 2]  # again, which the store takes without harm


def test_a_wrong_address_and_an_error_that_waiting_does_not_mend_end_it(
    brokers: Brokers, monkeypatch: pytest.MonkeyPatch
) -> None:
    from feature_repo.stream import consumer

    brokers.topic("fits")
    brokers.send("fits", {"n": 1})

    def push(frame: pd.DataFrame) -> None:
        raise PlatformError("other columns", code="bad_push")

    error = Running(settings("fits", brokers.address), push).wait()
    assert error is not None
    assert error.code == "bad_push"
    monkeypatch.setattr(consumer, "_AWAY", 0.5)
    lost = settings("fits", f"127.0.0.1:{free_port()}")
    error = Running(lost, push).wait()
    assert error is not None
    assert error.code == "brokers_unreachable"


class Process:
    """The consumer as it runs in a pod."""

    def __init__(self, folder: Path, file: Path, port: int, *command: str) -> None:
        self._metrics = f"http://127.0.0.1:{port}/metrics"
        environment = {**os.environ, "FAIRLEAD_STREAM_PORT": str(port), "PYTHONPATH": str(Path(__file__).parents[2])}
        self.log = folder / "log"
        self._process = subprocess.Popen(
            [sys.executable, "-m", *(command or ("feature_repo.stream", "--config")), str(file)],
            cwd=folder,
            env=environment,
            stdout=self.log.open("ab"),
            stderr=self.log.open("ab"),
        )

    def end(self, how: signal.Signals) -> int:
        self._process.send_signal(how)
        return self._process.wait(SECONDS)

    def metrics(self) -> str:
        assert self._process.poll() is None, self.log.read_text()
        try:
            with urllib.request.urlopen(self._metrics, timeout=5) as answer:
                found: str = answer.read().decode()
                return found
        except OSError:
            return ""


@pytest.fixture
def repository(tmp_path: Path) -> tuple[Path, Any]:
    """A Feast repository with view ``v``, which takes pushes, and its store."""
    import pyarrow as pa
    from feast import FeatureView, PushSource

    from tests import feature_stores as stores

    (tmp_path / "v").mkdir()
    row = {"driver": "a", "event": stores.second(0), "i64": 1, "f64": 1.0}
    stores.write_history(tmp_path / "v", "part", [row], {"event": pa.timestamp("us", "UTC")})
    view, entities = stores.view_of("v", ["i64", "f64"], path="v")
    source = PushSource(name="ps", batch_source=view.batch_source)
    view = FeatureView(name="v", entities=entities, schema=view.schema, source=source)
    store = stores.make_store(tmp_path, [(view, entities)])
    written = store.config.model_dump(mode="json", by_alias=True, exclude_none=True)
    keep = ("project", "provider", "registry", "online_store", "offline_store", "entity_key_serialization_version")
    (tmp_path / "feature_store.yaml").write_text(yaml.safe_dump({key: written[key] for key in keep}))
    return tmp_path, store


def test_a_consumer_that_is_killed_loses_nothing_and_an_older_row_never_wins(
    brokers: Brokers, repository: tuple[Path, Any]
) -> None:
    folder, store = repository
    brokers.topic("drivers")

    def row(driver: str, second: int, number: int) -> dict[str, Any]:
        return {"driver": driver, "event": f"2026-01-01T00:00:{second:02d}Z", "i64": number, "f64": None}

    def served() -> list[Any]:
        drivers = [{"driver": name} for name in "abc"]
        found: list[Any] = store.get_online_features(features=["v:i64"], entity_rows=drivers).to_dict()["i64"]
        return found

    given = {
        "brokers": brokers.address,
        "kafka": {"session.timeout.ms": 6000},  # the one that is killed is missed soon
        "repo": str(folder),
        "topics": [{"topic": "drivers", "source": "ps", "to": "both"}],
    }
    file = folder / "stream.yaml"
    file.write_text(yaml.safe_dump(given))
    port = free_port()
    brokers.send("drivers", row("a", 30, 7), row("b", 10, 8), row("a", 20, 6))
    consumer = Process(folder, file, port)
    try:
        until(lambda: served() == [7, 8, None], "the first rows")
        lag = 'fairlead_stream_lag_messages{partition="0",topic="drivers"} 0.0'
        until(lambda: lag in consumer.metrics(), "the lag")
    finally:
        consumer.end(signal.SIGKILL)
    brokers.send("drivers", row("c", 40, 2**60 + 1), row("b", 5, 0))
    consumer = Process(folder, file, port, "deploy.cli", "features", "stream")
    try:
        until(lambda: served() == [7, 8, 2**60 + 1], "the rows after the kill")
    finally:
        status = consumer.end(signal.SIGTERM)
    assert status == 0, consumer.log.read_text()
    assert "drivers → ps: 2 rows pushed, 0 refused, 0 behind" in consumer.log.read_text()
    entities = pd.DataFrame({"driver": list("abc"), "event_timestamp": pd.Timestamp("2026-01-01 00:01", tz="UTC")})
    joined = store.get_historical_features(entity_df=entities, features=["v:i64"]).to_df()
    assert joined.sort_values("driver")["i64"].tolist() == [7, 8, 2**60 + 1]


def test_a_store_without_the_source_or_without_checks_is_refused_before_anything_is_read(
    repository: tuple[Path, Any],
) -> None:
    from feature_repo.stores.push import CheckedStore
    from feature_repo.stream.consumer import sources_of

    folder, store = repository
    given = settings("t", "127.0.0.1:1")
    assert set(sources_of(given, store)["t"][0]) == {"driver", "i64", "f64", "event"}
    other = settings("t", "127.0.0.1:1", topics=[{"topic": "t", "source": "nobody"}])
    with pytest.raises(PlatformError, match="topic t: there is no push source nobody") as refused:
        sources_of(other, store)
    assert refused.value.detail == "the store has: ps"
    file = folder / "feature_store.yaml"
    file.write_text(file.read_text().replace("feature_repo.stores.push.CheckedProvider", "local"))
    with pytest.raises(PlatformError, match="does not check what is pushed"):
        sources_of(given, CheckedStore(repo_path=str(folder)))

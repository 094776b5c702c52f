"""Messages become rows, and what is refused is found without holding back the others."""

from __future__ import annotations

import json
import threading
import time
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import PlatformError
from contracts.settings import load
from feature_repo.stream import consumer
from feature_repo.stream.exposition import Figures
from feature_repo.stream.messages import Message, RefusedError, frame_of, row_of
from feature_repo.stream.pushing import push_batch
from feature_repo.stream.settings import PREFIX, StreamSettings

SAME = {"driver": "driver", "n": "n"}


def message(value: Any, offset: int = 0, key: bytes | None = b"k", moment: int = 1_767_225_612_345) -> Message:
    raw = value if isinstance(value, bytes) or value is None else json.dumps(value).encode()
    return Message(topic="t", partition=1, offset=offset, key=key, value=raw, moment=moment)


def test_columns_are_members_at_any_depth_the_key_and_the_moment_of_the_message() -> None:
    columns = {"driver": "$key", "event": "$timestamp", "n": "a.b", "more": "a.c?", "none": "x"}
    row = row_of(message({"a": {"b": 2**60 + 1}, "x": None, "left": "out"}), columns)
    assert row == {
        "driver": "k",
        "event": "2026-01-01T00:00:12.345000+00:00",
        "n": 2**60 + 1,
        "more": None,
        "none": None,
    }


@pytest.mark.parametrize(
    ("value", "columns", "reason"),
    [
        (b"{", SAME, "not JSON"),
        (b"\xff", SAME, "not JSON"),
        (b"[1]", SAME, "a JSON object is wanted, not list"),
        ({"driver": "a"}, SAME, "no member n"),
        ({"a": 1}, {"n": "a.b"}, "no member a.b"),
        ({"a": 1}, {"n": "a.b.c"}, "no member a.b.c"),
    ],
)
def test_what_is_no_row_says_why(value: Any, columns: dict[str, str], reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        row_of(message(value), columns)


def test_a_key_that_is_no_text_and_a_moment_that_is_not_there() -> None:
    with pytest.raises(RefusedError, match="no text in UTF-8"):
        row_of(message({}, key=b"\xff"), {"driver": "$key"})
    assert row_of(message({}, key=None, moment=-1), {"driver": "$key", "event": "$timestamp"}) == {
        "driver": None,
        "event": None,
    }


def test_whole_numbers_stay_exact_beside_missing_ones() -> None:
    frame = frame_of([{"n": 2**60 + 1}, {"n": None}])
    assert frame["n"].tolist() == [2**60 + 1, None]


@given(st.lists(st.sampled_from(["good", "refused", "broken", "gone"]), max_size=40))
def test_all_good_rows_are_pushed_once_in_order_and_all_others_are_named(kinds: list[str]) -> None:
    values = {
        "good": lambda n: {"n": n},
        "refused": lambda n: {"n": -1},
        "broken": lambda n: b"{",
        "gone": lambda n: None,
    }
    batch = [message(values[kind](place), place) for place, kind in enumerate(kinds)]
    written: list[int] = []

    def push(frame: pd.DataFrame) -> None:
        if (frame["n"] == -1).any():
            raise PlatformError("feature n: -1", code="bad_feature_value")
        written.extend(frame["n"])

    done = push_batch(batch, {"n": "n"}, push)
    assert written == [place for place, kind in enumerate(kinds) if kind == "good"]
    assert [(one.offset, why) for one, why in done.refused] == [
        (place, "feature n: -1" if kind == "refused" else "not JSON: unexpected end of data (character 1)")
        for place, kind in enumerate(kinds)
        if kind in ("refused", "broken")
    ]
    assert (done.pushed, done.tombstones) == (kinds.count("good"), kinds.count("gone"))


@pytest.mark.parametrize("error", [PlatformError("full", code="push_failed"), OSError("away"), PlatformError("x")])
def test_a_store_that_is_away_is_no_fault_of_the_rows(error: Exception) -> None:
    def push(frame: pd.DataFrame) -> None:
        raise error

    with pytest.raises(type(error)):
        push_batch([message({"n": 1}), message({"n": 2}, 1)], {"n": "n"}, push)


TOPIC = {"topic": "t", "source": "ps"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"topics": []}, "topics"),
        ({"topics": [TOPIC, TOPIC]}, "topic t is given twice"),
        ({"kafka": {"enable.auto.commit": True}}, "enable.auto.commit is not set here"),
        ({"kafka": {"sasl.password": "x"}}, "sasl.password is not set here"),
        ({"kafka": {"plugin.library.paths": "/tmp/a.so"}}, "plugin.library.paths is not set here"),
        ({"brokers": ""}, "brokers"),
        ({"max_rows": 0}, "max_rows"),
        ({"topics": [{**TOPIC, "to": "both stores"}]}, "topics"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(change: dict[str, Any], says: str) -> None:
    with pytest.raises(PlatformError) as refused:
        load(StreamSettings, environ={}, overrides={"brokers": "b:9092", "topics": [TOPIC], **change})
    assert says in str(refused.value)


def test_the_password_comes_by_the_environment_and_is_never_shown() -> None:
    found = load(
        StreamSettings,
        prefix=PREFIX,
        environ={
            "FAIRLEAD_STREAM_PASSWORD": "s3cret",
            "FAIRLEAD_STREAM_PORT": "0",
        },
        overrides={"brokers": "b:9092", "topics": [TOPIC], "kafka": {"security.protocol": "SASL_SSL"}},
    )
    assert found.client() == {
        "bootstrap.servers": "b:9092",
        "security.protocol": "SASL_SSL",
        "sasl.password": "s3cret",
    }
    assert found.port == 0
    assert "s3cret" not in repr(found)


class Silent:
    """A consumer whose brokers go with its first commit on its way: as librdkafka, it waits for an answer for ever."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.told, self.over, self.got = settings, threading.Event(), False

    def list_topics(self, timeout: float) -> Any:
        return SimpleNamespace(topics={"t": SimpleNamespace(error=None)})

    def subscribe(self, *_: Any, **__: Any) -> None: ...

    def assignment(self) -> list[Any]:
        return []

    def consume(self, count: int, seconds: float) -> list[Any]:
        time.sleep(0.01)
        given, self.got = [] if self.got else [Got()], True
        return given

    def commit(self, offsets: Any, asynchronous: bool) -> None:
        if not asynchronous:
            self.close()

    def close(self) -> None:
        self.over.wait(60)


class Got:
    """A message as the library gives it."""

    def __getattr__(self, name: str) -> Any:
        said = {"topic": "t", "partition": 0, "offset": 4, "key": b"k", "value": b'{"n": 1}', "timestamp": (1, 5)}
        return lambda: said.get(name)


def test_nobody_waits_for_a_commit_that_the_brokers_took_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Silent] = []

    def library() -> Any:
        place = lambda *of: of  # noqa: E731
        return SimpleNamespace(
            Consumer=lambda told: made.append(Silent(told)) or made[0], TopicPartition=place, KafkaException=OSError
        )

    monkeypatch.setattr(consumer, "_library", library)
    monkeypatch.setattr(consumer, "_CLOSED", 0.2)
    given = {"brokers": "nowhere:1", "group": "g", "topics": [{"topic": "t", "source": "s"}], "max_seconds": 0}
    written: list[int] = []
    stream = consumer.Stream(
        StreamSettings.model_validate(given), {"t": ({"n": "n"}, lambda frame: written.extend(frame["n"]))}, Figures()
    )
    stop = threading.Event()
    running = threading.Thread(target=stream.run, args=(stop,), daemon=True)
    running.start()
    for _ in range(500):
        if made and made[0].got and written and not stream._waiting:
            break
        time.sleep(0.01)
    assert written == [1]
    assert not stream._waiting, "it waits for the commit"
    stop.set()
    running.join(5)
    assert not running.is_alive(), "it waits for the group to be left"
    made[0].over.set()

"""Reads topics, pushes their rows, and only then says that they are read: what fails is read again, and harmless.

A batch is pushed as one write (`CheckedStore.push`), and the offsets behind it are committed after it. A consumer that
dies in between pushes the same rows again: an older row never replaces a newer one online, and a join takes a row that
is twice in the history once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import orjson

from contracts.errors import PlatformError
from feature_repo.stream.exposition import Figures
from feature_repo.stream.messages import Message
from feature_repo.stream.pushing import Outcome, Push, push_batch
from feature_repo.stream.settings import StreamSettings

_LOG = logging.getLogger(__name__)
_POLL = 0.1  # seconds that a look at the brokers takes at most: also how soon an end is noticed
_AWAY = 60.0  # seconds without any broker at the start after which it is an error
_TOLD_MS = 5000  # between two looks at the connections
_CLOSED = 15.0  # seconds that leaving the group may take
_SENT = 30.0  # seconds that a dead letter may take


class Stream:
    """Consumes the topics of the settings until it is told to stop.

    Args:
        settings: see `StreamSettings`.
        sources: by topic, the columns of its rows and what pushes them.
        figures: counts what happens.
    """

    def __init__(
        self, settings: StreamSettings, sources: Mapping[str, tuple[Mapping[str, str], Push]], figures: Figures
    ) -> None:
        self._settings, self._sources, self._figures = settings, sources, figures
        self._waiting: list[Message] = []
        self._since = 0.0
        self._pause = 0.0  # seconds until the next try of a push
        self._retry_at = 0.0
        self._held = False  # whether partitions are paused
        self._next: dict[tuple[str, int], int] = {}  # offsets behind what was pushed
        self._first: dict[tuple[str, int], int] = {}  # where reading began, of what has no such offset yet
        self._consumer: Any = None
        self._producer: Any = None

    def run(self, stop: threading.Event) -> None:
        """Consume until `stop` is set.

        Raises:
            PlatformError: no broker answers, a topic is not there, the brokers refuse, a message is refused and nobody
                takes dead letters, or rows and store do not fit.
        """
        kafka = _library()
        self._consumer = kafka.Consumer(
            {
                **self._settings.client(),
                "group.id": self._settings.group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "on_commit": self._committed,
                "auto.offset.reset": self._settings.start,
                "error_cb": self._said,
                "stats_cb": self._told,
                "statistics.interval.ms": _TOLD_MS,
            }
        )
        if self._settings.dead_letters:
            self._producer = kafka.Producer({**self._settings.client(), "enable.idempotence": True})
        try:
            self._look_at_topics(kafka)
            self._consumer.subscribe(list(self._sources), on_revoke=self._revoked, on_lost=self._lost)
            while not stop.is_set():
                self._turn()
                if self._figures.due():
                    self._measure(kafka)
            self._flush()
            self._measure(kafka)
        finally:
            self._waiting = []  # what is not pushed by now is read again
            self._close()

    def _close(self) -> None:
        """Leave the group; where brokers have gone with a commit on its way, that may take for ever."""
        leaving = threading.Thread(target=self._consumer.close, name="leaving", daemon=True)
        leaving.start()
        leaving.join(_CLOSED)
        if leaving.is_alive():
            _LOG.warning("the group was not left within %.0f s: the brokers will find out by themselves", _CLOSED)

    def _look_at_topics(self, kafka: Any) -> None:
        try:
            found = self._consumer.list_topics(timeout=_AWAY).topics
        except kafka.KafkaException as err:
            raise PlatformError(
                f"no broker at {self._settings.brokers} answers",
                detail=str(err.args[0].str()) if err.args else "",
                fix="look at `brokers`, at `kafka` (security.protocol, sasl.mechanisms) and at the password",
                code="brokers_unreachable",
            ) from None
        for name in (*self._sources, *filter(None, [self._settings.dead_letters])):
            if name not in found or found[name].error is not None:
                raise PlatformError(
                    f"there is no topic {name}",
                    detail=f"the brokers have: {', '.join(sorted(found)[:20]) or 'none'}",
                    fix="create it, or correct its name; the group may need the right to describe it",
                    code="no_topic",
                    topic=name,
                )

    def _turn(self) -> None:
        wait = min(_POLL, self._settings.max_seconds) or _POLL
        room = self._settings.max_rows - len(self._waiting)
        # While a store is away nothing more is taken, but the group must see that this member lives.
        if self._pause:
            self._consumer.pause(self._consumer.assignment())
        elif self._held:
            self._consumer.resume(self._consumer.assignment())
        self._held = self._pause > 0
        for got in self._consumer.consume(max(room, 1), wait):
            if got.error() is not None:
                if got.error().fatal() or not got.error().retriable():
                    raise _broker_error(got.error())
                continue
            self._take(got)
        now = time.monotonic()
        full = len(self._waiting) >= self._settings.max_rows or now - self._since >= self._settings.max_seconds
        if self._waiting and full and now >= self._retry_at:
            self._flush()

    def _take(self, got: Any) -> None:
        kind, moment = got.timestamp()
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting.append(
            Message(
                topic=got.topic(),
                partition=got.partition(),
                offset=got.offset(),
                key=got.key(),
                value=got.value(),
                moment=moment if kind else -1,
            )
        )

    def _flush(self) -> None:
        """Push what waits and commit it; when a store is away, it waits on."""
        for name in sorted({one.topic for one in self._waiting}):
            batch = [one for one in self._waiting if one.topic == name]
            columns, push = self._sources[name]
            began = time.monotonic()
            try:
                done = push_batch(batch, columns, push)
            except PlatformError as err:
                if err.code != "push_failed":
                    raise
                self._later(name, f"{err.headline}; {err.detail}")
                return
            except Exception as err:  # noqa: BLE001 - whatever a store says while it is away
                self._later(name, f"{type(err).__name__}: {err}")
                return
            self._set_aside(done)
            self._commit(batch)
            self._figures.pushed(name, done, time.monotonic() - began, max(one.moment for one in batch))
            self._waiting = [one for one in self._waiting if one.topic != name]
        if self._pause:
            _LOG.warning("the store takes rows again")
        self._pause = self._retry_at = 0.0

    def _later(self, topic: str, reason: str) -> None:
        self._pause = min(2 * self._pause or 0.5, self._settings.retry_seconds)
        self._retry_at = time.monotonic() + self._pause
        self._figures.failed(topic)
        _LOG.warning("rows of %s wait, the next try is in %.1f s: %s", topic, self._pause, reason)

    def _set_aside(self, done: Outcome) -> None:
        """Hand what was refused to the topic of dead letters, before it counts as read."""
        if not done.refused:
            return
        message, why = done.refused[0]
        if self._producer is None:
            raise PlatformError(
                f"{message.place}: the message is refused",
                detail=why,
                fix="correct `columns` or the producer; or set `dead_letters` to a topic that takes such messages, "
                "then the others go on. This one is read again at the next start",
                code="bad_message",
                topic=message.topic,
                partition=message.partition,
                offset=message.offset,
            )
        undelivered: list[str] = []
        for message, why in done.refused:
            _LOG.warning("%s: refused: %s", message.place, why)
            self._producer.produce(
                self._settings.dead_letters,
                value=message.value,
                key=message.key,
                headers={
                    "reason": why, "topic": message.topic,
                    "partition": str(message.partition), "offset": str(message.offset),
                },
                on_delivery=lambda error, _: undelivered.append(str(error)) if error is not None else None,
            )  # fmt: skip
        if self._producer.flush(_SENT) or undelivered:
            raise PlatformError(
                f"dead letters cannot be written to {self._settings.dead_letters}",
                detail=undelivered[0] if undelivered else f"not within {_SENT:.0f} s",
                fix="look at the topic and at the right to write to it; the messages are read again",
                code="dead_letters",
            )

    def _commit(self, batch: Sequence[Message]) -> None:
        kafka = _library()
        for one in batch:
            at = one.topic, one.partition
            self._next[at] = max(self._next.get(at, 0), one.offset + 1)
        places = sorted({(one.topic, one.partition) for one in batch})
        offsets = [kafka.TopicPartition(*place, self._next[place]) for place in places]
        try:  # nobody waits for the answer: a commit that is on its way when brokers go may never get one
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except kafka.KafkaException as err:
            self._committed(err, offsets)

    def _committed(self, error: Any, offsets: Sequence[Any]) -> None:
        """What has become of a commit; the rows are written: at worst they are again."""
        if error is not None:
            _LOG.warning("offsets were not committed, rows may be pushed again: %s", error)

    def _measure(self, kafka: Any) -> None:
        """Messages behind, from what the brokers said with the last answer: no question of our own."""
        assigned = self._consumer.assignment()
        self._figures.only({(one.topic, one.partition) for one in assigned})
        for one in assigned:
            _, high = self._consumer.get_watermark_offsets(one, cached=True)
            place = one.topic, one.partition
            if place not in self._next and place not in self._first:
                try:
                    self._first[place] = self._begins(one)
                except kafka.KafkaException:
                    continue
            if high >= 0:
                self._figures.lag(*place, max(0, high - self._next.get(place, self._first.get(place, high))))

    def _begins(self, partition: Any) -> int:
        """Where the group reads a partition from; messages before that are nobody's, and do not wait."""
        found: int = self._consumer.committed([partition], timeout=5)[0].offset
        if found >= 0:
            return found
        low, high = self._consumer.get_watermark_offsets(partition, timeout=5)
        return int(low if self._settings.start == "earliest" else high)

    def _revoked(self, consumer: Any, partitions: Sequence[Any]) -> None:
        """Partitions go to another member: what waits is pushed first, or read again by that one."""
        try:
            self._flush()
        except PlatformError as err:  # the next member meets it too, and says it
            _LOG.warning("not pushed before partitions left: %s", err.headline)
        self._lost(consumer, partitions)

    def _lost(self, consumer: Any, partitions: Sequence[Any]) -> None:
        gone = {(one.topic, one.partition) for one in partitions}
        self._waiting = [one for one in self._waiting if (one.topic, one.partition) not in gone]
        for place in gone:
            self._next.pop(place, None)
            self._first.pop(place, None)
        _LOG.info("partitions left: %s", ", ".join(f"{topic} [{number}]" for topic, number in sorted(gone)))

    def _said(self, error: Any) -> None:
        """What librdkafka tells beside messages; it goes on by itself."""
        _LOG.warning("brokers: %s", error.str())

    def _told(self, statistics: str) -> None:
        """What librdkafka knows of its connections, every few seconds."""
        brokers = orjson.loads(statistics)["brokers"].values()
        self._figures.up(any(one["state"] == "UP" for one in brokers))


def sources_of(settings: StreamSettings, store: Any) -> dict[str, tuple[Mapping[str, str], Callable[[Any], None]]]:
    """What each topic's rows are, and how they are pushed into a `CheckedStore`.

    Raises:
        PlatformError: the store has no such push source, or does not check what is pushed.
    """
    from feast.data_source import PushMode

    from feature_repo.stores.push import CheckedProvider

    if not isinstance(store.provider, CheckedProvider):
        raise PlatformError(
            "the feature store does not check what is pushed",
            detail=f"its provider is {store.config.provider}, which cuts numbers to fit, and writes half of a push",
            fix="set provider: feature_repo.stores.push.CheckedProvider in feature_store.yaml",
            code="unchecked_store",
        )

    modes = {"online": PushMode.ONLINE, "offline": PushMode.OFFLINE, "both": PushMode.ONLINE_AND_OFFLINE}
    known: dict[str, list[Any]] = {}
    for view in store.list_feature_views():
        if view.stream_source is not None:
            known.setdefault(view.stream_source.name, []).append(view)
    made: dict[str, tuple[Mapping[str, str], Callable[[Any], None]]] = {}
    for one in settings.topics:
        if one.source not in known:
            raise PlatformError(
                f"topic {one.topic}: there is no push source {one.source}",
                detail=f"the store has: {', '.join(sorted(known)) or 'none'}",
                fix="a feature view takes pushes when its source is feast.PushSource(name=..., batch_source=...)",
                code="no_source",
                topic=one.topic,
            )
        columns = one.columns or {name: name for view in known[one.source] for name in _columns(view)}
        made[one.topic] = columns, partial(_push, store, one.source, modes[one.to])
    return made


def _push(store: Any, source: str, mode: Any, frame: Any) -> None:
    store.push(source, frame, to=mode)


def _columns(view: Any) -> list[str]:
    """What the rows of a view are called at its source."""
    from feature_repo.stores.plan import compile_view

    compiled = compile_view(view)
    names = [one["name"] for part in ("join_keys", "fields") for one in compiled[part]]
    return [*(compiled["columns"].get(name, name) for name in names), compiled["timestamp_field"]]


def _library() -> Any:
    try:
        import confluent_kafka
    except ModuleNotFoundError:
        raise PlatformError(
            "streams need confluent-kafka",
            fix="pip install 'fairlead[streams]'",
            code="missing_extra",
        ) from None
    return confluent_kafka


def _broker_error(error: Any) -> PlatformError:
    return PlatformError(
        "the brokers refuse",
        detail=f"{error.name()}: {error.str()}",
        fix="look at the topic, at the group's rights (read, describe) and at `start`",
        code="brokers_refuse",
    )

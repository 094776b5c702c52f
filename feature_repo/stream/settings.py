"""Settings of the consumer; every key is an environment variable ``FAIRLEAD_STREAM_<KEY>``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, SecretStr, field_validator

from contracts.settings import Settings

PREFIX = "FAIRLEAD_STREAM_"
KEY, MOMENT = "$key", "$timestamp"

# What the delivery rests on, and what would name a file of code.
_OURS = frozenset(
    {
        "bootstrap.servers", "group.id", "enable.auto.commit", "enable.auto.offset.store", "auto.offset.reset",
        "sasl.password", "enable.partition.eof", "plugin.library.paths", "isolation.level",
    }
)  # fmt: skip


class Topic(Settings):
    """One topic, whose messages are JSON objects, and the push source that takes them."""

    topic: str = Field(min_length=1, description="name of the topic")
    source: str = Field(min_length=1, description="push source of the feature store")
    to: Literal["online", "offline", "both"] = Field("online", description="the stores that take the rows")
    columns: dict[str, str] = Field(
        {},
        description="member of the message for each column (a.b is b in a; a.b? may be absent), $timestamp or $key; "
        "empty: the members that are called like the columns of the source's views",
    )


class StreamSettings(Settings):
    """Where messages come from, where rows go to, and how many at once."""

    brokers: str = Field(min_length=1, description="host:port of some brokers, with commas between")
    group: str = Field("fairlead-features", min_length=1, description="consumer group, which keeps how far it has read")
    password: SecretStr = Field(SecretStr(""), description="sasl.password; give it by the environment")
    kafka: dict[str, str | int | float | bool] = Field(
        {}, description="more properties of librdkafka, such as security.protocol, sasl.mechanisms, ssl.ca.location"
    )
    start: Literal["earliest", "latest"] = Field("earliest", description="where a group begins that has not read yet")
    repo: str = Field(".", description="folder of feature_store.yaml")
    topics: list[Topic] = Field(min_length=1, description="topics and their push sources")
    dead_letters: str = Field(
        "", description="topic for messages that are refused; empty: the consumer stops at the first one"
    )
    max_rows: int = Field(2000, ge=1, le=100_000, description="rows of a push")
    max_seconds: float = Field(0.2, ge=0, le=60, description="time that a message waits for others")
    retry_seconds: float = Field(30, gt=0, le=600, description="longest pause between pushes while a store is away")
    host: str = Field("0.0.0.0", description="address that metrics are served on")
    port: int = Field(9112, ge=0, le=65535, description="port of /metrics; 0: none")

    @field_validator("kafka")
    @classmethod
    def _not_ours(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        if taken := sorted(_OURS & set(given)):
            raise ValueError(
                f"{taken[0]} is not set here: it is `password`, another key, or what the delivery rests on"
            )
        return given

    @field_validator("topics")
    @classmethod
    def _once(cls, given: list[Topic]) -> list[Topic]:
        names = [one.topic for one in given]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"topic {twice[0]} is given twice: one source may have several views")
        return given

    def client(self) -> dict[str, Any]:
        """The properties of every client of the brokers."""
        found: dict[str, Any] = {"bootstrap.servers": self.brokers, **self.kafka}
        if password := self.password.get_secret_value():
            found["sasl.password"] = password
        return found

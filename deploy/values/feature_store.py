"""What ``helm/feature-store`` accepts."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints

from deploy.values.shared import (
    Chart,
    Global,
    Image,
    Name,
    Objects,
    Persistence,
    Port,
    Resources,
    Store,
    Values,
    Workload,
)

SqlName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]


class Redis(Workload):
    """The online store."""

    image: Image
    max_memory: Annotated[str, StringConstraints(pattern=r"^[0-9]+(kb|mb|gb)$")]
    persistence: Persistence


class Definitions(Values):
    """The Job that writes the definitions."""

    enabled: bool
    image: Image
    resources: Resources
    extra_env_from: Objects


class Registry(Values):
    """Feast's registry in SQL."""

    project: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_]*$")]
    database: SqlName
    user: SqlName
    apply: Definitions


class Brokers(Values):
    """Where a network policy lets the consumer go."""

    cidr: str
    ports: list[Port]


class Stream(Workload):
    """The consumer of topics."""

    enabled: bool
    config: dict[str, Any]
    existing_secret: Name
    brokers: Brokers
    replicas: Annotated[int, Field(ge=0)]


class FeatureStoreGlobal(Global):
    """Stores that this chart uses."""

    sql: Store
    redis: Store


class ChartValues(Chart):
    """The whole file."""

    global_: FeatureStoreGlobal = Field(alias="global")
    common_labels: dict[str, str]
    redis: Redis
    registry: Registry
    stream: Stream
    extra_objects: list[Any]

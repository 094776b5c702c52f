"""What ``helm/monitoring`` accepts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from contracts.metric_names import LATENCY_BUCKETS
from deploy.values.shared import (
    Chart,
    HttpRoute,
    Image,
    Ingress,
    Name,
    Objects,
    Persistence,
    UrlPath,
    Values,
    Workload,
)

Duration = Annotated[str, StringConstraints(pattern=r"^[0-9]+(ms|s|m|h|d|w|y)$")]

Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]


class Objectives(Values):
    """What alerts compare with."""

    availability: Share
    latency_seconds: Literal[LATENCY_BUCKETS]  # type: ignore[valid-type]
    latency_share: Share
    first_token_seconds: Positive
    tokens_per_second: Positive
    feature_hours: Positive
    model_days: Positive
    monitor_minutes: Positive
    every_model_monitored: bool
    certificate_days: Annotated[int, Field(ge=2)]
    certificate_probes: Annotated[str, StringConstraints(pattern=r'^[^@"\\]*$')]
    rollout_hours: Annotated[int, Field(ge=1)]
    run_hours: dict[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+$")], Positive]


Price = Annotated[float, Field(ge=0)]


class Prices(Values):
    """What an hour of a machine costs."""

    currency: Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{1,8}$")]
    core_hour: Price
    gib_hour: Price
    gpu_hour: Price


class AlertmanagersAccess(Values):
    """How Prometheus talks to Alertmanagers of the user's own."""

    scheme: Literal["http", "https"]
    path_prefix: UrlPath
    existing_secret: Name
    basic_auth: bool
    ca: bool
    client_certificate: bool


class Dashboard(Values):
    """Grafana dashboard."""

    enabled: bool
    labels: dict[str, str]
    folder: str


class Prometheus(Workload):
    """Our own Prometheus."""

    image: Image
    ingress: Ingress
    http_route: HttpRoute
    retention: Duration
    retention_size: Annotated[str, StringConstraints(pattern=r"^[0-9]+(MB|GB|TB)$")]
    persistence: Persistence
    extra_egress: Objects


class Alertmanager(Workload):
    """A small Alertmanager."""

    enabled: bool
    image: Image
    existing_secret: Name
    config: dict[str, Any]
    retention: Duration
    persistence: Persistence
    extra_egress: Objects


class ChartValues(Chart):
    """The whole file."""

    common_labels: dict[str, str]
    mode: Literal["auto", "prometheus", "operator"]
    operator_labels: dict[str, str]
    interval: Duration
    namespaces: list[Annotated[Name, Field(min_length=1)]]
    alertmanagers: list[Annotated[str, StringConstraints(pattern=r"^[^/:]+:[0-9]+$")]]
    objectives: Objectives
    prices: Prices
    alertmanagers_access: AlertmanagersAccess
    dashboard: Dashboard
    prometheus: Prometheus
    alertmanager: Alertmanager
    extra_objects: list[Any]

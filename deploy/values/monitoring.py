"""What ``helm/monitoring`` accepts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from deploy.values.shared import Chart, HttpRoute, Image, Ingress, Name, Objects, Persistence, Values, Workload

Duration = Annotated[str, StringConstraints(pattern=r"^[0-9]+(ms|s|m|h|d|w|y)$")]


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


class ChartValues(Chart):
    """The whole file."""

    common_labels: dict[str, str]
    mode: Literal["auto", "prometheus", "operator"]
    operator_labels: dict[str, str]
    interval: Duration
    namespaces: list[Annotated[Name, Field(min_length=1)]]
    alertmanagers: list[Annotated[str, StringConstraints(pattern=r"^[^/:]+:[0-9]+$")]]
    dashboard: Dashboard
    prometheus: Prometheus
    extra_objects: list[Any]

"""What ``helm/federated-site`` accepts."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from deploy.values.shared import (
    Chart,
    Cidr,
    Image,
    Name,
    Objects,
    Persistence,
    Port,
    RecipeName,
    TaskName,
    Values,
    Workload,
)


class Server(Values):
    """The coordinator."""

    host: Annotated[str, Field(pattern=r"^$|^[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?$")]
    port: Port
    cidr: Cidr


class ChartValues(Chart, Workload):
    """The whole file."""

    common_labels: dict[str, str]
    task: TaskName
    recipe: RecipeName
    name: Annotated[str, Field(pattern=r"^$|^[A-Za-z0-9][-A-Za-z0-9]{0,59}$")]
    server: Server
    existing_secret: Name
    source: str
    rows_claim: Name
    rules: dict[str, Any]
    settings: dict[str, Any]
    image: Image
    persistence: Persistence
    extra_egress: Objects

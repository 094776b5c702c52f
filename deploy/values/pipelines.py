"""What ``helm/pipelines`` accepts."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from deploy.values.feature_store import SqlName
from deploy.values.shared import (
    Chart,
    Global,
    Image,
    Name,
    Objects,
    ObjectStore,
    Place,
    Resources,
    SharedNetwork,
    Store,
    Values,
    Workload,
)

Count = Annotated[int, Field(ge=0)]


class Sql(Values):
    """Databases and their user."""

    user: SqlName
    database: SqlName
    metadata_database: SqlName


class CustomResources(Values):
    """Definitions of custom resources."""

    install: bool
    keep: bool


class Images(Values):
    """Images of the backend and of the steps' own containers."""

    api_server: Image
    persistence_agent: Image
    scheduled_workflow: Image
    driver: Image
    launcher: Image
    ui: Image
    metadata_envoy: Image
    workflow_controller: Image
    executor: Image
    metadata: Image


class Schedules(Values):
    """Recurring runs."""

    enabled: bool
    timezone: Annotated[str, Field(min_length=1)]


class Ui(Values):
    """Web page."""

    enabled: bool


class Publish(Values):
    """The Job that uploads the workflows."""

    enabled: bool
    image: Image
    profile: dict[str, Any]
    resources: Resources


class Keeper(Values):
    """The Deployment that starts runs of nobody again."""

    enabled: bool
    image: Image
    seconds: int = Field(ge=1)
    resources: Resources


class Steps(Values):
    """Steps of workflows."""

    service_account: Annotated[Name, Field(min_length=1)]
    volumes: bool
    jobs: bool
    ray_jobs: bool
    extra_egress: Objects


class Pod(Workload):
    """What the parts of the backend have in common."""

    topology_spread_constraints: Objects
    """As in a pod; default: spread over hosts and zones where possible."""


class PipelinesGlobal(Global):
    """Stores and networks that this chart uses."""

    sql: Store
    s3: ObjectStore
    metadata: Place
    network_policy: SharedNetwork


class ChartValues(Chart):
    """The whole file."""

    global_: PipelinesGlobal = Field(alias="global")
    common_labels: dict[str, str]
    replicas: Count
    sql: Sql
    crds: CustomResources
    images: Images
    schedules: Schedules
    ui: Ui
    publish: Publish
    keeper: Keeper
    requeue_seconds: Annotated[int, Field(ge=1, le=60)]
    parallelism: Count
    keep_finished_seconds: Count
    publish_logs: bool
    steps: Steps
    pod: Pod
    extra_objects: list[Any]

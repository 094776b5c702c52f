"""What ``helm/platform`` accepts; the values of its parts are checked by their own charts."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from deploy.values.feature_store import SqlName
from deploy.values.shared import (
    Chart,
    Cidr,
    Global,
    HttpRoute,
    Image,
    Ingress,
    Name,
    Objects,
    ObjectStore,
    Persistence,
    Place,
    RecipeName,
    Resources,
    SecretKey,
    SharedNetwork,
    SiteName,
    Store,
    TaskName,
    Values,
    Workload,
)

Count = Annotated[int, Field(ge=0)]


class Documents(Store):
    """A MongoDB of the user's own, and what is kept there."""

    documents: Annotated[str, Field(pattern=r"^$|^[A-Za-z0-9_-]{1,63}$")]
    """Database that gets the rows of dataset versions and annotations; empty: none."""


class Searches(Values):
    """Trials of hyper-parameter searches in the SQL server."""

    enabled: bool


class PlatformGlobal(Global):
    """What all parts share; here an unknown key is an error."""

    model_config = ConfigDict(extra="forbid")

    storage_class: Name
    check_storage_class: bool
    sql: Store
    s3: ObjectStore
    redis: Store
    mongodb: Documents
    search: Searches
    predictions: PredictionLog
    metadata: Place
    network_policy: SharedNetwork


class MariaDB(Workload):
    """The embedded SQL server."""

    image: Image
    buffer_pool: Annotated[str, Field(pattern=r"^[0-9]+[KMG]$")]
    persistence: Persistence


class S3(Workload):
    """The embedded S3 server."""

    image: Image
    persistence: Persistence


class Autoscaling(Values):
    """HorizontalPodAutoscaler on CPU."""

    enabled: bool
    min_replicas: Annotated[int, Field(ge=1)]
    max_replicas: Annotated[int, Field(ge=1)]
    cpu_target: Annotated[int, Field(ge=1)]


class MLflow(Workload):
    """Tracking and registry."""

    replicas: Count
    workers: Annotated[int, Field(ge=1)]
    database: SqlName
    user: SqlName
    allowed_hosts: list[str]
    ingress: Ingress
    http_route: HttpRoute
    autoscaling: Autoscaling
    topology_spread_constraints: Objects
    """As in a pod; default: spread over hosts and zones where possible."""


class ModelKey(Values):
    """The Secret with the key that a model's endpoint wants."""

    model: Annotated[str, Field(pattern=r"^[\w-]+$")]
    """Name of the model."""
    secret: Annotated[Name, Field(min_length=1)]
    """Name of the Secret."""
    key: Annotated[str, Field(min_length=1)]
    """Its key in it."""


class Console(Workload):
    """The platform's web page."""

    enabled: bool
    replicas: Count
    existing_secret: Name
    model_keys: list[ModelKey]
    links: dict[Annotated[str, Field(pattern=r"^[^=]{1,40}$")], Annotated[str, Field(pattern=r"^https?://[^\s]+$")]]
    prometheus: Annotated[str, Field(pattern=r"^$|^https?://[^/@]+")]
    extra_egress: Objects
    ingress: Ingress
    http_route: HttpRoute
    topology_spread_constraints: Objects
    """As in a pod; default: spread over hosts and zones where possible."""


class ProviderKey(Values):
    """The API key of an outside provider."""

    variable: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]
    """Environment variable, as the backend names it."""
    secret: Annotated[Name, Field(min_length=1)]
    """Name of the Secret."""
    key: Annotated[str, Field(min_length=1)]
    """Its key in it."""


class ModelRouter(Workload):
    """One address before several models that speak OpenAI's protocol."""

    enabled: bool
    replicas: Count
    image: Image
    config: dict[str, Any]
    provider_keys: list[ProviderKey]
    keys: SecretKey
    redis: SecretKey
    extra_egress: Objects
    ingress: Ingress
    http_route: HttpRoute
    topology_spread_constraints: Objects
    """As in a pod; default: spread over hosts and zones where possible."""


class WorkbenchVolume(Values):
    """A claim for each person."""

    enabled: bool
    size: Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?([kMGT]|[KMGT]i)$")]
    storage_class: Name


Person = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]{0,28}[a-z0-9])?$")]


class SignIn(Values):
    """Sign-in to workbenches by OpenID Connect."""

    enabled: bool
    issuer: Annotated[str, Field(pattern=r"^$|^https://[^\s?#]+$")]
    cidr: Cidr
    client_id: Annotated[str, Field(pattern=r"^[^\s]+$")]
    existing_secret: Name
    claim: Annotated[str, Field(pattern=r"^[^\s]+$")]
    people: dict[Person, Annotated[str, Field(pattern=r'^[^\s,"#][^\s,"]*$')]]
    groups: list[Annotated[str, Field(pattern=r"^[^,]+$")]]
    url: Annotated[str, Field(pattern=r"^$|^https?://[^\s/?#]+$")]
    image: Image
    resources: Resources


class WorkbenchIngress(Values):
    """An Ingress for each person."""

    enabled: bool
    class_name: Name
    annotations: dict[str, str]
    tls: Objects
    namespaces: list[Name]


class Workbench(Workload):
    """JupyterLab, a pod for each person."""

    users: Annotated[list[Person], Field(json_schema_extra={"uniqueItems": True})]
    image: Image
    idle_seconds: Annotated[int, Field(ge=0)]
    existing_secret: Name
    oidc: SignIn
    ingress: WorkbenchIngress
    persistence: WorkbenchVolume
    extra_egress: Objects


class Monitor(Workload):
    """What compares the prediction log with training data."""

    enabled: bool
    config: dict[str, Any]


class Skew(Workload):
    """What joins logged rows again, once a day."""

    enabled: bool
    schedule: Annotated[str, Field(pattern=r"^(@(hourly|daily|midnight)|\S+( \S+){4})$")]
    rows: Annotated[int, Field(ge=1, le=1_000_000)]
    scratch: Annotated[str, Field(pattern=r"^[0-9]+(Mi|Gi)$")]


class Loop(Workload):
    """What starts runs by itself."""

    enabled: bool
    seconds: Annotated[float, Field(ge=1)]
    policy: dict[str, Any]
    prometheus: Annotated[str, Field(pattern=r"^$|^https?://[^/@]+")]
    extra_egress: Objects


class FederationService(Values):
    """Where sites connect to."""

    type: Literal["ClusterIP", "LoadBalancer", "NodePort"]
    """Type of the Service."""
    annotations: dict[str, str]
    """Its annotations."""


class Federation(Workload):
    """A training by partners' sites."""

    enabled: bool
    task: TaskName
    recipe: RecipeName
    sites: Annotated[list[SiteName], Field(json_schema_extra={"uniqueItems": True})]
    existing_secret: Name
    source: str
    settings: dict[str, Any]
    image: Image
    service: FederationService
    cidr: Cidr
    scratch: Annotated[str, Field(pattern=r"^[0-9]+(Mi|Gi)$")]


class PredictionLog(Values):
    """The log of what models answered."""

    existing_secret: Name


class DemoTraining(Values):
    """The Job that trains the demo's model."""

    recipe: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    settings: dict[str, Any]
    resources: Resources


class Part(Values):
    """A part of the platform, with the values of its own chart."""

    model_config = ConfigDict(extra="allow")

    enabled: bool


class ChartValues(Chart):
    """The whole file."""

    removed: ClassVar[dict[str, str]] = {
        "mysql": "mariadb, or global.sql for a server of your own",
        "postgresql": "mariadb: Kubeflow Pipelines needs the MySQL protocol",
        "minio": "s3, or global.s3 for an endpoint of your own",
        "redis": "feature-store.redis, or global.redis for a server of your own",
        "feast": "feature-store",
        "kfp": "pipelines",
        "prometheus": "monitoring.prometheus",
        "storageClass": "global.storageClass",
        "imageRegistry": "global.imageRegistry",
    }

    global_: PlatformGlobal = Field(alias="global")
    common_labels: dict[str, str]
    image: Image
    mariadb: MariaDB
    s3: S3
    mlflow: MLflow
    console: Console
    model_router: ModelRouter
    workbench: Workbench
    monitor: Monitor
    skew: Skew
    loop: Loop
    federation: Federation
    pipelines: Part
    feature_store: Part = Field(alias="feature-store")
    monitoring: Part
    demo: Part
    demo_training: DemoTraining
    extra_objects: list[Any]

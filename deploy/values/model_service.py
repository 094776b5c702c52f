"""What ``helm/model-service`` accepts."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StringConstraints

from contracts.metric_names import LATENCY_BUCKETS
from deploy.values.shared import (
    Chart,
    HttpRoute,
    Image,
    Ingress,
    Name,
    Objects,
    Port,
    Quantity,
    Resources,
    SecretKey,
    ServiceAccount,
    Values,
)
from services.settings import ServiceSettings

Share = Annotated[float, Field(gt=0, lt=1)]
Count = int | Annotated[str, StringConstraints(pattern=r"^$|^[0-9]{1,3}%$")]
ObjectName = Annotated[str, StringConstraints(max_length=63)]


class Model(Values):
    """The immutable version that is served."""

    source: Annotated[str, StringConstraints(pattern=r"^$|^s3://.+|^/.+")]
    digest: Annotated[str, StringConstraints(pattern=r"^$|^[0-9a-f]{64}$")]
    name: Annotated[str, StringConstraints(pattern=r"^$|^[a-z][a-z0-9_-]{0,62}$")]
    version: str | int
    modality: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
    wait_seconds: Annotated[int, Field(ge=0)]


class Engine(Values):
    """What writes the answers of chats."""

    kind: Literal["llamacpp", "vllm"]
    image: Image
    tensor_parallel: Annotated[int, Field(ge=1, le=64)]
    pipeline_parallel: Annotated[int, Field(ge=1, le=64)]
    nodes: Annotated[int, Field(ge=1, le=64)]
    gpu_memory: Literal[""] | Quantity
    memory_share: Annotated[float, Field(gt=0, le=1)]
    dtype: Literal["auto", "bfloat16", "float16", "float32"]
    max_rank: Literal[8, 16, 32, 64, 128, 256]
    start_seconds: Annotated[int, Field(ge=60)]
    cache_size: Quantity
    extra_args: list[str]
    extra_env: Objects
    resources: Resources


class Router(Values):
    """The Envoys before the versions."""

    image: Image
    replicas: Annotated[int, Field(ge=1)]
    threads: Annotated[int, Field(ge=1)]
    resources: Resources


class Rollouts(Values):
    """Versions that come by evidence."""

    enabled: bool
    artifacts: Annotated[str, StringConstraints(pattern=r"^$|^s3://.+")]
    tracking: Annotated[str, StringConstraints(pattern=r"^$|^https?://[^/@]+$")]
    storage_secret: Name
    router: Router
    http_route: HttpRoute
    resources: Resources


class Storage(Values):
    """S3."""

    endpoint: Annotated[str, StringConstraints(pattern=r"^$|^https?://[^/@]+$")]
    embedded: bool
    region: str
    existing_secret: Name
    access_key_key: str
    secret_key_key: str


class ApiKeys(SecretKey):
    """Hashes of API keys."""

    generate: bool


class Secrets(Values):
    """Secrets of the service."""

    salt: SecretKey
    online: SecretKey
    adapters: SecretKey
    drawing: SecretKey
    budgets: SecretKey
    keys: ApiKeys
    test: SecretKey
    check: bool


class Autoscaling(Values):
    """HorizontalPodAutoscaler."""

    enabled: bool
    min_replicas: Annotated[int, Field(ge=1)]
    max_replicas: Annotated[int, Field(ge=1)]
    metric: Literal["auto", "inflight", "queue", "cpu"]
    inflight_target: Annotated[float, Field(gt=0)]
    queue_target: Annotated[float, Field(gt=0)]
    cpu_target: Annotated[int, Field(ge=1)]
    scale_down_seconds: Annotated[int, Field(ge=0, le=3600)]


class PodDisruptionBudget(Values):
    """One of the two."""

    enabled: bool
    max_unavailable: Count
    min_available: Count


class Gpu(Values):
    """GPU of a pod."""

    count: Annotated[int, Field(ge=0)]
    resource: str
    runtime_class_name: Name
    shm: Quantity


class Cache(Values):
    """Where the bundle is kept."""

    type: Literal["pod", "claim"]
    size: Quantity
    existing_claim: Name
    storage_class: Name
    access_modes: list[Literal["ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"]]


class Service(Values):
    """Service."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"]
    port: Port
    annotations: dict[str, str]


class NetworkPolicy(Values):
    """Who may talk to whom."""

    enabled: bool
    clients: Objects
    metrics: Objects
    storage: Objects
    online: Objects
    adapters: Objects
    drawing: Objects
    budgets: Objects
    extra_egress: Objects


class Rules(Values):
    """Alert rules."""

    enabled: bool
    kind: Literal["auto", "PrometheusRule", "ConfigMap"]
    labels: dict[str, str]
    runbook_url: str
    availability: Share
    latency_seconds: Literal[LATENCY_BUCKETS]  # type: ignore[valid-type]
    latency_share: Share


class Dashboard(Values):
    """Grafana dashboard."""

    enabled: bool
    labels: dict[str, str]
    folder: str


class Monitoring(Values):
    """Prometheus and Grafana."""

    scrape: Literal["auto", "PodMonitor", "ServiceMonitor", "annotations", "none"]
    labels: dict[str, str]
    interval: Annotated[str, StringConstraints(pattern=r"^[0-9]+(ms|s|m)$")]
    relabelings: Objects
    rules: Rules
    dashboard: Dashboard


class ChartValues(Chart):
    """The whole file."""

    # What a local deployment's file and other charts call these.
    removed: ClassVar[dict[str, str]] = {
        "bundle": "model.source",
        "modality": "model.modality",
        "port": "service.port",
        "replicas": "replicaCount",
        "env": "extraEnv",
    }

    fullname_override: ObjectName
    common_labels: dict[str, str]
    model: Model
    config: ServiceSettings
    rollouts: Rollouts
    storage: Storage
    secrets: Secrets
    image: Image
    replica_count: Annotated[int, Field(ge=0)]
    autoscaling: Autoscaling
    pod_disruption_budget: PodDisruptionBudget
    resources: Resources
    gpu: Gpu
    engine: Engine
    cache: Cache
    service: Service
    ingress: Ingress
    http_route: HttpRoute
    network_policy: NetworkPolicy
    monitoring: Monitoring
    service_account: ServiceAccount
    termination_grace_period_seconds: Annotated[int, Field(ge=1)] | None
    progress_deadline_seconds: Annotated[int, Field(ge=10)]
    node_selector: dict[str, str]
    tolerations: Objects
    affinity: dict[str, Any]
    topology_spread_constraints: Objects
    priority_class_name: Name
    pod_labels: dict[str, str]
    pod_annotations: dict[str, str]
    extra_env: Objects
    extra_env_from: Objects
    extra_volumes: Objects
    extra_volume_mounts: Objects
    extra_objects: list[Any]

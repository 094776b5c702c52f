"""Pieces that the values of several charts are made of; keys are written in camelCase."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from contracts.settings import Settings

Name = Annotated[str, StringConstraints(pattern=r"^$|^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
Quantity = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(m|[kMGTPE]i?)?$")] | float
Port = Annotated[int, Field(ge=1, le=65535)]
Objects = list[dict[str, Any]]
Cidr = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F.:]+/[0-9]{1,3}$")]
TaskName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
RecipeName = Annotated[str, StringConstraints(pattern=r"^$|^[a-z][a-z0-9_]*$")]
SiteName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][-A-Za-z0-9]{0,59}$")]


class Values(Settings):
    """A mapping in ``values.yaml``. Fields have no defaults: those are in the file, and every key must be there.

    A text below a field describes it wherever the class is used; else the comment of the file does.
    """

    model_config = ConfigDict(alias_generator=to_camel, use_attribute_docstrings=True)


class Authorities(Values):
    """Certificates that clients trust; both names empty mean the image's own."""

    config_map: Name
    secret: Name
    key: Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z0-9]+$")]


class Pods(Values):
    """What every pod gets."""

    openshift: bool
    run_as_user: Annotated[int, Field(ge=1)] | None
    run_as_group: Annotated[int, Field(ge=0)] | None
    fs_group: Annotated[int, Field(ge=0)] | None
    node_selector: dict[str, str]
    tolerations: Objects
    affinity: dict[str, Any]
    priority_class_name: Name
    bind_address: Literal["0.0.0.0", "::"]
    ca: Authorities


class GeneratedSecrets(Values):
    """Secrets that nobody names; what renders without a cluster would make new ones each time."""

    generate: bool


class Global(Settings):
    """What an umbrella chart sets for all its parts; other charts' keys are none of our business."""

    model_config = ConfigDict(alias_generator=to_camel, extra="allow")

    image_registry: str = ""
    image_pull_secrets: Objects = Field([])
    pods: Pods
    secrets: GeneratedSecrets


class Chart(Values):
    """The top of a chart's ``values.yaml``.

    Attributes:
        removed: keys of earlier versions, or of files people mistake for this one, and what replaces them. The schema
            lets them pass, so that the chart's ``_validate.tpl`` can refuse them with the new name.
    """

    removed: ClassVar[dict[str, str]] = {}

    global_: Global = Field(alias="global")
    library: dict[str, Any] = Field({}, alias="fairlead-lib", description="Helm puts the library chart's values here.")
    enabled: bool = Field(True, description="Read by an umbrella chart: false leaves this chart out.")


class Image(Values):
    """An image: ``registry/repository:tag@digest``."""

    registry: str
    """Registry; global.imageRegistry wins."""
    repository: Annotated[str, Field(min_length=1)]
    """Repository."""
    tag: Annotated[str, StringConstraints(pattern=r"^$|^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")]
    """Tag; empty: the chart's appVersion."""
    digest: Annotated[str, StringConstraints(pattern=r"^$|^sha256:[0-9a-f]{64}$")]
    """sha256:... of the image; pulled by it when set."""
    pull_policy: Literal["IfNotPresent", "Always", "Never"]
    """Pull policy."""


class Resources(Values):
    """Requests and limits of a container; names of resources are Kubernetes' own, such as ``nvidia.com/gpu``."""

    requests: dict[str, Quantity]
    """Requests."""
    limits: dict[str, Quantity]
    """Limits; no CPU limit: it makes the slowest answers slower."""


class SecretKey(Values):
    """One key of a Secret that exists before the chart is installed; an empty name means none."""

    name: Name
    key: Annotated[str, Field(min_length=1)]


class ServiceAccount(Values):
    """The identity of a pod."""

    create: bool
    name: Name
    annotations: dict[str, str]


class Identity(Values):
    """What a part's ServiceAccount carries, such as a cloud identity."""

    annotations: dict[str, str]
    """Annotations of the ServiceAccount."""


class Workload(Values):
    """What every part of the platform has: size, labels, place, and what people add."""

    resources: Resources
    """Requests and limits; memory limit = request."""
    pod_labels: dict[str, str]
    """Labels of the pods."""
    pod_annotations: dict[str, str]
    """Annotations of the pods."""
    node_selector: dict[str, str]
    """As in a pod."""
    tolerations: Objects
    """As in a pod."""
    affinity: dict[str, Any]
    """As in a pod."""
    priority_class_name: Name
    """As in a pod."""
    runtime_class_name: Name
    """As in a pod."""
    service_account: Identity
    """Its identity."""
    extra_env: Objects
    """More environment variables."""
    extra_env_from: Objects
    """More sources of environment variables."""
    extra_volumes: Objects
    """More volumes."""
    extra_volume_mounts: Objects
    """Where they are mounted."""


class Persistence(Values):
    """A claim of the chart's own."""

    enabled: bool
    """false: an emptyDir; what is in it is lost with the pod."""
    size: Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?([kMGT]|[KMGT]i)$")]
    """Size; may grow where the storage class allows it, never shrink."""
    storage_class: Name
    """Storage class; empty: global.storageClass, then the cluster's default."""
    existing_claim: Name
    """A claim of your own instead."""


class Place(Values):
    """A server of the user's own that asks for no password; an empty host means the embedded one."""

    host: Annotated[str, StringConstraints(pattern=r"^$|^[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?$")]
    """Host name; empty: the embedded one."""
    cidr: Cidr
    """Addresses that the network policies open for it."""


class Store(Place):
    """A server of the user's own; an empty host means the embedded one."""

    port: Port
    """Port."""
    existing_secret: Name
    """Secret with its passwords; must be set for a server of your own."""


class ObjectStoreKeys(Values):
    """Secrets with keys that open less than everything."""

    generate: bool
    """Make them in the S3 server of the platform's release."""

    models: Name
    """For pods that serve models: read bundles, write the prediction log."""
    watchers: Name
    """For what watches models: read everything; write the prediction log, the audit log and the loop's state."""


class ObjectStore(Values):
    """S3 of the user's own; an empty endpoint means the embedded one."""

    endpoint: Annotated[str, StringConstraints(pattern=r"^$|^https?://[^/@]+$")]
    """http(s)://host[:port]; empty: the embedded one."""
    region: Annotated[str, Field(min_length=1)]
    """Region."""
    bucket: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][-a-z0-9.]{1,61}[a-z0-9]$")]
    """Bucket of everything."""
    existing_secret: Name
    """Secret with its passwords; must be set for a server of your own."""
    keys: ObjectStoreKeys
    cidr: Cidr
    """Addresses that the network policies open for it."""


class KubernetesApi(Values):
    """Where the Kubernetes API is."""

    cidr: Cidr
    """Addresses that the network policies open for it."""
    ports: list[Port]
    """Its ports."""


class SharedNetwork(Values):
    """Network policies of all parts."""

    enabled: bool
    """On or off."""
    client_namespaces: list[Name]
    """Other namespaces whose pods may be clients, by the labels fairlead.io/access-*."""
    metrics: Objects
    """Peers that read metrics beside a Prometheus of the namespace, as in a NetworkPolicy."""
    kubernetes_api: KubernetesApi
    """Where the Kubernetes API is, for the parts that use it."""


UrlPath = Annotated[str, StringConstraints(pattern=r"^/")]
HostName = Annotated[str, StringConstraints(pattern=r"^(\*\.)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]


class Ingress(Values):
    """Ingress to a Service."""

    enabled: bool
    class_name: Name
    annotations: dict[str, str]
    hosts: list[HostName]
    path: UrlPath
    tls: Objects
    namespaces: list[Name]


class HttpRoute(Values):
    """HTTPRoute of the Gateway API to a Service."""

    enabled: bool
    parent_refs: Objects
    annotations: dict[str, str]
    hostnames: list[HostName]
    path: UrlPath
    namespaces: list[Name]

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


class Values(Settings):
    """A mapping in ``values.yaml``. Fields have no defaults: those are in the file, and every key must be there."""

    model_config = ConfigDict(alias_generator=to_camel)


class Global(Settings):
    """What an umbrella chart sets for all its parts; other charts' keys are none of our business."""

    model_config = ConfigDict(alias_generator=to_camel, extra="allow")

    image_registry: str = ""
    image_pull_secrets: Objects = Field([])


class Chart(Values):
    """The top of a chart's ``values.yaml``.

    Attributes:
        removed: keys of earlier versions, or of files people mistake for this one, and what replaces them. The schema
            lets them pass, so that the chart's ``_validate.tpl`` can refuse them with the new name.
    """

    removed: ClassVar[dict[str, str]] = {}

    global_: Global = Field(Global(), alias="global")
    library: dict[str, Any] = Field({}, alias="fairlead-lib", description="Helm puts the library chart's values here.")
    enabled: bool = Field(True, description="Read by an umbrella chart: false leaves this chart out.")


class Image(Values):
    """An image: ``registry/repository:tag@digest``."""

    registry: str
    repository: Annotated[str, Field(min_length=1)]
    tag: Annotated[str, StringConstraints(pattern=r"^$|^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")]
    digest: Annotated[str, StringConstraints(pattern=r"^$|^sha256:[0-9a-f]{64}$")]
    pull_policy: Literal["IfNotPresent", "Always", "Never"]


class Resources(Values):
    """Requests and limits of a container; names of resources are Kubernetes' own, such as ``nvidia.com/gpu``."""

    requests: dict[str, Quantity]
    limits: dict[str, Quantity]


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


class Workload(Values):
    """What every part of the platform has: size, labels, place, and what people add."""

    resources: Resources
    pod_labels: dict[str, str]
    pod_annotations: dict[str, str]
    node_selector: dict[str, str]
    tolerations: Objects
    affinity: dict[str, Any]
    priority_class_name: Name
    runtime_class_name: Name
    service_account: Identity
    extra_env: Objects
    extra_env_from: Objects
    extra_volumes: Objects
    extra_volume_mounts: Objects


class Persistence(Values):
    """A claim of the chart's own."""

    enabled: bool
    size: Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?([kMGT]|[KMGT]i)$")]
    storage_class: Name


class Store(Values):
    """A server of the user's own; an empty host means the embedded one."""

    host: Annotated[str, StringConstraints(pattern=r"^$|^[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?$")]
    port: Port
    existing_secret: Name
    cidr: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F.:]+/[0-9]{1,3}$")]


class ObjectStore(Values):
    """S3 of the user's own; an empty endpoint means the embedded one."""

    endpoint: Annotated[str, StringConstraints(pattern=r"^$|^https?://[^/@]+$")]
    region: Annotated[str, Field(min_length=1)]
    bucket: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][-a-z0-9.]{1,61}[a-z0-9]$")]
    existing_secret: Name
    cidr: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F.:]+/[0-9]{1,3}$")]


class KubernetesApi(Values):
    """Where the Kubernetes API is."""

    cidr: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F.:]+/[0-9]{1,3}$")]
    ports: list[Port]


class SharedNetwork(Values):
    """Network policies of all parts."""

    enabled: bool
    client_namespaces: list[Name]
    kubernetes_api: KubernetesApi

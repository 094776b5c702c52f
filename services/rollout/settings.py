"""Settings of the keeper of a release; every key is an environment variable ``FAIRLEAD_ROLLOUT_<KEY>``."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import ConfigDict, Field

from contracts.settings import Settings

PREFIX = "FAIRLEAD_ROLLOUT_"


class KeeperSettings(Settings):
    """Which objects of the release are kept, and what the keeper asks."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    foreign_environment: ClassVar[frozenset[str]] = frozenset({"service_host", "service_port"})

    model: str = Field(description="name of the model, in the registry and in its metrics")
    namespace: str = Field(description="where the release is")
    name: str = Field(description="name of the release's objects")
    version: str = Field(description="version that is served before the first rollout")
    source: str = Field(description="where its bundle is")
    digest: str = Field(description="sha256 of its bundle.json")
    replicas: int = Field(1, ge=1, description="pods of a version; with autoscaling those that it begins with")
    autoscaling: bool = Field(False, description="whether an autoscaler decides how many pods a version has")
    router: Literal["envoy", "httpRoute"] = Field("envoy", description="what splits the traffic")
    path: str = Field("/", pattern="^/", description="path of the HTTPRoute, and all below it")
    artifacts: str = Field("", description="folder or s3:// of published bundles, with the audit log; empty: no log")
    tracking: str = Field("", description="MLflow, whose champion is set; empty: it is not")
    predictions: str = Field("", description="folder or s3:// of the prediction log, where labels are; empty: none")
    host: str = Field("0.0.0.0", description="address that is listened on")
    port: int = Field(9110, ge=1, le=65535, description="port of requests and /metrics")
    xds_port: int = Field(9111, ge=1, le=65535, description="port that routers ask")
    grpc_port: int = Field(0, ge=0, le=65535, description="port where versions take gRPC; 0: they take none")
    look_seconds: float = Field(1, gt=0, description="time between looks during a rollout")
    idle_seconds: float = Field(5, gt=0, description="time between looks without one")

    @property
    def slots(self) -> tuple[str, str]:
        """Names of the two Deployments; of their ConfigMaps and headless Services too."""
        return f"{self.name}-a", f"{self.name}-b"

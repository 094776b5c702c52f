"""The section `cluster` of a profile: which cluster, and what its pods need to reach data and models."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import Field

from contracts.endpoints import Endpoints
from contracts.settings import Settings
from pipelines.cost import Prices


def _image(given: Mapping[str, Any]) -> str:
    """The image of this version, in the registry of one's own where there is one."""
    name = _usual()
    registry = given.get("image_registry", "")
    return f"{registry}/{name.partition('/')[2]}" if registry else name


def _usual() -> str:
    try:
        return f"ghcr.io/fairlead/pipelines:{version('fairlead')}"
    except PackageNotFoundError:  # a source tree on the path, not installed
        return "ghcr.io/fairlead/pipelines:0.0.0"


class SecretRef(Settings):
    """A Secret of the cluster's namespace; its content is never written into values."""

    name: str = Field("", description="name of the Secret; empty: none is used")
    user_key: str = Field("access-key", description="key of the access key's id")
    password_key: str = Field("secret-key", description="key of the secret or password")


class Storage(Settings):
    """S3 as pods see it."""

    endpoint: str = Field("http://fairlead-s3:9000", description="address of the server; empty: AWS")
    region: str = "us-east-1"
    secret: SecretRef = SecretRef(name="fairlead-s3")
    models: SecretRef = Field(
        SecretRef(),
        description="key of releases of models, which read bundles and write the prediction log; none: secret",
    )
    watchers: SecretRef = Field(
        SecretRef(), description="key of their keepers, which read the log and write the audit log too; none: secret"
    )


class Cluster(Settings):
    """One installation of the platform, seen from the machine that steers it."""

    context: str = Field("", description="kubectl context; empty: the current one")
    namespace: str = Field("fairlead", description="where the platform, its steps and its models run")
    kfp: str = Field("http://ml-pipeline:8888", description="Kubeflow Pipelines API")
    prometheus: str = Field("http://fairlead-prometheus:9090", description="for `fairlead status`; empty: none")
    image_registry: str = Field("", description="registry that has all images; as global.imageRegistry of the chart")
    image_pull_secrets: tuple[str, ...] = Field((), description="names of its pull secrets, for releases of models")
    image: str = Field(default_factory=_image, description="image of the steps, by tag or digest")
    service_account: str = Field("pipeline-runner", description="identity of the step pods")
    scratch: str = Field("/tmp/fairlead", description="folder of a pod for what need not outlive it")
    storage: Storage = Storage()
    redis: SecretRef = SecretRef(name="fairlead-redis", password_key="password")
    mongodb: SecretRef = Field(
        SecretRef(user_key="username", password_key="password"),
        description="credentials of sources and targets that are mongodb://; none: no user",
    )
    search: SecretRef = Field(
        SecretRef(password_key="search-password"),
        description="password of `studies`, the SQL server that keeps the trials of searches; none: no password",
    )
    pii: SecretRef = Field(
        SecretRef(password_key="key"),
        description="key of hashes, encryption and surrogates of personal data (FAIRLEAD_PII_KEY); none: no key",
    )
    salt: SecretRef = Field(
        SecretRef(name="fairlead-predictions", password_key="salt"),
        description="salt of the prediction log, which all models share",
    )
    needs: tuple[str, ...] = Field(
        ("s3", "redis", "mlflow"), description="parts that steps talk to; network policies admit their labels"
    )


class Profile(Endpoints):
    """A profile: addresses, the cluster that runs it if there is one, and what that costs if somebody says it."""

    cluster: Cluster | None = None
    prices: Prices | None = None

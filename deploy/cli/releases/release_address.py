"""The address of a model's release on a cluster, as this machine reaches it."""

from __future__ import annotations

import base64

from contracts.errors import PlatformError
from contracts.registry import parse_ref
from deploy.cli.cluster.kube import Kube
from deploy.cli.cluster.port_forward import reach
from deploy.cli.profiles.loading import load_cluster
from deploy.cli.releases.release_values import release_name


def reach_release(env: str, ref: str) -> tuple[str, str]:
    """Address of this machine for a model's release in an environment, and the release's own API key ("" without one).

    Raises:
        PlatformError: ``code="unknown_model"``: there is no such release.
    """
    cluster, name = load_cluster(env), parse_ref(ref)[0]
    kube = Kube(cluster.namespace, cluster.context)
    parts = f"app.kubernetes.io/instance={release_name(name)},app.kubernetes.io/component=server"
    services = kube.items("services", "-l", parts)
    if not services:
        raise PlatformError(
            f"no release of {name} in namespace {cluster.namespace}",
            fix=f"fairlead deploy {name} --env {env}; what there is: fairlead status --env {env}",
            code="unknown_model",
        )
    service = services[0]
    port = next(port["port"] for port in service["spec"]["ports"] if port["name"] == "http")
    secrets = [item["data"] for item in kube.items("secrets", "-l", parts) if "key" in item.get("data", {})]
    key = base64.b64decode(secrets[0]["key"]).decode() if secrets else ""
    return reach(f"http://{service['metadata']['name']}:{port}", cluster), key

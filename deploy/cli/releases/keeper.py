"""Who looks after the rollouts of a model's release on a cluster, asked over HTTP."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from contracts.errors import PlatformError
from contracts.registry import parse_ref
from deploy.cli.cluster.kube import Kube
from deploy.cli.cluster.port_forward import reach, resolves
from deploy.cli.releases.release_values import release_name

if TYPE_CHECKING:
    from deploy.cli.cluster.cluster_settings import Cluster
    from services.rollout.store import Request, Served

PORT = 9110
_PATIENCE = 45.0  # a keeper that is started anew is there again by then


class ReleaseKeeper:
    """The keeper of one release."""

    def __init__(self, url: str, model: str) -> None:
        self._url, self._model = f"{url}/rollouts", model

    def read(self, patience: float = _PATIENCE) -> Served:
        """The state now; a keeper that does not answer is waited for so many seconds."""
        return self._served(None, patience)

    def ask(self, request: Request) -> Served:
        """Ask for something; it is done when this returns, and once, however often it is asked with the same id.

        Raises:
            PlatformError: it was refused, or nobody answers.
        """
        return self._served(request.model_dump_json().encode(), _PATIENCE)

    def _served(self, body: bytes | None, patience: float) -> Served:
        from services.rollout.store import Served

        until = time.monotonic() + patience
        while True:
            try:
                request = urllib.request.Request(self._url, body, {"content-type": "application/json"})
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return Served.model_validate_json(answer.read())
            except urllib.error.HTTPError as err:
                if err.code != 503:
                    raise PlatformError.from_dict(json.loads(err.read())) from err
                said = "it is busy"
            except OSError as err:
                said = str(err)
            if time.monotonic() > until:
                raise PlatformError(
                    f"the keeper of {self._model} does not answer",
                    detail=said,
                    fix=f"see fairlead diagnose {self._model}; what it has begun goes on when it is there again",
                    code="not_answered",
                )
            time.sleep(0.5)


def find_keeper(cluster: Cluster, ref: str) -> ReleaseKeeper | None:
    """The keeper of a model's release; None where the release has none."""
    name = parse_ref(ref)[0]
    if "KUBERNETES_SERVICE_HOST" in os.environ:  # a pod has no kubectl; services have names there
        service = f"{release_name(name)}-rollouts"
        return ReleaseKeeper(f"http://{service}:{PORT}", name) if resolves(service) else None
    kube = Kube(cluster.namespace, cluster.context)
    parts = f"app.kubernetes.io/instance={release_name(name)},app.kubernetes.io/component=rollout"
    found = kube.items("services", "-l", parts)
    return ReleaseKeeper(reach(f"http://{found[0]['metadata']['name']}:{PORT}", cluster), name) if found else None


def need_keeper(env: str, cluster: Cluster, ref: str) -> ReleaseKeeper:
    """The keeper of a model's release.

    Raises:
        PlatformError: ``code="not_served"``: the release has none, or is not there.
    """
    keeper, name = find_keeper(cluster, ref), parse_ref(ref)[0]
    if keeper is None:
        raise PlatformError(
            f"{name} has no rollouts in namespace {cluster.namespace}",
            detail="a release has them once a version was deployed by one",
            fix=f"fairlead deploy {name}:VERSION --env {env} --strategy canary",
            code="not_served",
        )
    return keeper


def kept_models(cluster: Cluster) -> list[str]:
    """Models whose releases have a keeper, by what their states say, sorted."""
    from services.rollout.config_map_store import KEY
    from services.rollout.store import Served

    kube = Kube(cluster.namespace, cluster.context)
    maps = kube.items("configmaps", "-l", "app.kubernetes.io/component=rollout")
    texts = [(one.get("data") or {}).get(KEY) for one in maps]
    return sorted(Served.model_validate_json(text).model for text in texts if text)

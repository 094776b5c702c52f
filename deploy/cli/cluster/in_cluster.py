"""The Kubernetes API as a pod reads it: by the token of its ServiceAccount, without kubectl."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contracts.errors import PlatformError
from contracts.pod_api import ACCOUNT, PodApi, reason_of
from deploy.cli.cluster.kube import Kube

_SERVED = {
    "workflows.argoproj.io": "/apis/argoproj.io/v1alpha1/namespaces/{}/workflows",
    "deployments.apps": "/apis/apps/v1/namespaces/{}/deployments",
    "services": "/api/v1/namespaces/{}/services",
    "pods": "/api/v1/namespaces/{}/pods",
    "nodes": "/api/v1/nodes",
}
_PATIENCE, _PAGE = 30.0, 200


class InCluster(Kube):
    """What the command line reads of runs and releases; it changes nothing."""

    def __init__(self, namespace: str, account: Path = ACCOUNT, environ: Mapping[str, str] = os.environ) -> None:
        super().__init__(namespace)
        self._api = PodApi(account, environ)

    def items(self, *arguments: str) -> list[dict[str, Any]]:
        """The objects of kinds that are separated by commas, after ``-l`` those with these labels."""
        kinds, *options = arguments
        selector = options[options.index("-l") + 1] if "-l" in options else ""
        return [item for kind in kinds.split(",") for item in self._listed(kind, selector)]

    def log(self, pod: str, container: str) -> str:
        path = f"/api/v1/namespaces/{self.namespace}/pods/{urllib.parse.quote(pod)}/log"
        return self._get(path, container=container).decode(errors="replace")

    def _listed(self, kind: str, selector: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        more = ""
        while True:
            asked = {"labelSelector": selector, "limit": str(_PAGE), "continue": more}
            page = json.loads(self._get(_SERVED[kind].format(self.namespace), **asked))
            one = {"apiVersion": page["apiVersion"], "kind": page["kind"].removesuffix("List")}
            found += [{**one, **item} for item in page["items"] or []]
            more = page["metadata"].get("continue") or ""
            if not more:
                return found

    def _get(self, path: str, **asked: str) -> bytes:
        """What is served at a path.

        Raises:
            PlatformError: ``code="kubernetes"``.
        """
        query = urllib.parse.urlencode({key: value for key, value in asked.items() if value})
        try:
            return self._api.ask(f"{path}?{query}", _PATIENCE)
        except urllib.error.HTTPError as err:
            why, known = reason_of(err)
            fix = "give the pod's ServiceAccount the right that it names" if known else "see what it says above"
            raise PlatformError(f"Kubernetes refused {path}", detail=why[:500], fix=fix, code="kubernetes") from err
        except OSError as err:
            fix = "does a network policy let this pod through?"
            raise PlatformError("Kubernetes does not answer", detail=str(err), fix=fix, code="kubernetes") from err


def open_kube(namespace: str, context: str = "") -> Kube:
    """kubectl; in a pod the API itself."""
    in_pod = "KUBERNETES_SERVICE_HOST" in os.environ and (ACCOUNT / "token").is_file()
    return InCluster(namespace) if in_pod and not context else Kube(namespace, context)

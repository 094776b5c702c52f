"""The Kubernetes API as the keeper's pod uses it: reads and merge patches of single objects, by its token."""

from __future__ import annotations

import json
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contracts.errors import PlatformError

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_GROUPS = {
    "configmaps": "/api/v1",
    "services": "/api/v1",
    "deployments": "/apis/apps/v1",
    "httproutes": "/apis/gateway.networking.k8s.io/v1",
}
_PATIENCE = 10.0


class Kubernetes:
    """Objects of one namespace."""

    def __init__(self, namespace: str, account: Path = ACCOUNT, environ: Mapping[str, str] = os.environ) -> None:
        host, port = environ["KUBERNETES_SERVICE_HOST"], environ["KUBERNETES_SERVICE_PORT"]
        self._address = f"https://{f'[{host}]' if ':' in host else host}:{port}"
        self._namespace, self._account = namespace, account
        self._context = ssl.create_default_context(cafile=str(account / "ca.crt"))

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """An object.

        Raises:
            PlatformError: ``code="not_found"``, ``"kubernetes"``.
        """
        return self._call("GET", kind, name, None)

    def patch(self, kind: str, name: str, change: Mapping[str, Any]) -> dict[str, Any]:
        """Merge `change` into an object; one with ``metadata.resourceVersion`` is refused where that is another.

        Raises:
            PlatformError: ``code="conflict"``, ``"not_found"``, ``"kubernetes"``.
        """
        return self._call("PATCH", kind, name, change)

    def _call(self, method: str, kind: str, name: str, change: Mapping[str, Any] | None) -> dict[str, Any]:
        kind, _, part = kind.partition("/")
        path = f"{_GROUPS[kind]}/namespaces/{self._namespace}/{kind}/{name}{f'/{part}' if part else ''}"
        token = (self._account / "token").read_text().strip()  # the kubelet renews it
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/merge-patch+json"}
        body = None if change is None else json.dumps(change).encode()
        request = urllib.request.Request(f"{self._address}{path}", body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=_PATIENCE, context=self._context) as answer:
                found: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as err:
            code = {404: "not_found", 409: "conflict"}.get(err.code, "kubernetes")
            raise PlatformError(
                f"Kubernetes refused to {'read' if change is None else 'change'} {kind}/{name}",
                detail=_said(err),
                fix="the chart of the release gives the keeper what it needs: helm upgrade it",
                code=code,
            ) from err
        except (OSError, ValueError) as err:
            raise PlatformError(
                "the Kubernetes API does not answer", detail=str(err), fix="it is asked again", code="kubernetes"
            ) from err
        return found


def _said(err: urllib.error.HTTPError) -> str:
    text = err.read().decode(errors="replace")
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text[:300]

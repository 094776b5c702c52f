"""The Kubernetes API as the keeper's pod uses it: reads and merge patches of single objects, by its token."""

from __future__ import annotations

import json
import os
import urllib.error
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contracts.errors import PlatformError
from contracts.pod_api import ACCOUNT, PodApi, reason_of

_GROUPS = {
    "configmaps": "/api/v1",
    "services": "/api/v1",
    "deployments": "/apis/apps/v1",
    "httproutes": "/apis/gateway.networking.k8s.io/v1",
}
_PATIENCE, _LONGEST = 10.0, 500


class Kubernetes:
    """Objects of one namespace."""

    def __init__(self, namespace: str, account: Path = ACCOUNT, environ: Mapping[str, str] = os.environ) -> None:
        self._namespace, self._api = namespace, PodApi(account, environ)

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
        try:
            found: dict[str, Any] = json.loads(self._api.ask(path, _PATIENCE, method=method, change=change))
        except urllib.error.HTTPError as err:
            code = {404: "not_found", 409: "conflict"}.get(err.code, "kubernetes")
            raise PlatformError(
                f"Kubernetes refused to {'read' if change is None else 'change'} {kind}/{name}",
                detail=reason_of(err)[0][:_LONGEST],
                fix="the chart of the release gives the keeper what it needs: helm upgrade it",
                code=code,
            ) from err
        except (OSError, ValueError) as err:
            raise PlatformError(
                "the Kubernetes API does not answer", detail=str(err), fix="it is asked again", code="kubernetes"
            ) from err
        return found

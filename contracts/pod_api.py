"""The Kubernetes API as a pod reaches it: by the token of its ServiceAccount, without kubectl."""

from __future__ import annotations

import json
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class PodApi:
    """Requests in the name of a pod's account."""

    def __init__(self, account: Path = ACCOUNT, environ: Mapping[str, str] = os.environ) -> None:
        host, port = environ["KUBERNETES_SERVICE_HOST"], environ["KUBERNETES_SERVICE_PORT"]
        self._address = f"https://{f'[{host}]' if ':' in host else host}:{port}"
        self._account = account
        self._context = ssl.create_default_context(cafile=str(account / "ca.crt"))

    def ask(self, path: str, patience: float, *, method: str = "GET", change: Mapping[str, Any] | None = None) -> bytes:
        """The answer to one request within `patience` seconds; `change` is sent as a merge patch.

        Raises:
            urllib.error.HTTPError: it was refused.  OSError: nobody answers.
        """
        token = (self._account / "token").read_text().strip()  # the kubelet renews it
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/merge-patch+json"}
        body = None if change is None else json.dumps(change).encode()
        request = urllib.request.Request(f"{self._address}{path}", body, headers, method=method)
        with urllib.request.urlopen(request, timeout=patience, context=self._context) as answer:
            return bytes(answer.read())


def reason_of(refusal: urllib.error.HTTPError) -> tuple[str, bool]:
    """What the API says of a refusal, and whether it is its sentence or the text of something in between."""
    text = refusal.read().decode(errors="replace")
    try:
        return str(json.loads(text)["message"]), True
    except (ValueError, KeyError, TypeError):
        return text, False

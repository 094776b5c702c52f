"""The workbench of one person in the platform's release: its token, the command line in it, and its sleep."""

from __future__ import annotations

import json
from typing import Any

from tests.e2e.cluster import PIPELINES, Platform
from tests.e2e.kubeflow_pod import kubeflow, runs
from tests.e2e.spaces import kubectl, need_image

NAME, POD, SECRET = "fairlead-workbench-ada", "fairlead-workbench-ada-0", "tokens-of-people"
TOKEN = "a-token-of-tests-that-is-long-enough"
VALUES: dict[str, Any] = {
    "users": ["ada"],
    "existingSecret": SECRET,
    "idleSeconds": 45,
    "persistence": {"enabled": False},
    "resources": {"requests": {"cpu": "50m", "memory": "1Gi"}, "limits": {"memory": "1Gi"}},
}


def use_a_workbench(platform: Platform) -> None:
    """JupyterLab answers who has the token; models and runs are the platform's; nobody uses it, and its pod is gone."""
    need_image(f"{PIPELINES}-workbench")
    platform.kubectl("create", "secret", "generic", SECRET, f"--from-literal=ada={TOKEN}")
    platform.install({"workbench": VALUES})  # which waits until it is ready, in a namespace that is restricted
    assert "Forbidden" in _status(platform, "")
    assert "Forbidden" in _status(platform, "?token=of-somebody-else")
    assert json.loads(_status(platform, f"?token={TOKEN}"))["kernels"] == 0
    told = _fairlead(platform, "models", "--json")
    assert "fraud" in {model["name"] for model in json.loads(told)}, told
    with kubeflow(platform):
        # It would follow its run to the end, which nobody executes here.
        platform.kubectl("exec", POD, "--", "timeout", "25", "fairlead", "run", "news", check=False)
        (asked,) = runs(platform)
        assert asked["run"] in _fairlead(platform, "runs", "--json")
    sleeping = ("get", "statefulset", NAME, "-o", "jsonpath={.spec.replicas}{.status.replicas}")
    platform.until(lambda: platform.kubectl(*sleeping) == "00", "it does not go to sleep")


def _status(platform: Platform, query: str) -> str:
    """What JupyterLab says of itself, asked through the Kubernetes API."""
    place = f"/api/v1/namespaces/{platform.namespace}/services/{NAME}:8888/proxy/api/status"
    return kubectl("get", "--raw", place + query, check=False) or "Forbidden"


def _fairlead(platform: Platform, *arguments: str) -> str:
    """What the command prints in the workbench."""
    return platform.kubectl("exec", POD, "--", "fairlead", *arguments)

"""The stand-in of Kubeflow's API as a pod behind the Service that clients know, where the real images are not."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.cluster import SERVICE, Platform
from tests.e2e.spaces import apply

NAME = "kubeflow-stand-in"
_FILES = ("argo", "argo_documents", "kfp_api", "kfp_run", "kfp_stand_in", "kubectl_stand_in")
_SCRIPT = """
import json, time
from tests.kfp_stand_in import StandIn
made = StandIn(host="0.0.0.0")
made.listen(8888)
told = set()
while True:
    for run in [run for key, run in made.api.runs.items() if key not in told]:
        told.add(run.document["run_id"])
        config = run.document["runtime_config"]["parameters"]
        print(json.dumps({"run": run.document["display_name"], "task": config["task"], "promote": config["promote"]}), flush=True)
    time.sleep(0.2)
"""  # noqa: E501 - one statement


@contextmanager
def kubeflow(platform: Platform) -> Iterator[None]:
    """Kubeflow's API in the platform's namespace, which only those reach whom the policies let through."""
    service = json.loads(platform.kubectl("get", "service", "ml-pipeline", "-o", "json"))["spec"]
    labels = {**service["selector"], "app.kubernetes.io/part-of": "fairlead"}
    folder = Path(__file__).parents[1]
    files = {f"{name}.py": (folder / f"{name}.py").read_text(encoding="utf-8") for name in _FILES}
    apply(platform.namespace, _object("v1", "ConfigMap", {"name": NAME}, data=files))
    apply(platform.namespace, _object("v1", "Pod", {"name": NAME, "labels": labels}, spec=_SPEC))
    try:
        platform.kubectl("wait", "--for=condition=Ready", f"pod/{NAME}", "--timeout=120s")
        yield
    finally:
        platform.kubectl("delete", f"pod/{NAME}", f"configmap/{NAME}", "--now")


def runs(platform: Platform, most: float = 120.0) -> list[dict[str, Any]]:
    """The runs that were asked for, as soon as there is one."""
    until = time.monotonic() + most
    while not (said := platform.kubectl("logs", NAME).splitlines()):
        assert time.monotonic() < until, "nobody asked for a run"
        time.sleep(1)
    return [json.loads(line) for line in said]


def _object(version: str, kind: str, metadata: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **rest}


_CLOSED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
_SPEC = {
    "containers": [
        {
            "name": "main",
            "image": SERVICE,
            "command": ["python", "-c", _SCRIPT],
            "env": [{"name": "PYTHONPATH", "value": "/stand-in"}],
            "ports": [{"name": "metrics", "containerPort": 8888}],  # as the Service names it
            "readinessProbe": {"tcpSocket": {"port": 8888}, "periodSeconds": 1},
            "securityContext": _CLOSED,
            "volumeMounts": [{"name": "files", "mountPath": "/stand-in/tests"}],
        }
    ],
    "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
    "terminationGracePeriodSeconds": 0,
    "volumes": [{"name": "files", "configMap": {"name": NAME}}],
}

"""The platform's release in a namespace of a test: Helm, pods that try, and questions to its servers."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.spaces import apply, kubectl

CHART = Path(__file__).parents[2] / "helm" / "platform"
SERVICE = "ghcr.io/fairlead/service:0.1.0"
PIPELINES = "ghcr.io/fairlead/pipelines:0.1.0"
# Objects and Pods of Kubeflow Pipelines without its pods: their images are not everywhere.
VALUES: dict[str, Any] = {"pipelines": {"replicas": 0, "crds": {"keep": False}}}

_REACH = """
import json, socket, sys, time
from concurrent.futures import ThreadPoolExecutor
def reach(address):
    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=4).close()
        return True
    except OSError:
        return False
expected = json.loads(sys.argv[1])
until = time.monotonic() + 60
while True:
    with ThreadPoolExecutor(16) as pool:
        found = dict(zip(expected, pool.map(reach, expected)))
    if found == expected or time.monotonic() > until:
        break
    time.sleep(1)  # a policy takes a moment to know a new pod
print(json.dumps(found))
"""
_ASK = """
import sys, time, urllib.request
headers = {"content-type": "application/json", "authorization": "Bearer " + sys.argv[3]}
request = urllib.request.Request(sys.argv[1], sys.argv[2].encode(), headers)
until = time.monotonic() + 120
while True:
    try:
        print(urllib.request.urlopen(request, timeout=10).read().decode())
        break
    except OSError:  # its address is not known to the policies yet
        if time.monotonic() > until:
            raise
        time.sleep(1)
"""
# Writes or reads one thing in S3 and in MLflow, whose pod may talk to both.
KEEP = """
import json, os, sys, urllib.request, boto3
from botocore.config import Config
client = boto3.client("s3", config=Config(s3={"addressing_style": "path"}))
def call(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request("http://127.0.0.1:5000/api/2.0/mlflow/" + path, data)
    request.add_header("content-type", "application/json")
    return json.load(urllib.request.urlopen(request, timeout=20))
if sys.argv[1] == "write":
    client.put_object(Bucket="fairlead", Key="kept/one", Body=b"kept")
    call("experiments/create", {"name": "kept"})
else:
    assert client.get_object(Bucket="fairlead", Key="kept/one")["Body"].read() == b"kept"
    print(call("experiments/get-by-name?experiment_name=kept")["experiment"]["name"])
"""


@dataclass(frozen=True)
class Platform:
    """Release `fairlead` in a namespace."""

    namespace: str

    def helm(self, *arguments: str, values: Mapping[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        """Run Helm in the namespace, with VALUES and `values` over them."""
        given = merged(VALUES, values).items() if values is not None else ()
        options = [part for key, value in given for part in ("--set-json", f"{key}={json.dumps(value)}")]
        command = ["helm", "-n", self.namespace, *arguments, *options]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def install(self, values: Mapping[str, Any] | None = None) -> float:
        """Install or upgrade and wait; returns seconds."""
        began = time.monotonic()
        done = self.helm(
            "upgrade", "--install", "fairlead", str(CHART), "--wait", "--timeout", "600s", values=values or {}
        )
        assert done.returncode == 0, done.stderr + self.kubectl("get", "pods,events")
        return time.monotonic() - began

    def kubectl(self, *arguments: str, check: bool = True) -> str:
        """Output of kubectl in the namespace."""
        return kubectl("-n", self.namespace, *arguments, check=check)

    def get(self, kind: str, *options: str) -> list[Any]:
        """Objects of a kind."""
        found: list[Any] = json.loads(self.kubectl("get", kind, *options, "-o", "json"))["items"]
        return found

    def pod(self, component: str) -> Any:
        """The one running pod of a component of the release."""
        selector = f"app.kubernetes.io/instance=fairlead,app.kubernetes.io/component={component}"
        (found,) = [p for p in self.get("pods", "-l", selector) if "deletionTimestamp" not in p["metadata"]]
        return found

    def run_in(self, component: str, *command: str) -> str:
        """Output of a command in a component's pod."""
        return self.kubectl("exec", self.pod(component)["metadata"]["name"], "-c", component, "--", *command)

    def query(self, expression: str) -> list[Any]:
        """What Prometheus answers, asked through the Kubernetes API."""
        place = f"/api/v1/namespaces/{self.namespace}/services/fairlead-prometheus:9090/proxy/api/v1/query"
        answer = kubectl("get", "--raw", f"{place}?query={urllib.parse.quote(expression)}")
        found: list[Any] = json.loads(answer)["data"]["result"]
        return found

    def until(self, found: Callable[[], Any], what: str, seconds: float = 180) -> Any:
        """What `found` gives, as soon as it is something."""
        end = time.monotonic() + seconds
        while not (seen := found()):
            assert time.monotonic() < end, what
            time.sleep(2)
        return seen

    def kill(self, component: str, patience: float = 240) -> None:
        """Kill the pod of a component without a word, and wait until another one is ready."""
        old = self.pod(component)["metadata"]
        self.kubectl("delete", "pod", old["name"], "--grace-period=0", "--force")
        selector = f"app.kubernetes.io/instance=fairlead,app.kubernetes.io/component={component}"

        def ready() -> bool:
            new = [pod for pod in self.get("pods", "-l", selector) if pod["metadata"]["uid"] != old["uid"]]
            states = [
                state["ready"] for pod in new for state in pod["status"].get("containerStatuses") or [{"ready": 0}]
            ]
            return bool(states) and all(states)

        self.until(ready, f"{component} did not come back", patience)

    def kept(self) -> str:
        """What KEEP reads again, or what went wrong."""
        pod = self.pod("mlflow")["metadata"]["name"]
        return self.kubectl("exec", pod, "--", "python", "-c", KEEP, "read", check=False).strip()

    def reach(self, labels: dict[str, str], expected: Mapping[str, bool], image: str = SERVICE) -> dict[str, bool]:
        """Which addresses a pod with `labels` can open a connection to, once it is as expected or after a minute."""
        found: dict[str, bool] = json.loads(self._try(labels, _REACH, json.dumps(expected), image=image))
        return found

    def ask(self, labels: dict[str, str], url: str, body: str, key: str) -> Any:
        """What a pod with `labels` gets when it posts a body with an API key."""
        return json.loads(self._try(labels, _ASK, url, body, key))

    def _try(self, labels: dict[str, str], script: str, *arguments: str, image: str = SERVICE) -> str:
        with self.client(labels, script, arguments, image) as name:
            self.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", f"pod/{name}", "--timeout=240s")
            return self.kubectl("logs", name)

    @contextmanager
    def client(
        self, labels: dict[str, str], script: str, arguments: tuple[str, ...], image: str = SERVICE
    ) -> Iterator[str]:
        """A pod with `labels` that runs a script; its name."""
        name = f"client-{time.monotonic_ns() % 10**9}"
        closed = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
        command = ["python", "-c", script, *arguments]
        main = {"name": "main", "image": image, "command": command, "securityContext": closed}
        secure = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
        spec = {"containers": [main], "restartPolicy": "Never", "securityContext": secure}
        metadata = {"name": name, "labels": labels}
        apply(self.namespace, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        try:
            yield name
        finally:
            self.kubectl("delete", "pod", name, "--now", "--wait=false")


def merged(base: Mapping[str, Any], over: Mapping[str, Any] | None) -> dict[str, Any]:
    """`base` with the values of `over` in their places."""
    out = dict(base)
    for key, value in (over or {}).items():
        out[key] = merged(out.get(key) or {}, value) if isinstance(value, Mapping) else value
    return out

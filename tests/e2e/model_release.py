"""A release of the model's chart in a namespace of a test: bundles in its S3, Helm, and pods that ask."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts import storage
from contracts.bundle import DOCUMENT, Bundle, read_bundle, write_bundle
from contracts.ports import free_port
from tests.e2e.spaces import KEY, SECRET, apply, kubectl
from tests.problem_bundles import lists

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "model-service"
IMAGE = "ghcr.io/fairlead/service:0.1.0"
STORE = "s3://fairlead/bundles"
LOGS = "s3://fairlead/predictions"
MAY_CALL = {"fairlead.io/access-model": "true"}

_TRAIN = """
import sys
from pathlib import Path
from tests.chain import Chain
for rounds in (15, 40, 1):
    chain = Chain(task="toy", home=Path(sys.argv[1]) / str(rounds), overrides={"model.rounds": rounds})
    chain.dataset()
    chain.candidate()
    chain.bundle()
"""

# Asks until it is told to stop, a new connection each time as a load balancer's clients would, and counts.
LOAD = """
import collections, json, os, signal, socket, threading, time, urllib.request
url, body = os.environ["URL"], os.environ["BODY"].encode()
headers = {"content-type": "application/json", "authorization": "Bearer " + os.environ["KEY"]}
stop, lock = threading.Event(), threading.Lock()
versions, codes, failures = collections.Counter(), collections.Counter(), []
signal.signal(signal.SIGTERM, lambda *_: stop.set())
def ask():
    while not stop.is_set():
        try:
            request = urllib.request.Request(url + "/predict", body, headers)
            with urllib.request.urlopen(request, timeout=10) as answer:
                version = json.load(answer)["version"]
            with lock:
                versions[version] += 1
        except (OSError, ValueError) as err:
            if isinstance(getattr(err, "reason", None), socket.gaierror):
                continue  # the cluster's DNS is overloaded: nobody was asked
            with lock:
                codes[str(getattr(err, "code", type(err).__name__))] += 1
                failures.append(f"{time.time():.1f} {type(err).__name__}: {err}")
        time.sleep(0.02)
def first():  # until then the policies do not know this pod's address
    until = time.monotonic() + 120
    while time.monotonic() < until:
        try:
            return urllib.request.urlopen(urllib.request.Request(url + "/predict", body, headers), timeout=5).close()
        except OSError:
            time.sleep(0.5)
first()
threads = [threading.Thread(target=ask) for _ in range(3)]
[t.start() for t in threads]
print("started", flush=True)
stop.wait(float(os.environ["SECONDS_AT_MOST"]))
stop.set()
[t.join() for t in threads]
told = {"versions": versions, "failed": len(failures), "codes": codes, "failures": failures[:5]}
print(json.dumps(told), flush=True)
"""
ASK = """
import json, os, time, urllib.error, urllib.request
url, body = os.environ["URL"] + "/predict", os.environ["BODY"].encode()
headers = {"content-type": "application/json", "authorization": "Bearer " + os.environ["KEY"]}
request = urllib.request.Request(url, body, headers)
until = time.monotonic() + float(os.environ["PATIENCE"])
while True:
    try:
        said = urllib.request.urlopen(request, timeout=5).read().decode()
    except OSError as err:
        said = json.dumps({"error": str(err)})
        if not isinstance(err, urllib.error.HTTPError) and time.monotonic() < until:
            time.sleep(0.5)
            continue
    print(said)
    break
"""


# In the server, which has S3's credentials when it logs there.
_READ = """
import sys
from contracts import storage
root = sys.argv[1]
for day in storage.list_names(root):
    for name in storage.list_names(f"{root}/{day}"):
        print(storage.read_bytes(f"{root}/{day}/{name}").decode(), end="")
"""


# The same question over gRPC.
ASK_GRPC = """
import json, os, time, grpc
from services.oip import oip_pb2 as pb
channel, given = grpc.insecure_channel(os.environ["URL"]), [("authorization", "Bearer " + os.environ["KEY"])]
def ask(name, message, answer):
    serialise = lambda one: one.SerializeToString()
    call = channel.unary_unary("/inference.GRPCInferenceService/" + name, serialise, answer.FromString)
    return call(message, metadata=given, timeout=5)
until = time.monotonic() + float(os.environ["PATIENCE"])
while True:
    try:
        about = ask("ModelMetadata", pb.ModelMetadataRequest(name="toy"), pb.ModelMetadataResponse)
        break
    except grpc.RpcError as err:
        if time.monotonic() > until:
            raise
        time.sleep(0.5)
(values,) = json.loads(os.environ["BODY"])["instances"]
question = pb.ModelInferRequest(model_name="toy")
for one in about.inputs:
    tensor = question.inputs.add(name=one.name, datatype=one.datatype, shape=[1])
    contents = getattr(tensor.contents, one.datatype.lower() + "_contents")
    contents.append(values[one.name].encode() if one.datatype == "BYTES" else values[one.name])
answer = ask("ModelInfer", question, pb.ModelInferResponse)
print(json.dumps({"version": answer.model_version}))
"""


@dataclass(frozen=True)
class Release:
    """What a test needs to know of the namespace and the bundles in its S3."""

    namespace: str
    bundles: dict[str, Bundle]

    def values(self, bundle: str, **model: Any) -> dict[str, Any]:
        """Values that serve one of the bundles, with few requests so that two cores carry it."""
        served = self.bundles[bundle]
        return {
            "model": {
                "source": f"{STORE}/{bundle}",
                "digest": served.digest,
                "name": "toy",
                "version": bundle,
                **model,
            },
            "storage": {"endpoint": "http://fairlead-s3:9000", "existingSecret": "fairlead-s3"},
            "resources": {"requests": {"cpu": "50m", "memory": "384Mi"}, "limits": {"memory": "384Mi"}},
            "monitoring": {"scrape": "annotations"},
        }

    def helm(self, *arguments: str, values: Any = None) -> subprocess.CompletedProcess[str]:
        """Run Helm in the namespace."""
        given = None if values is None else json.dumps(values)
        options = () if values is None else ("-f", "-")
        command = ["helm", "-n", self.namespace, *arguments, *options]
        return subprocess.run(command, input=given, capture_output=True, text=True, check=False)

    def upgrade(self, bundle: str, *options: str, **model: Any) -> subprocess.CompletedProcess[str]:
        """Install or upgrade the release `toy` and wait."""
        return self.upgrade_with(self.values(bundle, **model), *options)

    def upgrade_with(self, values: Any, *options: str) -> subprocess.CompletedProcess[str]:
        """Install or upgrade the release `toy` with these values, and wait."""
        return self.helm("upgrade", "--install", "toy", str(CHART), "--wait", *options, values=values)

    def body(self) -> str:
        """A request with the first golden example."""
        return json.dumps({"instances": [next(self.bundles["one"].golden()).inputs]})

    def key(self, release: str = "toy") -> str:
        """The API key that a release made for itself."""
        chosen = f"app.kubernetes.io/instance={release},app.kubernetes.io/component=server"
        found = kubectl("-n", self.namespace, "get", "secrets", "-l", chosen, "-o", "jsonpath={.items[0].data.key}")
        return base64.b64decode(found).decode()

    def ask(
        self,
        name: str,
        labels: dict[str, str],
        url: str = "http://toy",
        key: str | None = None,
        script: str = ASK,
        body: str | None = None,
    ) -> Any:
        """What a pod with `labels` gets from the service, with the key and a row of release `toy` unless given."""
        given = {"URL": url, "BODY": body or self.body(), "KEY": self.key() if key is None else key}
        # Who may call is let in once the policies know the new pod; who may not has waited enough after one time-out.
        self._pod(name, labels, script, {**given, "PATIENCE": "90" if labels == MAY_CALL else "0"})
        kubectl(
            "-n", self.namespace, "wait", "--for=jsonpath={.status.phase}=Succeeded", f"pod/{name}", "--timeout=180s"
        )
        answer = kubectl("-n", self.namespace, "logs", name)
        kubectl("-n", self.namespace, "delete", "pod", name, "--now")
        return json.loads(answer)

    @contextlib.contextmanager
    def load(self, name: str, release: str = "toy", script: str = LOAD) -> Iterator[dict[str, Any]]:
        """Requests from inside the cluster while the block runs; what they got is in the mapping afterwards."""
        result: dict[str, Any] = {}
        given = {"URL": f"http://{release}", "BODY": self.body(), "KEY": self.key(release), "SECONDS_AT_MOST": "400"}
        self._pod(name, MAY_CALL, script, given)
        kubectl("-n", self.namespace, "wait", "--for=condition=Ready", f"pod/{name}", "--timeout=120s")
        deadline = time.monotonic() + 150
        while "started" not in kubectl("-n", self.namespace, "logs", name, check=False):
            assert time.monotonic() < deadline, "no request of the load was answered"
            time.sleep(0.5)
        time.sleep(2)
        yield result
        time.sleep(2)
        # A signal from within: deleting the pod would take its log away. The pod may end before kubectl hears of it.
        stop = ("python", "-c", "import os; os.kill(1, 15)")
        kubectl("-n", self.namespace, "exec", name, "--", *stop, check=False)
        kubectl(
            "-n", self.namespace, "wait", "--for=jsonpath={.status.phase}=Succeeded", f"pod/{name}", "--timeout=120s"
        )
        result.update(json.loads(kubectl("-n", self.namespace, "logs", name).splitlines()[-1]))
        kubectl("-n", self.namespace, "delete", "pod", name, "--now")

    def records(self, deployment: str, model: str) -> list[dict[str, Any]]:
        """The predictions of a model that are logged in S3, as soon as there are any."""
        read = ("exec", f"deploy/{deployment}", "-c", "server", "--", "python", "-c", _READ, f"{LOGS}/{model}")
        deadline = time.monotonic() + 60
        while not (found := kubectl("-n", self.namespace, *read)) and time.monotonic() < deadline:
            time.sleep(1)
        return [json.loads(line) for line in found.splitlines()]

    def pods(self, release: str = "toy") -> list[Any]:
        """The servers' pods."""
        selector = f"app.kubernetes.io/instance={release},app.kubernetes.io/component=server"
        found: list[Any] = json.loads(kubectl("-n", self.namespace, "get", "pods", "-l", selector, "-o", "json"))[
            "items"
        ]
        return found

    def _pod(self, name: str, labels: dict[str, str], script: str, env: dict[str, str]) -> None:
        closed = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
        container = {
            "name": "main",
            "image": IMAGE,
            "command": ["python", "-c", script],
            "env": [{"name": key, "value": value} for key, value in env.items()],
            "securityContext": closed,
        }
        spec = {
            "containers": [container],
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        }
        apply(
            self.namespace,
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec},
        )


def make_bundles(home: Path) -> dict[str, Bundle]:
    """Two versions of the toy model, a third that has learned little, and one that its golden examples refute.

    The second one is also served by engines that fail and that are slow (`faulty_engines`). Two recommenders list other
    items than each other.
    """
    path = os.pathsep.join([str(ROOT / "tests" / "toy"), str(ROOT)])
    command = [sys.executable, "-c", _TRAIN, str(home / "trained")]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    published = [home / "trained" / rounds / "published" for rounds in ("15", "40", "1")]
    first, second, weak = (read_bundle(next(folder.rglob(DOCUMENT)).parent) for folder in published)
    wrong = shutil.copytree(first.path, home / "wrong")
    (wrong / DOCUMENT).unlink()
    lines = [json.loads(line) for line in (wrong / "golden.jsonl").read_text().splitlines()]
    for line in lines:
        line["expected"] = line["expected"][::-1]
    (wrong / "golden.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    third = write_bundle(wrong, home / "made", first.document.model_dump(exclude={"files"}))
    fields = second.document.model_dump(exclude={"files"})
    faulty = {
        name: write_bundle(second.path, home / name, {**fields, "engine": f"e2e_{name}"})
        for name in ("failing", "slow")
    }
    listing = {
        name: lists(home / name, allow=list(items), k=2) for name, items in {"loud": "abc", "quiet": "def"}.items()
    }
    return {"one": first, "two": second, "weak": weak, "wrong": third, "changed": second, **faulty, **listing}


def publish(namespace: str, bundles: dict[str, Bundle]) -> None:
    """Put the bundles into the namespace's S3; a byte of `changed` is another one than its bundle.json says."""
    with _forwarded(namespace, "pod/s3", 9000) as endpoint:
        keys = {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        before = {key: os.environ.get(key) for key in keys}
        os.environ.update(keys)
        try:
            for name, bundle in bundles.items():
                storage.upload(bundle.path, f"{STORE}/{name}", last=DOCUMENT)
            storage.write_bytes(f"{STORE}/changed/golden.jsonl", b"{}\n")
        finally:
            for key, value in before.items():
                os.environ.pop(key) if value is None else os.environ.update({key: value})


@contextlib.contextmanager
def _forwarded(namespace: str, target: str, port: int) -> Iterator[str]:
    local = free_port()
    command = ["kubectl", "-n", namespace, "port-forward", target, f"{local}:{port}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 20
            while socket.socket().connect_ex(("127.0.0.1", local)) and time.monotonic() < deadline:
                time.sleep(0.1)
            yield f"http://127.0.0.1:{local}"
        finally:
            process.terminate()

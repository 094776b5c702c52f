"""A namespace of a real cluster for one test module, under Pod Security `restricted`, with an S3 server in it."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

_PLATFORM = Path(__file__).parents[2] / "helm" / "platform"
KEY, SECRET = "access-key-of-tests", "secret-key-of-tests"
_S3 = """
apiVersion: v1
kind: Secret
metadata: {name: fairlead-s3}
stringData: {access-key: %(key)s, secret-key: %(secret)s}
---
apiVersion: v1
kind: Service
metadata: {name: fairlead-s3}
spec: {selector: {app: s3}, ports: [{port: 9000}]}
---
apiVersion: v1
kind: Pod
metadata: {name: s3, labels: {app: s3}}
spec:
  automountServiceAccountToken: false
  securityContext: {runAsNonRoot: true, runAsUser: 10001, fsGroup: 10001, seccompProfile: {type: RuntimeDefault}}
  initContainers:
    - name: bucket
      image: %(image)s
      args: [--version]
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
      volumeMounts: [{name: data, mountPath: /bucket, subPath: s3/fairlead}]
  containers:
    - name: s3
      image: %(image)s
      args: [posix, /data]
      env:
        - {name: ROOT_ACCESS_KEY, value: %(key)s}
        - {name: ROOT_SECRET_KEY, value: %(secret)s}
        - {name: VGW_PORT, value: ":9000"}
        - {name: VGW_HEALTH, value: /health}
      ports: [{containerPort: 9000}]
      readinessProbe: {httpGet: {path: /health, port: 9000}, periodSeconds: 1}
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, readOnlyRootFilesystem: true}
      volumeMounts: [{name: data, mountPath: /data, subPath: s3}, {name: tmp, mountPath: /tmp}]
  volumes: [{name: data, emptyDir: {}}, {name: tmp, emptyDir: {}}]
"""
S3_IMAGE = "ghcr.io/versity/versitygw:v1.8.0"


def cluster_environment() -> dict[str, str]:
    """KUBECONFIG and PATH of the cluster that tests may use; skips without one."""
    if os.environ.get("KUBECONFIG"):
        return {}
    home = Path("/var/lib/fairlead-cluster")
    if not os.environ.get("FAIRLEAD_TEST_CLUSTER") or not (home / "kubeconfig").exists():
        missing("no cluster: set KUBECONFIG, or FAIRLEAD_TEST_CLUSTER to a test cluster that is up")
    return {"KUBECONFIG": str(home / "kubeconfig"), "PATH": f"{home / 'bin'}:{os.environ['PATH']}"}


def missing(what: str) -> NoReturn:
    """Skip, or fail where the whole suite is meant to run: a suite of skipped tests must not look like a passed one."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def has_image(tag: str) -> bool:
    """Whether a node has an image; nothing is pulled in a test."""
    nodes = yaml.safe_load(kubectl("get", "nodes", "-o", "json"))["items"]
    names = {name for node in nodes for image in node["status"].get("images", []) for name in image.get("names") or []}
    return tag in names


def need_image(tag: str) -> None:
    """Skip when no node has the image, or fail in CI, where a kubelet gets a minute to report a new one.

    As long as the process FAIRLEAD_TEST_IMAGES lives, which builds images beside the tests, it is waited for.
    """
    end = time.monotonic() + (90 if os.environ.get("CI") else 0)
    while not has_image(tag):
        if Path(f"/proc/{os.environ.get('FAIRLEAD_TEST_IMAGES') or 'none'}").exists():
            end = max(end, time.monotonic() + 90)
        elif time.monotonic() >= end:
            missing(f"no node has the image {tag}: make images")
        time.sleep(2)


def kubectl(*arguments: str, given: str | None = None, check: bool = True) -> str:
    """Output of kubectl."""
    done = subprocess.run(["kubectl", *arguments], input=given, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def apply(namespace: str, *documents: Any) -> None:
    """Create or change objects, given as text or as data."""
    texts = [each if isinstance(each, str) else yaml.safe_dump(each) for each in documents]
    kubectl("-n", namespace, "apply", "-f", "-", given="\n---\n".join(texts))


@contextmanager
def space(name: str, storage: bool = True) -> Iterator[str]:
    """A namespace, deleted afterwards; with an S3 server whose bucket is called fairlead."""
    patch = pytest.MonkeyPatch()
    for key, value in cluster_environment().items():
        patch.setenv(key, value)
    namespace = f"{name}-{secrets.token_hex(2)}"
    level = {"pod-security.kubernetes.io/enforce": "restricted"}
    document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": level}}
    try:
        kubectl("apply", "-f", "-", given=yaml.safe_dump(document))
        if storage:
            need_image(S3_IMAGE)
            apply(namespace, _S3 % {"key": KEY, "secret": SECRET, "image": S3_IMAGE})
            kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod/s3", "--timeout=240s")
        yield namespace
    finally:
        kubectl("delete", "namespace", namespace, "--wait=false", check=False)
        patch.undo()


@contextmanager
def space_of_steps(name: str, *templates: str, **values: bool) -> Iterator[str]:
    """A namespace with an S3 server, the account and the policies of steps, and more templates of the platform's chart.

    values: of the chart, with __ for the points of their keys.
    """
    with space(name) as namespace:
        shown = [f"--show-only={file}" for file in ("charts/pipelines/templates/steps.yaml", *templates)]
        chosen = [f"--set={key.replace('__', '.')}={json.dumps(value)}" for key, value in values.items()]
        command = ["helm", "template", "fairlead", str(_PLATFORM), "-n", namespace, *shown, *chosen]
        made = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        objects = [each for each in yaml.load_all(made, yaml.CSafeLoader) if each]
        apply(namespace, *(each for each in objects if not each["kind"].startswith("Cluster")))
        labels = ("app.kubernetes.io/part-of=fairlead", "app.kubernetes.io/component=s3")  # that policies admit
        kubectl("-n", namespace, "label", "pod", "s3", *labels)
        yield namespace

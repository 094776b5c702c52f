"""kubectl and helm as child processes; both use the caller's kubeconfig."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import Any

from contracts.errors import PlatformError

_GET = {"kubectl": "https://kubernetes.io/docs/tasks/tools/", "helm": "https://helm.sh/docs/intro/install/"}

_CHARTS = re.compile(r"(platform|model-service|feature-store|pipelines|monitoring)-v?\d")
_PATIENCE = 40.0  # seconds that kubectl may take to read
STEP_LABELS = {"pipeline/runid", "pipelines.kubeflow.org/v2_component"}
"""Labels of pods that run a step."""


class Kube:
    """kubectl for one namespace and context."""

    def __init__(self, namespace: str, context: str = "") -> None:
        self.namespace, self.context = namespace, context

    def command(self, *arguments: str) -> list[str]:
        """The command line of kubectl with its namespace and context."""
        where = ["--context", self.context] if self.context else []
        return [program("kubectl"), *where, "--namespace", self.namespace, *arguments]

    def helm(self, *arguments: str) -> list[str]:
        """The command line of helm for the same namespace and context."""
        where = ["--kube-context", self.context] if self.context else []
        return [program("helm"), *where, "--namespace", self.namespace, *arguments]

    def run(self, *arguments: str, given: str | None = None) -> str:
        """Output of kubectl.

        Raises:
            PlatformError: ``code="kubernetes"``, with what kubectl said.
        """
        return output(self.command(*arguments), given)

    def get(self, *arguments: str) -> Any:
        """``kubectl get ... -o json``; None for an object that is not there."""
        text = output(self.command("get", *arguments, "--ignore-not-found", "-o", "json"), patience=_PATIENCE)
        try:
            return json.loads(text or "null")
        except ValueError as err:
            raise PlatformError("kubectl answered no JSON", detail=text[:200], code="kubernetes") from err

    def items(self, *arguments: str) -> list[dict[str, Any]]:
        """The objects of a list."""
        found: list[dict[str, Any]] = (self.get(*arguments) or {}).get("items", [])
        return found

    def ours(self, kinds: str, selector: str = "") -> list[dict[str, Any]]:
        """The objects that match `selector`; without one, those of the platform: a namespace may be shared."""
        if selector:
            return self.items(kinds, "-l", selector)
        return [item for item in self.items(kinds) if _is_ours(item["metadata"].get("labels") or {})]

    def releases(self) -> list[dict[str, Any]]:
        """Helm's releases of our charts, whatever their state. Helm 4 has no --all, so the states are named."""
        states = ("--deployed", "--failed", "--pending", "--uninstalling")
        found: list[dict[str, Any]] = json.loads(output(self.helm("list", *states, "-o", "json")))
        return [release for release in found if _CHARTS.match(release["chart"])]

    def log(self, pod: str, container: str) -> str:
        """The whole log of a container.

        Raises:
            PlatformError: ``code="kubernetes"``.
        """
        return self.run("logs", pod, "-c", container)

    def logs(self, pod: str, container: str, lines: int = 15, previous: bool = False) -> str:
        """The end of a container's log; "" when there is none to be had."""
        more = ["--previous"] if previous else []
        try:
            return self.run("logs", pod, "-c", container, f"--tail={lines}", *more).strip()
        except PlatformError:
            return ""


def _is_ours(labels: dict[str, str]) -> bool:
    return labels.get("app.kubernetes.io/part-of") == "fairlead" or not STEP_LABELS.isdisjoint(labels)


def program(name: str) -> str:
    """Path of kubectl or helm.

    Raises:
        PlatformError: ``code="missing_program"``.
    """
    found = shutil.which(name)
    if found is None:
        raise PlatformError(f"{name} is not installed", fix=f"install it: {_GET[name]}", code="missing_program")
    return found


def output(command: list[str], given: str | None = None, patience: float | None = None) -> str:
    """stdout of kubectl or helm, which may take `patience` seconds.

    Raises:
        PlatformError: ``code="kubernetes"``, with what it said and what mostly helps.
    """
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=patience)
    except subprocess.TimeoutExpired as err:
        raise refused(command, f"i/o timeout: no answer within {patience:.0f} s") from err
    if done.returncode != 0:
        raise refused(command, done.stderr or done.stdout)
    return done.stdout


def refused(command: list[str], said: str) -> PlatformError:
    """What kubectl or helm answered as an error with a cure."""
    words = [part for part in command[1:] if not part.startswith("-")]
    lines = [line for line in said.strip().splitlines() if "memcache.go" not in line] or ["it said nothing"]
    text = "\n  ".join(lines[-12:])
    fix = "see what it says above"
    if "Forbidden" in text or "forbidden" in text:
        fix = "ask for the right it names, or use another context: cluster.context of the profile"
    elif any(word in text for word in ("refused", "no such host", "i/o timeout", "Unable to connect")):
        fix = "is the cluster up, and is KUBECONFIG its own? see: kubectl cluster-info"
    elif "namespaces" in text and "not found" in text:
        fix = "install the platform first: helm install fairlead helm/platform -n fairlead --create-namespace"
    name = command[0].rpartition("/")[2]
    return PlatformError(f"{name} {' '.join(words[-3:])} failed", detail=text, fix=fix, code="kubernetes")

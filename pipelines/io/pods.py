"""Restricted pods that a step makes beside its own: what they get, where they may run, and who may speak to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import Field

from contracts.settings import Settings


class PodSettings(Settings):
    """What pods of a step have. `environment` and `secrets` are what they need to reach S3."""

    gpus: int = Field(0, ge=0, description="GPUs of each pod")
    accelerator: str = "nvidia.com/gpu"
    cpu: str = "1"
    memory: str = "2Gi"
    node_selector: dict[str, str] = Field({}, description="labels of the nodes that may take the pods")
    tolerations: list[dict[str, Any]] = Field([], description="taints of nodes that the pods bear, as in a pod")
    priority_class: str = ""
    affinity: dict[str, Any] = Field({}, description="as in a pod")
    pull_secrets: list[str] = Field([], description="Secrets by which the image is pulled")
    image: str
    namespace: str
    service_account: str = "default"
    environment: dict[str, str] = Field({}, description="variables of the pods")
    secrets: dict[str, tuple[str, str]] = Field({}, description="variable -> (Secret, key)")
    labels: dict[str, str] = Field({}, description="labels that network policies admit")


Wanted = TypeVar("Wanted", bound=PodSettings)


def like(wanted: Wanted, pod: Mapping[str, Any]) -> Wanted:
    """`wanted` with what the platform gives to every pod of a step, as `pod`, which is one, has it.

    What was asked for comes first.
    """
    spec = pod.get("spec", {})
    own = [item for item in spec.get("tolerations") or [] if not item.get("key", "").startswith("node.kubernetes.io/")]
    return wanted.model_copy(
        update={
            "node_selector": {**(spec.get("nodeSelector") or {}), **wanted.node_selector},
            "tolerations": [*wanted.tolerations, *(item for item in own if item not in wanted.tolerations)],
            "affinity": wanted.affinity or spec.get("affinity") or {},
            "priority_class": wanted.priority_class or spec.get("priorityClassName") or "",
            "pull_secrets": wanted.pull_secrets or [item["name"] for item in spec.get("imagePullSecrets") or []],
        }
    )


def closed(meta: dict[str, Any], selector: dict[str, str]) -> dict[str, Any]:
    """The pods talk to each other, and nobody else to them."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": meta,
        "spec": {
            "podSelector": {"matchLabels": selector},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": selector}}]}],
        },
    }


def pod_of(wanted: PodSettings) -> dict[str, Any]:
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {}}]
    if wanted.gpus:
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}})
    return {
        "serviceAccountName": wanted.service_account,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": volumes,
        **placed(wanted),
    }


def placed(wanted: PodSettings) -> dict[str, Any]:
    place = {
        "nodeSelector": wanted.node_selector,
        "tolerations": wanted.tolerations,
        "affinity": wanted.affinity,
        "priorityClassName": wanted.priority_class,
        "imagePullSecrets": [{"name": name} for name in wanted.pull_secrets],
    }
    return {key: value for key, value in place.items() if value}


def container_of(wanted: PodSettings, name: str, run: list[str]) -> dict[str, Any]:
    secret = {variable: {"secretKeyRef": {"name": ref, "key": key}} for variable, (ref, key) in wanted.secrets.items()}
    mounts = [{"name": "tmp", "mountPath": "/tmp"}]
    limits: dict[str, Any] = {"memory": wanted.memory}
    if wanted.gpus:
        limits[wanted.accelerator] = wanted.gpus
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})
    return {
        "name": name,
        "image": wanted.image,
        "imagePullPolicy": "IfNotPresent",
        "command": run[:1],
        "args": run[1:],
        "env": [
            *({"name": variable, "value": value} for variable, value in wanted.environment.items()),
            *({"name": variable, "valueFrom": source} for variable, source in secret.items()),
        ],
        "resources": {"requests": {"cpu": wanted.cpu, **limits}, "limits": limits},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }

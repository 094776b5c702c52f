"""What Kubernetes and Kubeflow Trainer know of the objects that a distributed training is made of.

Kubernetes' objects are compared with the classes that its Python client is generated with from the API's own schema. Of
a TrainJob the fields of each release are written down here; what they hold of Kubernetes is compared like the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tests.late import Late

models = Late("kubernetes.client.models")


_PLAIN: dict[str, Any] = {
    "str": str,
    "int": int,
    "bool": bool,
    "float": (int, float),
    "object": object,
    "datetime": str,
}
_WORD = {"type": "string", "minLength": 1}
_POD = ("serviceAccountName", "nodeSelector", "tolerations", "volumes", "initContainers", "schedulingGates")
_KINDS = {
    "env": "list[V1EnvVar]",
    "resourcesPerNode": "V1ResourceRequirements",
    "tolerations": "list[V1Toleration]",
    "volumes": "list[V1Volume]",
    "volumeMounts": "list[V1VolumeMount]",
    "imagePullSecrets": "list[V1LocalObjectReference]",
    "affinity": "V1Affinity",
    "nodeSelector": "dict(str, str)",
    "labels": "dict(str, str)",
}


def wrong(value: Any, kind: str, at: str = "") -> list[str]:
    """Keys that a class of Kubernetes does not know, values of another type, and what is required and missing."""
    if found := re.fullmatch(r"list\[(.*)\]", kind):
        if not isinstance(value, list):
            return [f"{at}: not a list"]
        return [error for n, item in enumerate(value) for error in wrong(item, found[1], f"{at}[{n}]")]
    if found := re.fullmatch(r"dict\(str, (.*)\)", kind):
        if not isinstance(value, dict):
            return [f"{at}: not a mapping"]
        return [error for key, item in value.items() for error in wrong(item, found[1], f"{at}.{key}")]
    if kind in _PLAIN:
        good = isinstance(value, _PLAIN[kind]) and (kind == "bool" or not isinstance(value, bool))
        return [] if good else [f"{at}: {kind!r} expected, got {value!r}"]
    model = getattr(models, kind)
    names = {text: name for name, text in model.attribute_map.items()}
    if not isinstance(value, dict):
        return [f"{at}: a {kind} expected"]
    errors = [f"{at}.{key}: unknown" for key in value if key not in names]
    known = {key: item for key, item in value.items() if key in names}
    for key, item in known.items():
        if not _quantities(model, key, item):
            errors += wrong(item, model.openapi_types[names[key]], f"{at}.{key}")
    try:
        model(**{names[key]: item for key, item in known.items()})
    except ValueError as err:
        errors.append(f"{at}: {err}")
    return errors


def _quantities(model: Any, key: str, item: Any) -> bool:
    """Amounts may be written as numbers too, where the client's class says text."""
    found = model is models.V1ResourceRequirements and key in ("limits", "requests")
    return found and all(isinstance(amount, int | str) for amount in item.values())


def train_job_schema(release: str) -> dict[str, Any]:
    """The fields of a TrainJob in a release of Kubeflow Trainer; no others are allowed."""
    trainer = _closed(
        {
            "image": _WORD,
            "command": _many(_WORD),
            "args": _many(_WORD),
            "env": _many({"type": "object"}),
            "numNodes": {"type": "integer"},
            "numProcPerNode": {"type": "integer", "minimum": 1},
            "resourcesPerNode": {"type": "object"},
        }
    )
    reference = _closed({"name": _WORD, "apiGroup": _WORD, "kind": _WORD}, "name")
    common = {"runtimeRef": reference, "trainer": trainer, "initializer": {}, "suspend": {}, "managedBy": {}}
    spec = _closed({**common, **_of_release(release)}, "runtimeRef")
    return _closed(
        {
            "apiVersion": {"const": "trainer.kubeflow.org/v1alpha1"},
            "kind": {"const": "TrainJob"},
            "metadata": {"type": "object", "required": ["name"]},
            "spec": spec,
        },
        "apiVersion",
        "kind",
        "metadata",
        "spec",
    )


def ray_job_schema() -> dict[str, Any]:
    """The fields of a RayJob of KubeRay (1.5.1 to 1.7.0) that are ours to set; no others are allowed."""
    template = {"type": "object", "required": ["spec"]}
    params = {"type": "object", "additionalProperties": {"type": "string"}}
    count = {"type": "integer", "minimum": 0}
    head = _closed(
        {"template": template, "rayStartParams": params, "serviceType": _WORD, "enableIngress": {}, "headService": {}},
        "template",
    )
    worker = _closed(
        {
            "groupName": _WORD,
            "template": template,
            "rayStartParams": params,
            "replicas": count,
            "minReplicas": count,
            "maxReplicas": count,
            "numOfHosts": count,
            "idleTimeoutSeconds": count,
            "suspend": {"type": "boolean"},
            "scaleStrategy": {},
        },
        "groupName", "maxReplicas", "minReplicas", "template",
    )  # fmt: skip
    cluster = _closed(
        {
            "rayVersion": _WORD,
            "authOptions": _closed({"mode": {"enum": ["disabled", "token"]}}),
            "headGroupSpec": head,
            "workerGroupSpecs": _many(worker),
            "enableInTreeAutoscaling": {"type": "boolean"},
            "autoscalerOptions": {},
            "gcsFaultToleranceOptions": {},
            "headServiceAnnotations": {},
            "managedBy": _WORD,
            "suspend": {"type": "boolean"},
        },
        "headGroupSpec",
    )
    modes = ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]
    spec = _closed(
        {
            "activeDeadlineSeconds": {"type": "integer", "minimum": 1},
            "backoffLimit": count,
            "rayClusterSpec": cluster,
            "entrypoint": _WORD,
            "runtimeEnvYAML": _WORD,
            "submissionMode": {"enum": modes},
            "shutdownAfterJobFinishes": {"type": "boolean"},
            "ttlSecondsAfterFinished": count,
            "suspend": {"type": "boolean"},
            "managedBy": _WORD,
        }
    )
    return _closed(
        {"apiVersion": {"const": "ray.io/v1"}, "kind": {"const": "RayJob"}, "metadata": {"type": "object"},
         "spec": spec},
        "apiVersion", "kind", "metadata", "spec",
    )  # fmt: skip


def _of_release(release: str) -> dict[str, Any]:
    target = {"targetJobs": {**_many(_closed({"name": _WORD}, "name")), "minItems": 1}}
    container = {"name": _WORD, "env": {}, "volumeMounts": {"type": "array"}}
    containers = _many(_closed(container, "name"))
    pod: dict[str, Any] = {**{key: {} for key in _POD}, "containers": containers}
    if release == "2.0":
        return {"labels": {"type": "object"}, "annotations": {}, "podSpecOverrides": _many(_closed({**target, **pod}))}
    pod |= {"affinity": {"type": "object"}, "imagePullSecrets": {"type": "array"}}
    if release == "2.1":
        each = _closed({**target, "metadata": _metadata(), "spec": _closed(pod)})
        return {"labels": {"type": "object"}, "annotations": {}, "podTemplateOverrides": _many(each)}
    pod |= {"securityContext": {}, "terminationGracePeriodSeconds": {}}
    pod["containers"] = _many(_closed({**container, "securityContext": {}}, "name"))
    template = _closed({"metadata": _metadata(), "spec": _closed(pod)})
    of_job = _closed({"metadata": _metadata(), "spec": _closed({"template": template})})
    jobs = _many(_closed({"name": _WORD, "template": of_job}, "name"))
    job_set = _closed({"metadata": _metadata(), "spec": _closed({"replicatedJobs": jobs})})
    runtime = _closed({"template": job_set})
    patch = _closed({"manager": {**_WORD, "maxLength": 253}, "time": {}, "trainingRuntimeSpec": runtime}, "manager")
    return {"runtimePatches": _many(patch), "activeDeadlineSeconds": {"type": "integer", "minimum": 1}}


def _metadata() -> dict[str, Any]:
    return _closed({"labels": {"type": "object"}, "annotations": {"type": "object"}})


def _closed(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    made = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**made, "required": list(required)} if required else made


def _many(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def parts_of(document: Any, at: str = "") -> Iterator[tuple[str, str, Any]]:
    """What a TrainJob holds of Kubernetes: place, class and value. Labels of the pods come after those of the job."""
    if isinstance(document, dict):
        for key, value in document.items():
            if key in _KINDS:
                yield f"{at}.{key}", _KINDS[key], value
            elif key == "securityContext":
                yield f"{at}.{key}", "V1SecurityContext" if ".containers" in at else "V1PodSecurityContext", value
            else:
                yield from parts_of(value, f"{at}.{key}")
    elif isinstance(document, list):
        for number, item in enumerate(document):
            yield from parts_of(item, f"{at}[{number}]")

"""What chart tests ask: the objects of a render, the pods in them, and the words of a refusal."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from tests.helm.program import CHARTS, helm

OPERATOR = ("monitoring.coreos.com/v1/PodMonitor", "monitoring.coreos.com/v1/PrometheusRule")
Object = dict[str, Any]
WORKLOADS = ("Deployment", "StatefulSet", "Job", "CronJob", "DaemonSet", "Pod")


@lru_cache(maxsize=128)
def _rendered(chart: str, files: tuple[str, ...], values: str, release: str, apis: tuple[str, ...]) -> tuple[int, str]:
    options = [part for api in apis for part in ("--api-versions", api)]
    options += [part for file in files for part in ("-f", file)]
    path = str(CHARTS / chart)
    done = helm("template", release, path, "--namespace", "spaces", *options, "-f", "-", given=values)
    return done.returncode, done.stdout if done.returncode == 0 else done.stderr


def render(
    chart: str,
    values: Mapping[str, Any] | None = None,
    *,
    files: tuple[Path, ...] = (),
    release: str = "fairlead",
    apis: tuple[str, ...] = (),
) -> list[Object]:
    """The objects that `chart` renders with `files`, and `values` over them."""
    return copy.deepcopy(_objects(chart, tuple(map(str, files)), json.dumps(values or {}), release, apis))


@lru_cache(maxsize=128)
def _objects(chart: str, files: tuple[str, ...], values: str, release: str, apis: tuple[str, ...]) -> list[Object]:
    code, text = _rendered(chart, files, values, release, apis)
    assert code == 0, text
    return [document for document in yaml.load_all(text, Loader=_LOADER) if document]


def refused(chart: str, values: Mapping[str, Any]) -> str:
    """What Helm says when it refuses `values`."""
    code, text = _rendered(chart, (), json.dumps(values), "fairlead", ())
    assert code != 0, "these values were accepted"
    return text


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    """The objects of some kinds."""
    return [each for each in objects if each["kind"] in kinds]


def named(objects: list[Object], kind: str, name: str) -> Object:
    """The one object of that kind and name."""
    (found,) = [each for each in of_kind(objects, kind) if each["metadata"]["name"] == name]
    return found


def pods(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """``Kind/name`` and pod template (metadata and spec) of every workload."""
    for each in of_kind(objects, *WORKLOADS):
        name = f"{each['kind']}/{each['metadata']['name']}"
        if each["kind"] == "Pod":
            yield name, each
        elif each["kind"] == "CronJob":
            yield name, each["spec"]["jobTemplate"]["spec"]["template"]
        else:
            yield name, each["spec"]["template"]


def containers(pod: Object) -> list[Object]:
    """Containers of a pod, those that run first included."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def images(objects: list[Object]) -> set[str]:
    """Every image that is named, in containers, their environment and their arguments."""
    found = set()
    for _, pod in pods(objects):
        for container in containers(pod):
            found.add(container["image"])
            found |= {e["value"] for e in container.get("env", []) if e["name"].endswith("_IMAGE") and "value" in e}
            arguments = container.get("args", [])
            found |= {arguments[i + 1] for i, word in enumerate(arguments) if word == "--executor-image"}
    return found


def environment(container: Object) -> dict[str, Any]:
    """Values of a container's environment; of those that come from elsewhere, the source."""
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container.get("env") or []}


class _LOADER(yaml.CSafeLoader):
    """Refuses a key that is written twice, which YAML parsers otherwise forgive."""


def _mapping(loader: _LOADER, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    twice = {key for key in keys if keys.count(key) > 1}
    assert not twice, f"keys are written twice: {sorted(twice)}, line {node.start_mark.line + 1}"
    return {key: loader.construct_object(value, deep=True) for key, (_, value) in zip(keys, node.value, strict=True)}


_LOADER.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)

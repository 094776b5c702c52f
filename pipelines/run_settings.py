"""Settings of a run that are none of its task: what steps need on a cluster, how many share a pod, who computes data.

``resources.STEP.KEY`` (STEP may be ``all``), ``workflow.tasks``, ``workflow.nodes``, ``data.engine``, ``data.ray``,
``data.workers`` and ``data.memory`` are written like settings of a task, and are split off before its configuration is
made: they never change what a step computes, nor a cache key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from contracts import quantities
from contracts.errors import PlatformError
from pipelines.data_engines import ENGINES, KINDS
from pipelines.resources import STEPS, Resources

TASKS = ("few", "groups", "each")
NODES = ("fixed", "growing")
PLAN = ("kept", "ignored")
_OF_ENGINE = ("data.engine", "data.ray", "data.workers", "data.memory")  # the other settings of data are the task's
_MOST_WORKERS = 256
_ALL = "all"
_SMALLEST = 32 * 2**20
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_LABEL = re.compile(r"([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?/)?[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?", re.ASCII)
_VALUE = re.compile(r"([A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?)?", re.ASCII)
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


def split(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of the task, and those of the run, checked and in one spelling.

    Raises:
        PlatformError: ``code="bad_config"``: a key that is none, or a value that is none of it.
    """
    ours = {
        key: value
        for key, value in settings.items()
        if key.partition(".")[0] in ("resources", "workflow") or key in _OF_ENGINE
    }
    checked: dict[str, Any] = {}
    for key, value in ours.items():
        checked.update(_checked(key, value))
    return {key: value for key, value in settings.items() if key not in ours}, checked


def tasks_of(settings: Mapping[str, Any]) -> Any:
    """How many steps share a pod: few, groups or each."""
    return settings.get("workflow.tasks", TASKS[0])


def keeps_plan(settings: Mapping[str, Any]) -> bool:
    """Whether a run is refused that does not fit by its plan."""
    return bool(settings.get("workflow.plan", PLAN[0]) == PLAN[0])


def growing(settings: Mapping[str, Any]) -> bool:
    """Whether the cluster adds nodes when pods ask for them."""
    return bool(settings.get("workflow.nodes") == "growing")


def needs(
    settings: Mapping[str, Any],
    defaults: Mapping[str, Mapping[str, Any]] | None = None,
    memory: Mapping[str, int] | None = None,
) -> dict[str, Resources]:
    """What each step needs: what a task says of its steps, then `settings` of a run (checked), the narrower last.

    memory: bytes that steps are known to need; a step that nobody gave memory gets at least that.
    """
    made = {}
    for step, usual in STEPS.items():
        found = usual
        said: set[str] = set()
        for source in (_flat(defaults or {}), settings):
            for who in (_ALL, step):
                prefix = f"resources.{who}."
                given = {key.removeprefix(prefix): value for key, value in source.items() if key.startswith(prefix)}
                found = _with(found, given, own=who == step and bool(given))
                said |= set(given)
        least = (memory or {}).get(step, 0)
        if "memory" not in said and least > quantities.parse(found.memory):
            found = replace(found, memory=quantities.memory(least))
        made[step] = found
    return made


def _with(base: Resources, given: Mapping[str, Any], own: bool) -> Resources:
    plain = {key: value for key, value in given.items() if not key.startswith("node_selector.")}
    chosen = {key.partition(".")[2]: value for key, value in given.items() if key.startswith("node_selector.")}
    if "tolerations" in plain:
        plain["tolerations"] = tuple(plain["tolerations"])
    return replace(base, **plain, node_selector={**base.node_selector, **chosen}, own=base.own or own)


def _flat(defaults: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What a task says of its steps, checked like settings of a run."""
    flat = {f"resources.{step}.{key}": value for step, given in defaults.items() for key, value in given.items()}
    return split(flat)[1]


def _checked(key: str, value: Any) -> dict[str, Any]:
    section, *path = key.split(".")
    if section == "data":
        return {key: _of_engine(key, value)}
    if section == "workflow":
        accepted = {"tasks": TASKS, "nodes": NODES, "plan": PLAN}.get(".".join(path))
        if accepted is None:
            raise _wrong(key, "accepted: workflow.tasks, workflow.nodes, workflow.plan")
        if value not in accepted:
            raise _wrong(key, f"got {value!r}; accepted: {', '.join(accepted)}")
        return {key: value}
    if len(path) < 2 or path[0] not in (_ALL, *STEPS):
        raise _wrong(key, f"write resources.STEP.KEY=VALUE, STEP one of: {', '.join((_ALL, *STEPS))}")
    name = path[1]
    if name == "node_selector":
        return _selector(key, f"resources.{path[0]}.node_selector", ".".join(path[2:]), value)
    if name not in _READ or len(path) > 2:
        raise _wrong(key, f"accepted after resources.{path[0]}: {', '.join(sorted([*_READ, 'node_selector.LABEL']))}")
    try:
        return {key: _READ[name](value)}
    except ValueError as err:
        raise _wrong(key, f"got {value!r}; {err}") from None


def _of_engine(key: str, value: Any) -> Any:
    if key in (accepted := {"data.engine": ENGINES, "data.ray": KINDS}):
        if value not in accepted[key]:
            raise _wrong(key, f"got {value!r}; accepted: {', '.join(accepted[key])}")
        return value
    try:
        if key == "data.memory":
            return _memory(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST_WORKERS:
            raise ValueError(f"write a whole number from 1 to {_MOST_WORKERS}")
    except ValueError as err:
        raise _wrong(key, f"got {value!r}; {err}") from None
    return value


def _selector(key: str, prefix: str, label: str, value: Any) -> dict[str, Any]:
    """One label, or a mapping of them."""
    given = {label: value} if label else value
    if not isinstance(given, Mapping) or not given:
        raise _wrong(key, f"write {prefix}.LABEL=VALUE, for example {prefix}.kubernetes.io/arch=amd64")
    made = {}
    for name, wanted in given.items():
        text = str(wanted).lower() if isinstance(wanted, bool) else str(wanted)
        if not _LABEL.fullmatch(str(name)) or not _VALUE.fullmatch(text):
            raise _wrong(key, f"got {name}={text}, which is no label of a node")
        made[f"{prefix}.{name}"] = text
    return made


def _memory(value: Any) -> str:
    size = quantities.parse(value)
    if size < _SMALLEST:
        raise ValueError(f"that is {int(size)} bytes, and a step needs at least 32Mi: write for example 4Gi")
    return quantities.memory(size)


def _cpu(value: Any) -> str:
    cores = quantities.parse(value)
    if cores <= 0:
        raise ValueError("write a number of cores above 0, for example 2 or 500m")
    return quantities.cpu(cores)


def _gpus(value: Any) -> int:
    number = quantities.parse(value)
    if number < 0 or number != int(number):
        raise ValueError("write a whole number")
    return int(number)


def _named(value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError("write the name of a PriorityClass")
    return value


def _accelerator(value: Any) -> str:
    if not isinstance(value, str) or "/" not in value or not _LABEL.fullmatch(value):
        raise ValueError("write the resource that the nodes offer, for example nvidia.com/gpu")
    return value


def _tolerations(value: Any) -> list[dict[str, str]]:
    return [_toleration(item) for item in (value if isinstance(value, list | tuple) else [value])]


def _toleration(item: Any) -> dict[str, str]:
    """``key=value:NoSchedule`` as in `kubectl taint`, ``key:NoSchedule``, ``key``, or a toleration of a pod."""
    if isinstance(item, str):
        text, _, effect = item.rpartition(":") if item.rpartition(":")[2] in _EFFECTS else (item, "", "")
        key, equals, value = text.partition("=")
        made = {"key": key, "operator": "Equal" if equals else "Exists"}
        made |= {"value": value} if equals else {}
        made |= {"effect": effect} if effect else {}
    elif isinstance(item, Mapping):
        made = {str(name): str(value) for name, value in item.items()}
        made.setdefault("operator", "Equal")
    else:
        raise ValueError("write key=value:NoSchedule, or a list of such")
    exists = made["operator"] == "Exists"
    good = (
        set(made) <= {"key", "operator", "value", "effect"}
        and made["operator"] in ("Equal", "Exists")
        and made.get("effect", _EFFECTS[0]) in _EFFECTS
        and (bool(_LABEL.fullmatch(made["key"])) if made.get("key") else exists)
        and _VALUE.fullmatch(made.get("value", "")) is not None
        and not (exists and made.get("value"))
    )
    if not good:
        raise ValueError(f"write key=value:EFFECT or key:EFFECT, EFFECT one of: {', '.join(_EFFECTS)}")
    return dict(sorted(made.items()))


_READ: dict[str, Callable[[Any], Any]] = {
    "memory": _memory,
    "cpu": _cpu,
    "gpus": _gpus,
    "accelerator": _accelerator,
    "tolerations": _tolerations,
    "priority_class": _named,
}


def _wrong(key: str, detail: str) -> PlatformError:
    return PlatformError(
        f"--set {key}: not a setting of a run",
        detail=detail,
        fix="correct the key or its value",
        code="bad_config",
        key=key,
    )

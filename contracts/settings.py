"""Settings: defaults, then a YAML file, then the environment; an unknown key is an error.

A nested key is written with two underscores in the environment: with prefix ``FAIRLEAD_`` the variable
``FAIRLEAD_LOG__SAMPLE`` sets ``log.sample``. Values in the environment are parsed as YAML.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from contracts.errors import PlatformError

# What the pod of a step is told about itself (pipelines/io/record.py), and a key; no setting of anything.
_OF_PODS = frozenset({"record", "kfp_run", "pod", "node", "endpoints", "schedule", "pii_key", "step_prices"})


class Settings(BaseModel):
    """Base of every settings class: frozen, and refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    # Variables that share our prefix and belong to someone else; those that begin with TEST_ are the tests' own.
    foreign_environment: ClassVar[frozenset[str]] = frozenset()


S = TypeVar("S", bound=Settings)


def load(
    cls: type[S],
    file: str | Path | None = None,
    *,
    prefix: str = "FAIRLEAD_",
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> S:
    """Read settings of class `cls`; later sources win: defaults, `file`, environment, `overrides`.

    `overrides` has dotted keys (what a command line's ``--set`` gives).

    Raises:
        PlatformError: names the key, where it came from, and what is accepted.
    """
    merged: dict[str, Any] = {}
    origin: dict[str, str] = {}
    if file is not None:
        _merge(merged, _read_yaml(Path(file)), str(file), origin)
    env = os.environ if environ is None else environ
    for name in sorted(env):
        if name.startswith(prefix):
            path = name[len(prefix) :].lower().split("__")
            if path[0].startswith("test_") or path[0] in cls.foreign_environment | _OF_PODS:
                continue
            _merge(merged, _nest(path, _parse(env[name])), f"environment {name}", origin)
    for key, value in (overrides or {}).items():
        _merge(merged, _nest(key.split("."), value), f"--set {key}", origin)
    try:
        return cls.model_validate(merged)
    except ValidationError as err:
        raise _explain(cls, err, origin) from err


def _parse(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _nest(path: list[str], value: Any) -> dict[str, Any]:
    for part in reversed(path):
        value = {part: value}
    return value  # type: ignore[no-any-return]


def _merge(into: dict[str, Any], new: Mapping[str, Any], source: str, origin: dict[str, str], at: str = "") -> None:
    for key, value in new.items():
        where = f"{at}.{key}" if at else str(key)
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value, source, origin, where)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value
            for leaf in _leaves(value, where):
                origin[leaf] = source


def _leaves(value: Any, at: str) -> list[str]:
    if isinstance(value, Mapping) and value:
        return [leaf for key, inner in value.items() for leaf in _leaves(inner, f"{at}.{key}")]
    return [at]


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PlatformError(
            f"settings file not found: {path}", fix="give the path of a YAML file, or leave the option out"
        ) from None
    except yaml.YAMLError as err:
        raise PlatformError(f"settings file is not YAML: {path}", detail=str(err), fix="correct the file") from err
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise PlatformError(
            f"settings file must be a mapping: {path}",
            detail=f"got {type(data).__name__}",
            fix="write key: value lines",
        )
    return data


def _explain(cls: type[BaseModel], err: ValidationError, origin: dict[str, str]) -> PlatformError:
    lines, keys = [], []
    for item in err.errors():
        key = ".".join(str(part) for part in item["loc"]) or "(all)"
        source = origin.get(key) or next((s for k, s in origin.items() if k.startswith(key)), "default")
        accepted = _known_keys(cls, [str(p) for p in item["loc"][:-1]])
        if item["type"] == "extra_forbidden":
            lines.append(f"{key} (from {source}): unknown key; accepted: {', '.join(accepted)}")
        else:
            lines.append(f"{key} (from {source}): got {item.get('input')!r}; {item['msg']}")
        keys.append(key)
    return PlatformError(
        f"invalid settings for {cls.__name__}: {', '.join(keys)}",
        detail="\n  ".join(lines),
        fix="correct the keys above where they are set",
        code="bad_settings",
        keys=keys,
    )


def _known_keys(cls: type[BaseModel], path: list[str]) -> list[str]:
    current: type[BaseModel] = cls
    for part in path:
        info = current.model_fields.get(part)
        if info is None or not (isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel)):
            break
        current = info.annotation
    return sorted(current.model_fields)

"""``deploy/env/<env>/models/<model>.yaml``: the values of one release, with the immutable version that it serves.

The section `model` is written by `fairlead deploy` and `fairlead rollback`; everything else in the file is its owner's
and stays as it is, comments too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from contracts.errors import PlatformError
from contracts.registry import ModelVersion
from deploy.cli.cluster.cluster_settings import Cluster, Profile

_HEADER = """\
# Values of the release {release}, see helm/model-service/values.yaml. The section `model` is written by
# `fairlead deploy` and `fairlead rollback`; what else is set here is kept.
"""


def release_name(model: str) -> str:
    """The Helm release of a model: its name, as a DNS label."""
    return model.replace("_", "-").lower()


def model_section(version: ModelVersion, modality: str) -> dict[str, str]:
    """What pins a release to one version."""
    return {
        "source": version.path,
        "digest": version.digest,
        "name": version.name,
        "version": version.version,
        "modality": modality,
    }


def first_values(profile: Profile, features: bool) -> dict[str, Any]:
    """What a new release of this environment needs beside its model: where bundles and its log are, the online store.

    A log that is not in S3 is of no use to a pod, and left out.
    """
    assert profile.cluster is not None
    storage, redis = profile.cluster.storage, profile.cluster.redis
    key = storage.models if storage.models.name else storage.secret
    log = log_values(profile)
    config: dict[str, Any] = log.get("config", {})
    secrets: dict[str, Any] = log.get("secrets", {})
    values: dict[str, Any] = {
        "storage": {
            "endpoint": storage.endpoint,
            "region": storage.region,
            "existingSecret": key.name,
            "accessKeyKey": key.user_key,
            "secretKeyKey": key.password_key,
        }
    }
    if images := _images(profile.cluster):
        values["global"] = images
    if features:
        config["online"] = profile.online
        if redis.name:
            secrets["online"] = {"name": redis.name, "key": redis.password_key}
    values |= {name: section for name, section in (("config", config), ("secrets", secrets)) if section}
    return values


def _images(cluster: Cluster) -> dict[str, Any]:
    """Where images come from, as the charts are told; {} for where they were published."""
    secrets = [{"name": name} for name in cluster.image_pull_secrets]
    said = {"imageRegistry": cluster.image_registry, "imagePullSecrets": secrets}
    return {name: value for name, value in said.items() if value}


def log_values(profile: Profile) -> dict[str, Any]:
    """The values by which a release logs what it answers; {} where the platform's log is not in S3."""
    if profile.cluster is None or not profile.predictions.startswith("s3://"):
        return {}
    salt = profile.cluster.salt
    found: dict[str, Any] = {"config": {"predictions": {"folder": profile.predictions}}}
    if salt.name:
        found["secrets"] = {"salt": {"name": salt.name, "key": salt.password_key}}
    return found


def pin(file: Path, model: dict[str, str], first: dict[str, Any]) -> str:
    """The file's text with `model` as its section `model`; `first` are the other values of a new file.

    Raises:
        PlatformError: ``code="bad_settings"``: the file is not a mapping in YAML.
    """
    block = yaml.safe_dump({"model": model}, sort_keys=False)
    if not file.exists():
        rest = yaml.safe_dump(first, sort_keys=False) if first else ""
        return _HEADER.format(release=release_name(model["name"])) + block + rest
    text = file.read_text(encoding="utf-8")
    try:
        root = yaml.compose(text)
    except yaml.YAMLError as err:
        raise _not_yaml(file, str(err)) from err
    if root is None:
        return text + block
    if not isinstance(root, yaml.MappingNode) or root.flow_style:
        raise _not_yaml(file, "it must be key: value lines")
    lines = text.splitlines(keepends=True)
    keys = [key.start_mark.line for key, _ in root.value]
    for at, (key, value) in enumerate(root.value):
        if key.value != "model":
            continue
        until = _end(lines, key.start_mark.line, keys[at + 1] if at + 1 < len(keys) else len(lines), value)
        return "".join([*lines[: key.start_mark.line], block, *lines[until:]])
    return (text if text.endswith("\n") else text + "\n") + block


def with_rollouts(text: str, file: Path, artifacts: str, tracking: str, secret: str) -> str:
    """The text of values with rollouts on, for a keeper that knows where versions and their registry are.

    Args:
        secret: the Secret with its S3 key; "" for that of the model's pods.

    Raises:
        PlatformError: ``code="bad_settings"``: the file says something else of rollouts.
    """
    told = yaml.safe_load(text).get("rollouts")
    if told is not None:
        raise PlatformError(
            f"rollouts are off in {file}",
            fix="set rollouts.enabled to true there, and rollouts.artifacts to where versions are published",
            code="bad_settings",
        )
    told = {"enabled": True, "artifacts": artifacts, "tracking": tracking, "storageSecret": secret}
    return text.rstrip() + "\n" + yaml.safe_dump({"rollouts": told}, sort_keys=False)


def _end(lines: list[str], start: int, limit: int, value: yaml.Node) -> int:
    """The line after the section; blank lines and comments before the next key belong to that key."""
    last = max(value.end_mark.line, start + 1) if value.end_mark.column == 0 else value.end_mark.line + 1
    until = min(last, limit)
    while until > start + 1 and (not lines[until - 1].strip() or lines[until - 1].startswith("#")):
        until -= 1
    return until


def _not_yaml(file: Path, detail: str) -> PlatformError:
    return PlatformError(
        f"cannot write the version into {file}",
        detail=detail,
        fix="correct the file, or move it away",
        code="bad_settings",
    )

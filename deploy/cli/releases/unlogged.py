"""Releases of models that log nowhere: nobody can watch what they answer."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from deploy.cli.cluster.kube import Kube, output
from deploy.cli.releases.release_values import log_values

if TYPE_CHECKING:
    from deploy.cli.cluster.cluster_settings import Profile


@dataclass(frozen=True, kw_only=True)
class Unlogged:
    """What is to be said of one release, and what is to be done."""

    release: str
    said: str
    fix: str

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def release_values_of(kube: Kube, release: str) -> dict[str, Any]:
    """The values that a release was given."""
    found: dict[str, Any] = json.loads(output(kube.helm("get", "values", release, "-o", "json"))) or {}
    return found


def unlogged(release: str, values: dict[str, Any], profile: Profile, env: str) -> Unlogged | None:
    """None where the release logs, where its values say that it shall not, and where the platform has no log in S3."""
    told = (values.get("config") or {}).get("predictions") or {}
    missing = log_values(profile)
    if "folder" in told or (values.get("storage") or {}).get("embedded") or not missing:
        return None
    model = values.get("model") or {}
    name, version = model.get("name") or release, model.get("version")
    file, ref = f"deploy/env/{env}/models/{name}.yaml", f"{name}:{version}" if version else name
    return Unlogged(
        release=release,
        said=f"{release} does not log its predictions: nobody sees drift, skew or quality of it, "
        "and labels find no prediction",
        fix=f"add to {file}: {json.dumps(missing)}, then fairlead deploy {ref} --env {env}; "
        'or say that it shall not: config: {"predictions": {"folder": ""}}',
    )

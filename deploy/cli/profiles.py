"""Profiles and deployed models: YAML documents below ``deploy/env/``; no code knows a profile by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.errors import PlatformError

if TYPE_CHECKING:
    from contracts.endpoints import Endpoints
    from deploy.cli.deployment import Deployment

ENVIRONMENTS = Path(__file__).resolve().parents[1] / "env"
_ADDRESSES = ("home", "data", "runs", "cache", "tracking", "artifacts", "features", "online", "predictions")


def profile_names() -> list[str]:
    """Names of the profiles that are shipped, sorted."""
    return sorted(file.parent.name for file in ENVIRONMENTS.glob("*/profile.yaml"))


def profile_file(profile: str) -> Path:
    """The YAML file of a profile given by name or by path.

    Raises:
        PlatformError: ``code="unknown_profile"``, listing the known names.
    """
    if "/" in profile or profile.endswith((".yaml", ".yml")):
        path = Path(profile).expanduser()
        if path.is_file():
            return path
    elif profile in profile_names():
        return ENVIRONMENTS / profile / "profile.yaml"
    raise PlatformError(
        f"unknown profile {profile!r}",
        detail=f"known profiles: {', '.join(profile_names())}",
        fix="name one of them, or give the path of a YAML file with addresses",
        code="unknown_profile",
    )


def load_endpoints(profile: str) -> Endpoints:
    """The addresses of a profile, all absolute; the environment (``FAIRLEAD_HOME`` ...) wins over the file."""
    from contracts.endpoints import Endpoints
    from contracts.settings import load

    # Other parts of the platform share the prefix, so only the addresses are read here.
    names = {f"FAIRLEAD_{name.upper()}" for name in _ADDRESSES}
    environ = {name: value for name, value in os.environ.items() if name in names}
    return load(Endpoints, profile_file(profile), environ=environ).resolved()


def deployment_file(profile: str, model: str) -> Path:
    """Where the values of a deployed model are, whether they exist or not; beside the profile's file."""
    return profile_file(profile).parent / "models" / f"{model}.yaml"


def load_deployment(profile: str, model: str) -> Deployment:
    """The values of a deployed model; defaults for a model that has no file."""
    from contracts.settings import load
    from deploy.cli.deployment import Deployment

    file = deployment_file(profile, model)
    values = load(Deployment, file if file.exists() else None, environ={})
    return values if values.model else values.model_copy(update={"model": model})

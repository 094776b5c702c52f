"""Profiles and deployed models: YAML documents below ``deploy/env/``; no code knows a profile by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.errors import PlatformError

if TYPE_CHECKING:
    from contracts.endpoints import Endpoints
    from deploy.cli.cluster.cluster_settings import Cluster, Profile
    from deploy.cli.profiles.deployment import Deployment

ENVIRONMENTS = Path(__file__).resolve().parents[2] / "env"
_ADDRESSES = (
    *("home", "data", "runs", "cache", "tracking", "artifacts", "features", "online", "predictions"),
    *("studies", "documents"),
)


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


def document_store(profile: str) -> str:
    """The address of the database that documents are kept in, as a profile says.

    Raises:
        PlatformError: ``code="bad_profile"``: it names none.
    """
    address = load_endpoints(profile).documents
    if not address:
        raise PlatformError(
            "no document store is set",
            detail=f"profile {profile} has no key documents",
            fix="write documents: mongodb://HOST/DATABASE into the profile, or set FAIRLEAD_DOCUMENTS",
            code="bad_profile",
        )
    return address


def load_profile(profile: str) -> Profile:
    """A profile as it is written; the environment (``FAIRLEAD_HOME`` ...) wins over the file."""
    from contracts.settings import load
    from deploy.cli.cluster.cluster_settings import Profile

    # Other parts of the platform share the prefix, so only the addresses are read here.
    names = {f"FAIRLEAD_{name.upper()}" for name in _ADDRESSES}
    sections = ("FAIRLEAD_CLUSTER__", "FAIRLEAD_PRICES__")
    known = {name: value for name, value in os.environ.items() if name in names or name.startswith(sections)}
    return load(Profile, profile_file(profile), environ=known)


def load_cluster(profile: str) -> Cluster:
    """The cluster of a profile.

    Raises:
        PlatformError: ``code="no_cluster"`` for a profile of this machine.
    """
    cluster = load_cluster_profile(profile).cluster
    assert cluster is not None
    return cluster


def load_cluster_profile(profile: str) -> Profile:
    """A profile that has a cluster.

    Raises:
        PlatformError: ``code="no_cluster"`` for a profile of this machine.
    """
    found = load_profile(profile)
    if found.cluster is None:
        raise PlatformError(
            f"profile {profile} is of this machine, not of a cluster",
            detail=f"{profile_file(profile)} has no section `cluster`",
            fix="name the profile of a cluster, for example cluster",
            code="no_cluster",
        )
    return found


def load_endpoints(profile: str) -> Endpoints:
    """The addresses of a profile, all absolute and reachable from here; its home is looked for (`homes`)."""
    from contracts.endpoints import Endpoints
    from deploy.cli.profiles.homes import find_home, remember

    found = load_profile(profile)
    if "FAIRLEAD_HOME" not in os.environ:
        found = found.model_copy(update={"home": str(find_home(found.home))})
    remember(Path(found.home).expanduser().absolute())
    if found.cluster is not None:
        from deploy.cli.cluster.port_forward import reached

        found = reached(found)
    return Endpoints(**found.model_dump(exclude={"cluster", "prices"})).resolved()


def deployment_file(profile: str, model: str) -> Path:
    """Where the values of a deployed model are, whether they exist or not; beside the profile's file."""
    return profile_file(profile).parent / "models" / f"{model}.yaml"


def load_deployment(profile: str, model: str) -> Deployment:
    """How a model is served on this machine; defaults for a model that has no file.

    The files of a cluster's profile are values of Helm releases, and say nothing about this machine.
    """
    from contracts.settings import load
    from deploy.cli.profiles.deployment import Deployment

    file = deployment_file(profile, model)
    if load_profile(profile).cluster is not None:
        return Deployment(model=model)
    values = load(Deployment, file if file.exists() else None, environ={})
    return values if values.model else values.model_copy(update={"model": model})

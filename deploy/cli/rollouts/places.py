"""Where the rollouts of a profile are: a folder of this machine, or the keepers of a cluster's releases."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from contracts.errors import PlatformError
from contracts.registry import ModelVersion, parse_ref
from deploy.cli.profiles.loading import load_endpoints, load_profile
from deploy.cli.releases.keeper import find_keeper, kept_models, need_keeper

if TYPE_CHECKING:
    from deploy.cli.cluster.cluster_settings import Cluster
    from services.rollout.store import Place, Request, Served, Store

_SILENT = 30.0  # seconds after which who serves a model is taken for gone
_PATIENCE = 30.0


class Rollouts(Protocol):
    """The rollouts of one profile."""

    def models(self) -> list[str]:
        """Models that are or were served with rollouts, sorted."""
        ...

    def read(self, name: str) -> Served | None:
        """How a model stands; None where it was never served with rollouts."""
        ...

    def is_served(self, name: str) -> bool:
        """Whether somebody brings versions of a model to traffic now."""
        ...

    def leave(self, name: str, request: Request) -> None:
        """Ask, where possible without waiting; asked again with the same id it is the same request."""
        ...

    def ask(self, name: str, request: Request) -> Served:
        """Ask, and wait until it is done.

        Raises:
            PlatformError: it was refused, or nobody serves the model with rollouts.
        """
        ...

    def place(self, version: ModelVersion) -> Place | None:
        """What a request must say of a version's bundle; None where it is found by the version."""
        ...


def open_rollouts(profile: str) -> Rollouts:
    """Those of a profile, given by name or by path."""
    found = load_profile(profile)
    return OnCluster(profile, found.cluster) if found.cluster is not None else Here(profile)


class Here:
    """Rollouts of ``fairlead serve MODEL --rollouts``."""

    def __init__(self, profile: str) -> None:
        from services.rollout.store import Store

        self._profile = profile
        self._store: Store = Store(load_endpoints(profile).scratch("rollouts"))

    def models(self) -> list[str]:
        return self._store.models()

    def read(self, name: str) -> Served | None:
        return self._store.read(name)

    def is_served(self, name: str) -> bool:
        served = self._store.read(name)
        return served is not None and time.time() - served.looked < _SILENT

    def leave(self, name: str, request: Request) -> None:
        self._store.ask(name, request)

    def place(self, version: ModelVersion) -> Place | None:
        return None

    def ask(self, name: str, request: Request) -> Served:
        if not self.is_served(name):
            known = ", ".join(one for one in self.models() if self.is_served(one)) or "none"
            raise PlatformError(
                f"nobody serves {name} with rollouts here",
                detail=f"served with rollouts in profile {self._profile}: {known}",
                fix=f"fairlead serve {name} --rollouts --profile {self._profile}, then again in another terminal",
                code="not_served",
            )
        self._store.ask(name, request)
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            served = self._store.read(name)
            if served is not None and request.id in served.answers:
                if (error := served.answers[request.id]) is not None:
                    raise PlatformError.from_dict(error)
                return served
            time.sleep(0.1)
        raise PlatformError(
            f"nobody answers for {name}",
            detail=f"waited for {_PATIENCE:.0f} s; who serves it next does what was asked",
            fix=f"see fairlead rollouts {name} --profile {self._profile}, "
            f"or start it again: fairlead serve {name} --rollouts",
            code="not_answered",
        )


class OnCluster:
    """Rollouts of releases that have a keeper."""

    def __init__(self, profile: str, cluster: Cluster) -> None:
        self._profile, self._cluster = profile, cluster

    def models(self) -> list[str]:
        return kept_models(self._cluster)

    def read(self, name: str) -> Served | None:
        keeper = find_keeper(self._cluster, name)
        return None if keeper is None else keeper.read()

    def is_served(self, name: str) -> bool:
        return find_keeper(self._cluster, name) is not None

    def leave(self, name: str, request: Request) -> None:
        self.ask(name, request)

    def ask(self, name: str, request: Request) -> Served:
        return need_keeper(self._profile, self._cluster, parse_ref(name)[0]).ask(request)

    def place(self, version: ModelVersion) -> Place | None:
        from services.rollout.store import Place

        return Place(source=version.path, digest=version.digest)

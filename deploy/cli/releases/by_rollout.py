"""``fairlead deploy`` by rollouts: they are switched on without a failed request, then a version is asked for."""

from __future__ import annotations

import json
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from contracts.errors import PlatformError
from deploy.cli.cluster.kube import Kube, output
from deploy.cli.cluster.pod_diagnosis import Trouble, pod_troubles
from deploy.cli.profiles.audit_record import actor
from deploy.cli.releases.keeper import ReleaseKeeper
from deploy.cli.releases.release_values import pin, with_rollouts

if TYPE_CHECKING:
    from collections.abc import Callable

    from contracts.bundle import Bundle
    from contracts.registry import ModelVersion
    from contracts.rollout_policy import Strategy
    from deploy.cli.cluster.cluster_settings import Profile
    from services.rollout.state import Rollout
    from services.rollout.store import Request, Served

_UPGRADES = 3  # the router is made, the Service selects it, what it selected before goes
_LOOK = 1.0


def has_rollouts(file: Path) -> bool:
    """Whether the values of a release switch rollouts on."""
    values = yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else None
    return bool(isinstance(values, dict) and (values.get("rollouts") or {}).get("enabled"))


def front_of(kube: Kube, release: str) -> str:
    """What the Service of a release selects: server, router, slot (behind a Gateway), or "" without a release."""
    parts = f"app.kubernetes.io/instance={release},app.kubernetes.io/component=server"
    services = kube.items("services", "-l", parts)
    selector = services[0]["spec"].get("selector") or {} if services else {}
    return str(selector.get("app.kubernetes.io/component", ""))


def values_text(file: Path, profile: Profile, kube: Kube, release: str, section: dict[str, str], first: Any) -> str:
    """The file's text with rollouts on; a release that is there keeps its version, a new one begins with `section`."""
    served = front_of(kube, release) != ""
    if served and not file.exists():
        given = json.loads(output(kube.helm("get", "values", release, "-o", "json")))
        section, first = given["model"], {key: value for key, value in given.items() if key != "model"}
    text = file.read_text(encoding="utf-8") if served and file.exists() else pin(file, section, first)
    tracking = profile.tracking if profile.tracking.startswith("http") else ""
    key = profile.cluster.storage.watchers.name if profile.cluster else ""
    return text if has_rollouts(file) else with_rollouts(text, file, profile.artifacts, tracking, key)


def apply_rollouts(kube: Kube, release: str, upgrade: Callable[[], None]) -> None:
    """Upgrade until the Service selects what rollouts put there, and nothing else answers; once where it does.

    Raises:
        PlatformError: ``code="not_deployed"``: the router did not become ready.
    """
    for _ in range(_UPGRADES):
        upgrade()
        parts = f"app.kubernetes.io/instance={release},app.kubernetes.io/component=server"
        if front_of(kube, release) in ("router", "slot") and not kube.items("deployments", "-l", parts):
            return
    raise PlatformError(
        f"the Service of release {release} does not select the router",
        detail=f"after {_UPGRADES} upgrades it selects: {front_of(kube, release) or 'nothing'}",
        fix=f"see fairlead diagnose {release}, then again",
        code="not_deployed",
    )


def start_request(version: ModelVersion, bundle: Bundle, strategy: Strategy, reason: str) -> Request:
    """The request for a version, with the rules of its bundle."""
    from services.rollout.store import Place, Request

    return Request(
        id=secrets.token_hex(8),
        command="start",
        actor=actor(),
        reason=reason,
        candidate=version.version,
        strategy=strategy,
        policy=bundle.document.rollout,
        place=Place(source=version.path, digest=version.digest),
    )


def bring(kube: Kube, release: str, keeper: ReleaseKeeper, request: Request, timeout: int) -> Served:
    """Ask for a version, and wait until it has all traffic.

    Raises:
        PlatformError: ``code="not_deployed"``: it was rolled back, or not ready in time, with what its pods said.
    """
    served = keeper.ask(request)
    seen: dict[str, Trouble] = {}
    until = time.monotonic() + timeout
    while (rollout := served.rollout) is not None and rollout.id == request.id:
        if rollout.phase in ("settling", "promoted"):
            return served
        if rollout.ended:
            raise _not_brought(rollout, seen)
        for trouble in pod_troubles(kube, f"app.kubernetes.io/instance={release},app.kubernetes.io/component=slot"):
            seen[trouble.what.partition(" ")[0]] = trouble
        if time.monotonic() > until:
            reason = f"not ready within {timeout} s"
            ended = keeper.ask(_steering("abort", reason)).rollout
            raise _not_brought(ended or rollout, seen)
        time.sleep(_LOOK)
        served = keeper.read()
    raise PlatformError(
        f"another rollout of {served.model} has begun meanwhile", fix=f"see fairlead rollouts {served.model}"
    )


def _steering(command: Any, reason: str) -> Request:
    from services.rollout.store import Request

    return Request(id=secrets.token_hex(8), command=command, actor=actor(), reason=reason)


def _not_brought(rollout: Rollout, seen: dict[str, Trouble]) -> PlatformError:
    last = next(reversed(seen.values()), None)
    said = f"\n  {last.what}: {last.state}\n  {last.said}".replace("\n", "\n  ") if last else ""
    return PlatformError(
        f"{rollout.model}:{rollout.candidate} was not deployed" + (f": {last.cause}" if last else ""),
        detail="; ".join(rollout.reasons) + said,
        fix=last.fix if last else f"see fairlead rollouts {rollout.model}",
        code="not_deployed",
    )


def previous_version(env: str, served: Served) -> str:
    """The version that a release had before the present one.

    Raises:
        PlatformError: ``code="no_history"``.
    """
    rollout = served.rollout
    if rollout is not None and rollout.phase == "promoted" and rollout.candidate == served.version:
        return rollout.champion
    raise PlatformError(
        f"nothing to roll {served.model} back to",
        detail=f"{served.model}:{served.version} came by no rollout that its keeper knows",
        fix=f"deploy a version by name: fairlead deploy {served.model}:VERSION --env {env} --strategy direct",
        code="no_history",
    )


def abort(keeper: ReleaseKeeper, reason: str) -> Served:
    """End the rollout that is under way: the champion has all traffic at once."""
    return keeper.ask(_steering("abort", reason))

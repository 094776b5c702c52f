"""Asks who serves a model with rollouts to start or to steer one, and waits for the answer."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from deploy.cli.profiles.audit_record import actor
from deploy.cli.profiles.loading import load_endpoints, load_profile
from deploy.cli.terminal.output import emit

if TYPE_CHECKING:
    from rich.console import Console

    from contracts.endpoints import Endpoints
    from contracts.registry import ModelVersion, Registry
    from contracts.rollout_policy import Strategy
    from services.controller.observations import RolloutSeen
    from services.rollout.decide import Command
    from services.rollout.store import Request, Served, Store

_SILENT = 30.0  # seconds after which who serves a model is taken for gone
_PATIENCE = 30.0


def is_asked_here(env: str, strategy: Strategy, ref: str) -> bool:
    """Whether the profile's rollouts are this machine's; false: its cluster is asked, which moves all traffic at once.

    Raises:
        PlatformError: ``code="no_rollouts"``: the strategy is none of the cluster's.
    """
    if load_profile(env).cluster is None:
        return True
    if strategy == "direct":
        return False
    raise PlatformError(
        f"profile {env} has a cluster, and there a version gets all traffic at once",
        detail=f"--strategy {strategy} is for profiles of this machine, served by fairlead serve MODEL --rollouts",
        fix=f"fairlead deploy {ref} --env {env} --strategy direct, or "
        f"fairlead deploy {ref} --env local --strategy {strategy}",
        code="no_rollouts",
    )


def is_served(endpoints: Endpoints, name: str) -> bool:
    """Whether somebody on this machine brings versions of a model to traffic now."""
    from services.rollout.store import Store

    served = Store(endpoints.scratch("rollouts")).read(name)
    return served is not None and time.time() - served.looked < _SILENT


def under_way(endpoints: Endpoints, name: str) -> str:
    """The rollout of a model in words; empty where there is none."""
    from services.rollout.store import Store

    served = Store(endpoints.scratch("rollouts")).read(name)
    rollout = served.rollout if served else None
    return "" if rollout is None or rollout.ended else f"{name}:{rollout.candidate}, {rollout.shown_phase}"


def how_it_ended(endpoints: Endpoints, name: str, identifier: str) -> RolloutSeen | None:
    """How the rollout of that request ended; None while it has not, and before it was looked at."""
    from services.controller.observations import RolloutSeen
    from services.rollout.store import Store

    served = Store(endpoints.scratch("rollouts")).read(name)
    rollout = served.rollout if served else None
    if served is None or rollout is None or identifier not in served.answers:
        return None
    if (error := served.answers[identifier]) is not None:
        return RolloutSeen(phase="not_started", said=PlatformError.from_dict(error).headline)
    if rollout.id != identifier:
        return RolloutSeen(phase="replaced", said=f"by that of {name}:{rollout.candidate}")
    if not rollout.ended:
        return None
    return RolloutSeen(
        phase=rollout.phase,
        said="; ".join(rollout.reasons),
        evidence={"candidate": rollout.candidate, "judged": rollout.transitions[-1].evidence},
    )


def leave_request(
    endpoints: Endpoints, ref: str, strategy: Strategy, identifier: str, who: str, reason: str, compared: bool = True
) -> None:
    """Ask for a rollout without waiting; asked again with the same `identifier` it is the same one.

    compared: whether answers that differ from the champion's are worse, as far as the policy says.
    """
    from contracts.registry import Registry
    from services.rollout.store import Store

    registry = Registry(endpoints)
    request = _request(registry, _let_through(registry, ref), strategy, identifier, who, reason)
    if not compared:
        answers = request.policy.answers.model_copy(update={"judged": False})
        request = request.model_copy(update={"policy": request.policy.model_copy(update={"answers": answers})})
    Store(endpoints.scratch("rollouts")).ask(registry.resolve(ref).name, request)


def start_rollout(env: str, ref: str, strategy: Strategy, reason: str, as_json: bool) -> None:
    """Ask for the rollout of a version that the gate has let through; its bundle has the rules."""
    from contracts.registry import CHALLENGER, Registry, parse_ref

    endpoints = load_endpoints(env)
    name, registry = parse_ref(ref)[0], Registry(endpoints)
    version = _let_through(registry, f"{name}@{CHALLENGER}" if ref == name else ref)
    request = _request(registry, version, strategy, secrets.token_hex(8), actor(), reason)
    served = _ask(env, name, request)

    def show(out: Console) -> None:
        out.print(f"[bold]{name}:{version.version}[/] is on its way ({strategy}), instead of {name}:{served.version}")
        out.print(f"Follow   fairlead rollouts {name} --profile {env} --follow")
        out.print(f"End it   fairlead rollouts abort {name} --profile {env} --reason WHY")

    emit(_document(served), as_json, show)


def _let_through(registry: Registry, ref: str) -> ModelVersion:
    version = registry.resolve(ref)
    if not version.gate_passed and not version.override:
        raise PlatformError(
            f"the gate refused {version.name}:{version.version}",
            fix=f'record why it may be served: fairlead promote {version.name}:{version.version} --override "REASON"',
            code="gate",
        )
    return version


def _request(
    registry: Registry, version: ModelVersion, strategy: Strategy, identifier: str, who: str, reason: str
) -> Request:
    from services.rollout.store import Request

    policy = registry.fetch(f"{version.name}:{version.version}").document.rollout
    told = {"actor": who, "reason": reason, "candidate": version.version, "strategy": strategy, "policy": policy}
    return Request.model_validate({"id": identifier, "command": "start", **told})


def steer_rollout(profile: str, name: str, command: Command, reason: str, as_json: bool) -> None:
    """Pause, resume, promote or abort the rollout of a model."""
    served = steered(profile, name, command, actor(), reason)

    def show(out: Console) -> None:
        assert served.rollout is not None
        phase = served.rollout.shown_phase.replace("_", " ")
        out.print(
            f"[bold]{name}:{served.rollout.candidate}[/] is {phase}, with {served.rollout.weight:g} % of the traffic"
        )

    emit(_document(served), as_json, show)


def steered(profile: str, name: str, command: Command, who: str, reason: str) -> Served:
    """Pause, resume, promote or abort the rollout of a model for `who`; how it stands then."""
    from services.rollout.store import Request

    return _ask(profile, name, Request(id=secrets.token_hex(8), command=command, actor=who, reason=reason))


def _ask(profile: str, name: str, request: Request) -> Served:
    """Leave a request and wait until it is answered.

    Raises:
        PlatformError: it was refused, or nobody serves the model with rollouts.
    """
    from contracts.registry import parse_ref
    from services.rollout.store import Store

    name = parse_ref(name)[0]
    store = Store(load_endpoints(profile).scratch("rollouts"))
    _check_served(store, profile, name)
    store.ask(name, request)
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        served = store.read(name)
        if served is not None and request.id in served.answers:
            if (error := served.answers[request.id]) is not None:
                raise PlatformError.from_dict(error)
            return served
        time.sleep(0.1)
    raise PlatformError(
        f"nobody answers for {name}",
        detail=f"waited for {_PATIENCE:.0f} s; who serves it next does what was asked",
        fix=f"see fairlead rollouts {name} --profile {profile}, or start it again: fairlead serve {name} --rollouts",
        code="not_answered",
    )


def _check_served(store: Store, profile: str, name: str) -> None:
    served = store.read(name)
    if served is None or time.time() - served.looked > _SILENT:
        known = [model for model in store.models() if (one := store.read(model)) and time.time() - one.looked < _SILENT]
        raise PlatformError(
            f"nobody serves {name} with rollouts here",
            detail=f"served with rollouts in profile {profile}: {', '.join(known) or 'none'}",
            fix=f"fairlead serve {name} --rollouts --profile {profile}, then again in another terminal",
            code="not_served",
        )


def _document(served: Served) -> dict[str, Any]:
    from deploy.cli.rollouts.listing import document

    return document(served)

"""Asks who serves a model with rollouts to start or to steer one, and waits for the answer."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from deploy.cli.profiles.audit_record import actor
from deploy.cli.profiles.loading import load_endpoints
from deploy.cli.rollouts.places import Rollouts, open_rollouts
from deploy.cli.terminal.output import emit

if TYPE_CHECKING:
    from rich.console import Console

    from contracts.registry import ModelVersion, Registry
    from contracts.rollout_policy import Strategy
    from services.controller.observations import RolloutSeen
    from services.rollout.decide import Command
    from services.rollout.store import Request, Served


def is_served(profile: str, name: str) -> bool:
    """Whether somebody brings versions of a model to traffic now."""
    return open_rollouts(profile).is_served(name)


def under_way(profile: str, name: str) -> str:
    """The rollout of a model in words; empty where there is none."""
    served = open_rollouts(profile).read(name)
    rollout = served.rollout if served else None
    return "" if rollout is None or rollout.ended else f"{name}:{rollout.candidate}, {rollout.shown_phase}"


def how_it_ended(profile: str, name: str, identifier: str) -> RolloutSeen | None:
    """How the rollout of that request ended; None while it has not, and before it was looked at."""
    from services.controller.observations import RolloutSeen

    served = open_rollouts(profile).read(name)
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


def hand_over(
    profile: str, ref: str, strategy: Strategy, identifier: str, who: str, reason: str, compared: bool = True
) -> None:
    """Ask for the rollout of a version; asked again with the same `identifier` it is the same one.

    compared: whether answers that differ from the champion's are worse, as far as the policy says.

    Raises:
        PlatformError: the gate refused the version; on a cluster, what its keeper says.
    """
    from contracts.registry import Registry

    registry, rollouts = Registry(load_endpoints(profile)), open_rollouts(profile)
    request = _request(registry, rollouts, _let_through(registry, ref), strategy, identifier, who, reason)
    if not compared:
        answers = request.policy.answers.model_copy(update={"judged": False})
        request = request.model_copy(update={"policy": request.policy.model_copy(update={"answers": answers})})
    rollouts.leave(registry.resolve(ref).name, request)


def start_rollout(env: str, ref: str, strategy: Strategy, reason: str, as_json: bool) -> None:
    """Ask for the rollout of a version that the gate has let through; its bundle has the rules."""
    version, served = started(env, ref, strategy, reason)
    name = version.name

    def show(out: Console) -> None:
        out.print(f"[bold]{name}:{version.version}[/] is on its way ({strategy}), instead of {name}:{served.version}")
        out.print(f"Follow   fairlead rollouts {name} --profile {env} --follow")
        out.print(f"End it   fairlead rollouts abort {name} --profile {env} --reason WHY")

    emit(_document(served), as_json, show)


def started(env: str, ref: str, strategy: Strategy, reason: str) -> tuple[ModelVersion, Served]:
    """Ask for the rollout of a version, for a plain name its newest; the version, and how the model stands then.

    Raises:
        PlatformError: the gate refused it, or nobody serves the model with rollouts.
    """
    from contracts.registry import CHALLENGER, Registry, parse_ref

    name, registry, rollouts = parse_ref(ref)[0], Registry(load_endpoints(env)), open_rollouts(env)
    version = _let_through(registry, f"{name}@{CHALLENGER}" if ref == name else ref)
    request = _request(registry, rollouts, version, strategy, secrets.token_hex(8), actor(), reason)
    return version, rollouts.ask(name, request)


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
    registry: Registry,
    rollouts: Rollouts,
    version: ModelVersion,
    strategy: Strategy,
    identifier: str,
    who: str,
    reason: str,
) -> Request:
    from services.rollout.store import Request

    policy = registry.fetch(f"{version.name}:{version.version}").document.rollout
    told = {"actor": who, "reason": reason, "candidate": version.version, "strategy": strategy, "policy": policy}
    return Request.model_validate({"id": identifier, "command": "start", "place": rollouts.place(version), **told})


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
    from contracts.registry import parse_ref
    from services.rollout.store import Request

    name = parse_ref(name)[0]
    return open_rollouts(profile).ask(name, Request(id=secrets.token_hex(8), command=command, actor=who, reason=reason))


def _document(served: Served) -> dict[str, Any]:
    from deploy.cli.releases.rollout_page import document

    return document(served)

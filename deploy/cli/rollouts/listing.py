"""``fairlead rollouts``: what runs, how it is judged, and why it is where it is."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from deploy.cli.rollouts.places import Rollouts, open_rollouts
from deploy.cli.terminal.output import console, emit, seconds, table, write_json

if TYPE_CHECKING:
    from rich.console import Console, Group

    from services.rollout.evidence import Verdict
    from services.rollout.state import Rollout
    from services.rollout.store import Served

_LOOK = 1.0


def show_rollouts(profile: str, name: str | None, follow: bool, as_json: bool) -> None:
    """All models that are or were served with rollouts, or one with its evidence; `follow` shows it until it ends."""
    store = open_rollouts(profile)
    if name is None and follow:
        raise PlatformError("--follow needs a model", fix="fairlead rollouts MODEL --follow", code="bad_option")
    if name is None:
        served = [one for model in store.models() if (one := store.read(model)) is not None]
        emit([document(one) for one in served], as_json, lambda out: _list(out, served, profile))
    elif follow:
        _follow(store, name, profile, as_json)
    else:
        one = _read(store, name, profile)
        emit(document(one), as_json, lambda out: out.print(page(one)))


def _read(store: Rollouts, name: str, profile: str) -> Served:
    served = store.read(name)
    if served is None:
        raise PlatformError(
            f"{name} was never served with rollouts",
            detail=f"models that were, in profile {profile}: {', '.join(store.models()) or 'none'}",
            fix=f"fairlead serve {name} --rollouts --profile {profile}, "
            f"or on a cluster fairlead deploy {name}:VERSION --env {profile} --strategy canary",
            code="no_rollout",
        )
    return served


def document(served: Served) -> dict[str, Any]:
    """A served model for ``--json``: its versions with their traffic, and its rollout without what only we read."""
    rollout = served.rollout
    made: dict[str, Any] = {
        "model": served.model,
        "version": served.version,
        "url": served.url,
        "looked": _moment(served.looked),
        "rollout": None,
    }
    if rollout is not None:
        kept = rollout.model_dump(mode="json", exclude={"trails", "pending", "last", "recorded"})
        shown = {"phase": rollout.shown_phase, "weight": rollout.weight, "samples": _samples(rollout)}
        made["rollout"] = {**kept, **shown, "began": _moment(rollout.began), "step_began": _moment(rollout.step_began)}
    return made


def _moment(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _samples(rollout: Rollout) -> dict[str, float]:
    champion, candidate = rollout.totals
    return {rollout.champion: champion.requests, rollout.candidate: candidate.requests}


def _list(out: Console, served: list[Served], profile: str) -> None:
    if not served:
        out.print(f"No model was served with rollouts yet: fairlead serve MODEL --rollouts --profile {profile}")
        return
    rows = table("model", "version", "rollout", "phase", "traffic", "why", right=("traffic",))
    for one in served:
        rollout = one.rollout
        if rollout is None:
            rows.add_row(one.model, one.version, "-", "-", "-", "-")
        else:
            phase, traffic = rollout.shown_phase.replace("_", " "), f"{rollout.weight:g} %"
            rows.add_row(one.model, one.version, rollout.candidate, phase, traffic, "; ".join(rollout.reasons))
    out.print(rows)


def page(served: Served) -> Group:
    """One model: its versions, what each criterion says, and why it is where it is."""
    from rich.console import Group
    from rich.text import Text

    rollout = served.rollout
    if rollout is None:
        return Group(Text(f"{served.model}:{served.version} has all traffic, and had no rollout yet."))
    champion, candidate = rollout.totals
    versions = table(
        "version", "traffic", "requests", "errors", "mean", right=("traffic", "requests", "errors", "mean")
    )
    shares = (100 - rollout.weight, rollout.weight)
    for name, share, counts in zip((rollout.champion, rollout.candidate), shares, (champion, candidate), strict=True):
        mean = f"{1000 * counts.seconds / counts.requests:.2f} ms" if counts.requests else "-"
        errors = f"{counts.errors + counts.unreached:.0f}"
        traffic = "copies" if rollout.mirrors and name == rollout.candidate else f"{share:g} %"
        versions.add_row(f"{served.model}:{name}", traffic, f"{counts.requests:.0f}", errors, mean)
    judged = table("judged", "champion", "candidate", "says", "worse", "no worse", right=("worse", "no worse"))
    for one in rollout.verdicts:
        says = f"{one.says} ({one.share})" if one.share and one.says != "proven" else one.says
        against = f"{min(one.worse, 1e9):.2g} of {one.worse_needed:.0f}"
        promise = f"{min(one.within, 1e9):.2g} of {one.within_needed:.0f}"
        judged.add_row(one.criterion, _value(one, True), _value(one, False), says, against, promise)
    phase = rollout.shown_phase.replace("_", " ")
    in_step = seconds(max(0.0, (rollout.looked if not rollout.ended else rollout.step_began) - rollout.step_began))
    head = f"{served.model}:{rollout.candidate}, {rollout.strategy}: {phase}"
    head += "" if rollout.ended else f", for {in_step}, {rollout.step_samples:.0f} requests in this step"
    return Group(Text(head, style="bold"), versions, judged, *[Text(f"- {reason}") for reason in rollout.reasons])


def _value(one: Verdict, champion: bool) -> str:
    value = one.champion if champion else one.candidate
    bounds = one.champion_interval if champion else one.candidate_interval
    if value is None:
        return "-"
    if one.criterion == "latency":
        return f"{1000 * value:.2f} ms"
    return f"{value:.2%}" + (f" ({bounds[0]:.2%} to {bounds[1]:.2%})" if bounds else "")


def _follow(store: Rollouts, name: str, profile: str, as_json: bool) -> None:
    """Show it again and again; where there is no terminal, whenever phase or reasons change."""
    from rich.live import Live

    out = console()
    served, said = _read(store, name, profile), ""
    live = Live(page(served), console=out, auto_refresh=False) if out.is_terminal and not as_json else None
    with live or _nothing():
        while True:
            rollout = served.rollout
            if live is not None:
                live.update(page(served), refresh=True)
            elif rollout is not None and (now := f"{rollout.shown_phase} {rollout.weight:g}") != said:
                said = now
                write_json(document(served)) if as_json else out.print(page(served))
            if rollout is None or rollout.ended:
                return
            time.sleep(_LOOK)
            served = _read(store, name, profile)


def _nothing() -> Any:
    import contextlib

    return contextlib.nullcontext()

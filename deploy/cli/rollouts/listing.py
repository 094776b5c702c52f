"""``fairlead rollouts``: what runs, how it is judged, and why it is where it is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from deploy.cli.releases.rollout_page import document, page
from deploy.cli.rollouts.places import Rollouts, open_rollouts
from deploy.cli.terminal.output import console, emit, table, write_json

if TYPE_CHECKING:
    from rich.console import Console

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
        one = read_served(store, name, profile)
        emit(document(one), as_json, lambda out: out.print(page(one)))


def read_served(store: Rollouts, name: str, profile: str) -> Served:
    """How a model stands that is or was served with rollouts.

    Raises:
        PlatformError: ``code="no_rollout"``: it never was.
    """
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


def _follow(store: Rollouts, name: str, profile: str, as_json: bool) -> None:
    """Show it again and again; where there is no terminal, whenever phase or reasons change."""
    from rich.live import Live

    out = console()
    served, said = read_served(store, name, profile), ""
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
            served = read_served(store, name, profile)


def _nothing() -> Any:
    import contextlib

    return contextlib.nullcontext()

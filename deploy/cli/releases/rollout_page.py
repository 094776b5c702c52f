"""A model's rollout as a page and as a document: its versions, what each criterion says, and why it is where it is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from deploy.cli.terminal.output import seconds, table

if TYPE_CHECKING:
    from rich.console import Group

    from services.rollout.evidence import Verdict
    from services.rollout.state import Rollout
    from services.rollout.store import Served


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

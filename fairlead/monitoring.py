"""Deployed models under watch: drift, rollouts, and the record of who did what."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from contracts.errors import PlatformError
from fairlead.guard import endpoints_of, profile_name, told
from fairlead.progress import in_notebook
from fairlead.tables import Listing, bar, heading, html_table, stairs, text_table

if TYPE_CHECKING:
    from contracts.audit import Entry

_LOOK, _AGAIN = 0.5, 2.0  # seconds between looks at a rollout that is followed, and at a log


@dataclass(frozen=True)
class DriftReport:
    """What a model is asked and answers, beside what its bundle calls normal.

    Attributes:
        document: all of it, with each version; what ``fairlead monitor MODEL --once --json`` prints.
    """

    document: Mapping[str, Any] = field(repr=False)

    @property
    def model(self) -> str:
        return str(self.document["model"])

    @property
    def drifted(self) -> tuple[str, ...]:
        """Inputs and answers that have changed, in any version that is served."""
        return tuple(self.document["drifted"])

    @property
    def rows(self) -> int:
        """Rows that were read, of all versions together."""
        return sum(one["rows"] for one in self.document["versions"].values())

    def inputs(self, version: str) -> Listing[tuple[str, Mapping[str, Any]]]:
        """Each input of a version: rows seen, PSI (population stability index), what chance alone makes of it."""
        one = self.document["versions"][version]
        most = max((found["psi"] for found in one["inputs"].values()), default=0.0)

        def cells(item: tuple[str, Mapping[str, Any]]) -> dict[str, Any]:
            name, found = item
            said = "changed" if found["drifted"] else "-"
            figures = {"rows": found["rows"], "PSI": found["psi"], "noise": found["noise_floor"], "JS": found["js"]}
            return {"input": name, **figures, "verdict": said, "": bar(found["psi"], most)}

        title = f"{self.model}:{version}, {one['rows']:,} rows until {one['newest']}"
        return Listing(one["inputs"].items(), cells, [one["note"] or "nothing is watched"], title)

    def _latest_first(self) -> list[Listing[tuple[str, Mapping[str, Any]]]]:
        found = self.document["versions"]
        return [self.inputs(name) for name in sorted(found, key=lambda one: found[one]["newest"] or "", reverse=True)]

    def __repr__(self) -> str:
        return "\n".join(map(repr, self._latest_first()))

    def _repr_html_(self) -> str:
        return "".join(one._repr_html_() for one in self._latest_first())


@told
def monitor(
    model: str,
    *,
    until: Callable[[DriftReport], object] = lambda report: True,
    timeout: float = 60.0,
    profile: str | None = None,
) -> DriftReport:
    """Read what is new in the prediction log of a model, and compare it with what was normal in training.

    Args:
        until: look again until it holds of the report, as ``lambda report: report.drifted``. The log is written a
            moment after an answer, and a change is told from chance by panes of 10 seconds. After `timeout` seconds
            the report is what there is.

    Raises:
        PlatformError: ``code="no_predictions"``: nothing is logged yet; or the log cannot be read.
    """
    end = time.monotonic() + timeout
    found = _looked(model, profile)
    while not until(found) and time.monotonic() < end:
        time.sleep(_AGAIN)
        found = _looked(model, profile)
    return found


def _looked(model: str, profile: str | None) -> DriftReport:
    from deploy.cli.monitoring.watching import look_once

    report = look_once(endpoints_of(profile), model)[model]
    if error := report.get("error"):
        raise PlatformError.from_dict(dict(error))
    return DriftReport(report)


@dataclass(frozen=True)
class Rollout:
    """A model that is served with rollouts, and its last or present one.

    Attributes:
        document: all of it; what ``fairlead rollouts MODEL --json`` prints.
    """

    document: Mapping[str, Any] = field(repr=False)
    profile: str | None = field(default=None, repr=False)

    @property
    def model(self) -> str:
        return str(self.document["model"])

    @property
    def phase(self) -> str:
        """starting, running, paused, settling, or how it ended: done, rolled_back, aborted; "" without a rollout."""
        return str(self._rollout.get("phase", ""))

    @property
    def weight(self) -> float:
        """Percent of the traffic that the candidate has."""
        return float(self._rollout.get("weight", 0.0))

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is where it is."""
        return tuple(self._rollout.get("reasons", ()))

    @property
    def ended(self) -> bool:
        """Whether nothing is under way."""
        return bool(self.document["ended"])

    @property
    def transitions(self) -> Listing[Mapping[str, Any]]:
        """What it did so far, and why."""
        return Listing(self._rollout.get("transitions", []), _transition, ["no rollout yet"])

    @property
    def verdicts(self) -> Listing[Mapping[str, Any]]:
        """What is judged, with the values of champion and candidate."""
        shown = ("criterion", "champion", "candidate", "says")
        return Listing(
            self._rollout.get("verdicts", []), lambda one: {name: one[name] for name in shown}, ["nothing is judged"]
        )

    @told
    def refresh(self) -> Rollout:
        """How it stands now."""
        return _read(self.model, self.profile)

    @told
    def follow(self, timeout: float = 3600.0, *, progress: bool = True) -> Rollout:
        """Wait until it has ended, and show it meanwhile.

        Raises:
            PlatformError: ``code="not_ended"``: it has not within `timeout` seconds.
        """

        until, now, shown = time.monotonic() + timeout, self.refresh(), _Shown() if progress else None
        while not now.ended:
            if time.monotonic() > until:
                raise PlatformError(
                    f"the rollout of {self.model} has not ended within {timeout:.0f} s",
                    detail=f"it is {now.phase} with {now.weight:g} % of the traffic: {'; '.join(now.reasons)}",
                    fix="send requests, which it is judged by, and follow it again",
                    code="not_ended",
                )
            if shown:
                shown.show(now)
            time.sleep(_LOOK)
            now = self.refresh()
        if shown:
            shown.show(now)
        return now

    @property
    def _rollout(self) -> Mapping[str, Any]:
        return self.document["rollout"] or {}

    def cells(self) -> dict[str, Any]:
        """A row of a table of rollouts."""
        candidate = self._rollout.get("candidate", "")
        versions = {"model": self.model, "version": self.document["version"], "candidate": candidate}
        return {
            **versions,
            "phase": self.phase.replace("_", " "),
            "traffic": f"{self.weight:g} %",
            "why": "; ".join(self.reasons),
        }

    def __repr__(self) -> str:
        return "\n".join([text_table([self.cells()]), *([repr(self.transitions)] if self.transitions else [])])

    def _repr_html_(self) -> str:
        points = [(one["at"], one["weight"]) for one in self._rollout.get("transitions", [])]
        plot = stairs(points)
        caption = heading("Traffic of the candidate") if plot else ""
        tables = (self.verdicts._repr_html_() + self.transitions._repr_html_()) if points else ""
        return html_table([self.cells()]) + caption + plot + tables


def _transition(one: Mapping[str, Any]) -> dict[str, Any]:
    moment = time.strftime("%H:%M:%S", time.gmtime(one["at"]))
    return {"time": moment, "did": one["action"], "traffic": f"{one['weight']:g} %", "why": one["reason"]}


class _Shown:
    """One output of a cell that changes; elsewhere a line for each transition."""

    def __init__(self) -> None:
        self._told = 0
        self._output: Any = None

    def show(self, now: Rollout) -> None:
        if not in_notebook():
            for one in now.transitions[self._told :]:
                print(*_transition(one).values(), sep="  ", flush=True)  # noqa: T201  progress in a console
            self._told = len(now.transitions)
        elif self._output is None:
            from IPython.display import display

            self._output = display(now, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._output.update(now)


def _read(name: str, profile: str | None) -> Rollout:
    from deploy.cli.rollouts.listing import read_served
    from deploy.cli.rollouts.places import open_rollouts

    where = profile_name(profile)
    return _seen(read_served(open_rollouts(where), name, where), profile)


def _seen(served: Any, profile: str | None) -> Rollout:
    from deploy.cli.releases.rollout_page import document

    ended = served.rollout is None or served.rollout.ended
    return Rollout({**document(served), "ended": ended}, profile)


@told
def rollouts(name: str | None = None, *, profile: str | None = None) -> Listing[Rollout]:
    """Models that are or were served with rollouts, or one of them, with what is judged and why.

    Raises:
        PlatformError: ``code="no_rollout"``: the model never was.
    """
    from deploy.cli.rollouts.places import open_rollouts

    names = [name] if name else open_rollouts(profile_name(profile)).models()
    empty = ["No model was served with rollouts yet: fairlead.serve(MODEL, rollouts=True)"]
    return Listing((_read(one, profile) for one in names), Rollout.cells, empty)


@told
def roll_out(
    ref: str,
    *,
    strategy: Literal["canary", "shadow", "direct"] = "canary",
    reason: str = "",
    profile: str | None = None,
) -> Rollout:
    """Bring a version to a model that is served with rollouts on this machine; `Rollout.follow` waits for its end.

    Args:
        ref: name:version or name@alias; a plain name is its newest version.
        strategy: canary: more traffic step by step; shadow: copies of requests first; direct: all at once.
        reason: why, for the audit log.

    Raises:
        PlatformError: the gate refused the version, nobody serves the model with rollouts, or the profile is a cluster.
    """
    from deploy.cli.profiles.loading import load_profile
    from deploy.cli.rollouts.asking import started

    name = profile_name(profile)
    if load_profile(name).cluster is not None:
        raise PlatformError(
            f"profile {name} is a cluster, whose releases the command line changes",
            fix=f"fairlead deploy {ref} --env {name} --strategy {strategy}",
            code="bad_option",
        )
    return _seen(started(name, ref, strategy, reason)[1], profile)


@told
def audit(subject: str | None = None, since: str = "", *, profile: str | None = None) -> Listing[Entry]:
    """Who or what did something to models, when and why; of one model, task or NAME:VERSION.

    Args:
        since: a moment (ISO 8601), or so long ago: 90m, 12h, 7d, 2w.
    """
    from contracts.audit import AuditLog
    from deploy.cli.loop.audit_trail import entries, why

    def cells(entry: Entry) -> dict[str, Any]:
        moment = entry.time[:19].replace("T", " ")
        return {"time": moment, "who": entry.actor, "did": entry.action, "to": entry.subject, "why": why(entry)}

    log = AuditLog.of(endpoints_of(profile))
    return Listing(entries(log, subject, since), cells, [f"Nothing in the audit log {log.place}"])

"""What monitor and controller have written: other programs' documents, of which whatever is odd is left out."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from contracts import storage
from contracts.errors import PlatformError
from services.console.documents import Bars, Drift, Loop, Measure, Window
from services.console.formats import moment
from services.controller.state import States

NOBODY = "Nobody watches this model yet; shown is the training data."
NO_WINDOW = "No window was judged yet; shown is the training data."
_FEW = 0.005  # the share of odd values from which on a plot shows them
UNREADABLE = "The monitor's report cannot be read; shown is the training data."


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What the monitor says of one version; `problem` is a text of the console's catalogue.

    Attributes:
        said: by input, as the report has it; a list of models needs no more of it than how many have changed.
    """

    said: Mapping[str, Any] = field(default_factory=dict)
    window: str = ""
    problem: str = ""
    quality: Sequence[Measure] = ()

    @functools.cached_property
    def inputs(self) -> list[Drift]:
        """Each input, what has changed most first."""
        found = [_drift(name, one) for name, one in self.said.items()]
        return sorted(found, key=lambda drift: (not drift.detected, -(drift.psi or 0.0)))

    @property
    def drifted(self) -> list[str]:
        """Names of what has changed."""
        return [name for name, one in self.said.items() if isinstance(one, dict) and one.get("drifted")]


def report_place(predictions: str, model: str) -> str:
    """Where the monitor keeps its report of a model."""
    return storage.join(predictions, model, "monitor", "report.json")


def read_report(place: str, version: str) -> Watched | None:
    """The monitor's report of a version, ``VERSION@DIGEST``; None where nobody watches the model."""
    try:
        found = json.loads(storage.read_bytes(place))
    except PlatformError as err:
        return None if err.code == "not_found" else Watched(problem=UNREADABLE)
    except ValueError:
        return Watched(problem=UNREADABLE)
    one = _version(found, version)
    if one is None:
        return Watched(problem=UNREADABLE)
    if not isinstance(one, dict) or not one:
        return Watched(problem=NO_WINDOW)
    inputs = one.get("inputs")
    said = inputs if isinstance(inputs, dict) else {}
    begins = [found["window_begins"] for found in said.values() if isinstance(found, dict) and "window_begins" in found]
    moments = [begins[0] if begins else None, one.get("newest")]
    parts = [moment(str(given)) for given in moments if given]
    rows = f"{one['rows']:,}" if isinstance(one.get("rows"), int) else ""
    facts = [
        f"{' … '.join(parts)} UTC" if parts else "",
        f"n = {rows}" if rows else "",
        str(one.get("reference") or ""),
        str(one.get("note") or ""),
    ]
    window = " · ".join(filter(None, facts))
    return Watched(said=said, window=window, problem="" if said else NO_WINDOW, quality=_quality(one))


@dataclass(frozen=True, kw_only=True)
class Past:
    """What the monitor has kept of a version: its windows, and the PSI of each input by time, oldest first."""

    windows: Sequence[Window] = ()
    psi: Mapping[str, Sequence[tuple[str, float]]] = field(default_factory=dict)


def history_place(predictions: str, model: str) -> str:
    """Where the monitor keeps how it was."""
    return storage.join(predictions, model, "monitor", "history.json")


def read_history(place: str, version: str) -> Past:
    """How a version was, ``VERSION@DIGEST``; nothing where nobody has kept it, or it cannot be read."""
    try:
        found = json.loads(storage.read_bytes(place))
    except (PlatformError, ValueError):
        return Past()
    one = _version(found, version)
    windows = [_window(given) for given in _dicts(one, "quality")]
    psi: dict[str, list[tuple[str, float]]] = {}
    for point in _dicts(one, "drift"):
        far = point.get("psi")
        for name, given in (far if isinstance(far, dict) else {}).items():
            if (value := number(given)) is not None:
                psi.setdefault(name, []).append((str(point.get("time")), value))
    return Past(windows=[window for window in windows if window.measures], psi=psi)


def _window(given: Mapping[str, Any]) -> Window:
    rows, seconds = number(given.get("rows")) or 0, number(given.get("seconds")) or 0
    measures = _quality({"quality": given.get("metrics")})
    return Window(begin=str(given.get("begin") or ""), hours=round(seconds / 3600), rows=int(rows), measures=measures)


def _dicts(given: Any, name: str) -> list[dict[str, Any]]:
    found = given.get(name) if isinstance(given, dict) else None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _version(found: Any, version: str) -> Any:
    """What a document says of ``VERSION@DIGEST``; a release may call it otherwise: then the digest finds it."""
    versions = found.get("versions") if isinstance(found, dict) else None
    if not isinstance(versions, dict):
        return None
    number, _, digest = version.partition("@")
    same = (one for one in versions.values() if isinstance(one, dict) and one.get("digest"))
    return versions.get(number) or next((one for one in same if digest.startswith(str(one["digest"]))), {})


def number(given: Any) -> float | None:
    """A finite number of a document of another program; None where it is something else."""
    good = isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given)
    return float(given) if good else None


def _drift(name: str, given: Any) -> Drift:
    said: Mapping[str, Any] = given if isinstance(given, dict) else {}
    kind, bins = str(said.get("kind", "")), said.get("bins")
    kept = _worth_a_bar(bins, said.get("then"), said.get("now"))
    foreign = number(said.get("new_or_out_of_range"))
    missing = [number(said.get(key)) for key in ("missing", "absent")]
    return Drift(
        name=name,
        kind=kind,
        detected=bool(said["drifted"]) if "drifted" in said else None,
        psi=number(said.get("psi")),
        js=number(said.get("js")),
        missing=sum(value or 0.0 for value in missing) if any(value is not None for value in missing) else None,
        new_categories=foreign if kind == "category" else None,
        out_of_range=None if kind == "category" else foreign,
        then=_bars(bins, said.get("then"), kept),
        now=_bars(bins, said.get("now"), kept),
    )


def _worth_a_bar(bins: Any, *shares: Any) -> list[int]:
    """Places of the bins that are shown: those of odd values, in parentheses, only where there are some."""
    if not isinstance(bins, list):
        return []
    lists = [one for one in shares if isinstance(one, list) and len(one) == len(bins)]
    return [
        at
        for at, label in enumerate(bins)
        if not str(label).startswith("(") or any((number(one[at]) or 0.0) >= _FEW for one in lists)
    ]


def _bars(labels: Any, shares: Any, kept: Sequence[int]) -> Bars | None:
    if not isinstance(labels, list) or not isinstance(shares, list) or len(labels) != len(shares):
        return None
    return Bars(labels=[str(labels[at]) for at in kept], shares=[number(shares[at]) or 0.0 for at in kept])


def _quality(version: Mapping[str, Any]) -> list[Measure]:
    """Measures by labels that came, those over all rows first."""
    given = version.get("quality")
    found = []
    for one in given if isinstance(given, list) else []:
        if isinstance(one, dict) and (value := number(one.get("value"))) is not None:
            low, high, rows = number(one.get("low")), number(one.get("high")), number(one.get("rows"))
            found.append(
                Measure(
                    metric=str(one.get("metric")), value=value, low=low, high=high, part=str(one.get("slice") or ""),
                    rows=None if rows is None else int(rows), reference=number(one.get("reference")),
                    dropped=one.get("dropped") is True,
                )
            )  # fmt: skip
    return sorted(found, key=lambda one: bool(one.part))


def read_loop(place: str, model: str) -> Loop | None:
    """What the controller does about a model; None where it is not watched, or the state cannot be read."""
    try:
        state = States(place).read(model)
    except PlatformError:
        return None
    if state is None:
        return None
    next_time = state.next_time.isoformat(timespec="seconds") if state.next_time else ""
    reason = "; ".join(filter(None, [state.reason, state.trouble]))
    return Loop(phase=state.phase, reason=reason, next_time=next_time, run=state.run)

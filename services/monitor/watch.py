"""One version of a model under watch: its records are counted, and the counts are compared with its reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from contracts.bundle import Input
from contracts.content import SEPARATOR
from services.feedback.records import Prediction
from services.monitor.divergence import Places
from services.monitor.first_day import FirstDay
from services.monitor.panes import Panes
from services.monitor.reference import ABSENT, FOREIGN, LACKED, MISSING, ODD, SILENT, UNSAID, Column, column_of
from services.monitor.rules import Rules
from services.monitor.tested import ColumnTests, Verdict
from services.problems.base import Serving

_AHEAD = 60.0  # seconds that a writer's clock may be ahead
_FORM = 1  # of the state
_NO_TRAITS = frozenset({"chars", "hash"})  # what the log keeps of a text beside its traits
_ROWS_UNKNOWN = 200  # rows that an older baseline is taken to have
SHARES = {"missing": MISSING, "new_or_out_of_range": FOREIGN, "absent": LACKED, "other_type": ODD}


@dataclass(frozen=True, kw_only=True)
class Normal:
    """What a bundle says is normal.

    Attributes:
        columns: as `contracts.baseline` describes them, by name; empty: the first day says it.
        rows: that they were counted from; None: the bundle does not say.
        inputs: of the signature, by name.  source: what the reference is, in words.
    """

    columns: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    rows: int | None = None
    inputs: Mapping[str, Input] = field(default_factory=dict)
    source: str = "the bundle's baseline"


class VersionWatch:
    """Counts the records of one version, and tests them; a state that is written and read goes on as it was.

    Attributes:
        rows, late, future: records so far, those behind the watermark, and those with a time that is yet to come.
        unwatched: why columns are not watched, by name.
    """

    def __init__(self, normal: Normal, serving: Serving | None, rules: Rules) -> None:
        self.normal, self._serving, self._rules = normal, serving, rules
        self.rows = self.late = self.future = self.expired = 0
        self.unwatched: dict[str, str] = {}
        self._since: dict[str, str] = {}
        self._first: FirstDay | None = None
        self._learned: dict[str, Any] = {}
        self.note = ""
        if normal.columns:
            rows = normal.rows or _ROWS_UNKNOWN
            if normal.rows is None:
                self.note = f"the baseline has no number of rows; it is taken to have {rows}"
            self._refer(normal.columns, rows, normal.inputs)
        else:
            self._first = FirstDay()
            self._refer({}, 0, {})

    def _refer(self, described: Mapping[str, Any], rows: int, inputs: Mapping[str, Input]) -> None:
        found = {name: column_of(name, one, inputs.get(name)) for name, one in described.items()}
        self.unwatched = {name: one for name, one in found.items() if isinstance(one, str)}
        columns = [one for one in found.values() if isinstance(one, Column)]
        parts = {name for name in found if name.startswith("(") or SEPARATOR in name}
        self._inputs = frozenset(inputs) | (found.keys() - parts)
        self._tester = ColumnTests(columns, rows, self._rules)
        self.reference_rows = rows
        self._panes = Panes(self._tester.bins, self._rules.panes)

    @property
    def learning(self) -> bool:
        """Whether the first day is not complete yet."""
        return self._first is not None

    @property
    def newest(self) -> float:
        """The time of the newest record; 0 before the first."""
        return 0.0 if self._panes.newest is None else self._panes.newest * self._rules.pane_seconds

    def add(self, records: Sequence[Prediction], now: float) -> None:
        """Count records; each belongs to the pane of its event time, those from the future to the pane of now."""
        if not records:
            return
        times = np.array([one.time.timestamp() for one in records])
        rows = [self._row(one) for one in records]
        self.rows += len(records)
        self.future += int((times > now + _AHEAD).sum())
        times = np.minimum(times, now + _AHEAD)
        newest = self._panes.newest
        if newest is not None:
            self.late += int((times < newest * self._rules.pane_seconds - self._rules.late_seconds).sum())
        if self._first is not None:
            self._first.add(times.tolist(), rows)
            newest_pane = int(times.max() // self._rules.pane_seconds)
            self._panes.newest = newest_pane if newest is None else max(newest, newest_pane)
            self._complete()
            return
        self._count(np.floor_divide(times, self._rules.pane_seconds).astype(np.int64), rows)

    def _row(self, record: Prediction) -> dict[str, Any]:
        row = dict(record.inputs)
        for name, value in record.inputs.items():
            if isinstance(value, Mapping):
                row |= {f"{name}{SEPARATOR}{trait}": one for trait, one in value.items() if trait not in _NO_TRAITS}
        if self._serving is not None:
            row |= {f"({name})": one for name, one in self._serving.watched(record.answer).items()}
        return row

    def _count(self, panes: Places, rows: Sequence[Mapping[str, Any]]) -> None:
        bins = self._tester.bins
        placed = np.empty((len(self._tester.columns), len(rows)), dtype=np.int64)
        for at, column in enumerate(self._tester.columns):
            lacking = ABSENT if column.name in self._inputs else SILENT
            places = column.place([row.get(column.name, lacking) for row in rows])
            placed[at] = np.where(places == UNSAID, bins, places + self._tester.starts[at])
        for pane in np.unique(panes):
            counts = np.bincount(placed[:, panes == pane].ravel(), minlength=bins + 1)[:bins]
            if not self._panes.add(int(pane), counts):
                self.expired += int((panes == pane).sum())

    def _complete(self) -> None:
        """Make the first day the reference, when it is complete."""
        if self._first is not None and self._first.complete(self._rules):
            self._learned = {"columns": self._first.described(), "rows": self._first.sample_rows}
            self._first = None
            self._refer(self._learned["columns"], self._learned["rows"], self.normal.inputs)

    def report(self, now: float) -> dict[str, Any]:
        """What is to be said of this version: each column now and then, and whether it has changed."""
        newest = self._panes.newest
        seconds = self._rules.pane_seconds
        quiet = newest is None or now - (newest + 1) * seconds > self._rules.window_seconds
        about = {
            "reference": "its first full day" if self._learned or self.learning else self.normal.source,
            "reference_rows": self.reference_rows,
            "note": self._note(quiet, newest),
            "learning": self.learning,
            "quiet": quiet,
            "rows": self.rows,
            "late": self.late,
            "from_the_future": self.future,
            "older_than_the_horizon": self.expired,
            "newest": None if newest is None else _stamp(min((newest + 1) * seconds, now)),
            "unwatched": dict(self.unwatched),
        }
        if newest is None or not self._tester.columns or not len(self._panes.windows()[0]):
            return {**about, "inputs": {}, "drifted": []}
        verdict = self._tester.test(self._panes)
        return {**about, **self._said(verdict, quiet)}

    def _note(self, quiet: bool, newest: int | None) -> str:
        notes = [self.note] if self.note else []
        if self._first is not None:
            notes.append(f"no baseline: its first full day becomes the reference, {self._first.rows} rows so far")
        if quiet:
            last = "ever" if newest is None else f"since {_stamp((newest + 1) * self._rules.pane_seconds)}"
            notes.append(f"no traffic {last}" if newest is not None else "no traffic yet")
        return "; ".join(notes)

    def _said(self, verdict: Verdict, quiet: bool) -> dict[str, Any]:
        inputs: dict[str, Any] = {}
        for at, column in enumerate(self._tester.columns):
            changed = bool(verdict.changed[at]) and not quiet
            begin = _stamp(float(verdict.since[at]) * self._rules.pane_seconds)
            if changed:
                self._since.setdefault(column.name, begin)
            else:
                self._since.pop(column.name, None)
            start = int(self._tester.starts[at])
            counts = verdict.counts[start : start + len(column.bins)]
            now = counts / max(float(counts.sum()), 1.0)
            inputs[column.name] = {
                "kind": column.kind,
                "rows": int(verdict.rows[at]),
                "window_begins": begin,
                "psi": round(float(verdict.psi[at]), 6),
                "noise_floor": round(float(verdict.floor[at]), 6),
                "js": round(float(verdict.js[at]), 6),
                "evidence": round(float(max(verdict.evidence[at], -1e9)), 3),
                **{name: round(float(now[place]), 6) for name, place in SHARES.items()},
                "varies": {"hour": column.varies[0], "day": column.varies[1]},
                "missing_then": round(float(column.shares[MISSING]), 6),
                "bins": list(column.bins),
                "then": np.round(column.shares, 6).tolist(),
                "now": np.round(now, 6).tolist(),
                "drifted": changed,
                "since": self._since.get(column.name),
            }
        return {"inputs": inputs, "drifted": [name for name, one in inputs.items() if one["drifted"]]}

    def to_json(self) -> dict[str, Any]:
        """All that a restart needs."""
        return {
            "form": _FORM,
            "rules": [self._rules.pane_seconds, self._rules.panes],
            "columns": [[column.name, *column.bins] for column in self._tester.columns],
            "counts": {name: getattr(self, name) for name in ("rows", "late", "future", "expired")},
            "since": self._since,
            "newest": self._panes.newest,
            "panes": self._panes.to_json(),
            "first": self._first.to_json() if self._first is not None else None,
            "learned": self._learned,
        }

    def restore(self, document: Mapping[str, Any]) -> bool:
        """Go on from a state; False when its counts are of other columns or panes and begin anew."""
        if document.get("form") != _FORM:
            return False
        for name, value in document["counts"].items():
            setattr(self, name, value)
        if not self.normal.columns:
            self._learned, first = document["learned"], document["first"]
            self._first = FirstDay(first) if first is not None else None
            if self._learned:
                self._refer(self._learned["columns"], self._learned["rows"], self.normal.inputs)
        columns = [[column.name, *column.bins] for column in self._tester.columns]
        if document["columns"] != columns or document["rules"] != [self._rules.pane_seconds, self._rules.panes]:
            return False
        self._since = dict(document["since"])
        self._panes = Panes.from_json(self._tester.bins, self._rules.panes, document["newest"], document["panes"])
        return True


def _stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")

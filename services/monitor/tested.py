"""The verdict on all columns of one version: a change is one that is large and no chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.monitor import divergence, evidence
from services.monitor.divergence import Numbers, Places
from services.monitor.panes import Panes
from services.monitor.reference import Column
from services.monitor.rules import Rules

_SPAN, _ROWS = 3, 100  # panes and rows of a window that may raise an alarm: a burst of one client is none


@dataclass(frozen=True, kw_only=True, eq=False)
class Verdict:
    """What `Tester.test` found, one entry for each column.

    counts: rows in the bins of the described window.  rows: its rows.  psi, floor, js: of that window.
    changed: large and significant.  since: first pane of the change, or of the described window.
    evidence: logarithm of the e-detector, -inf where no window shows a large change.
    """

    counts: Numbers
    rows: Numbers
    psi: Numbers
    floor: Numbers
    js: Numbers
    changed: NDArray[np.bool_]
    since: Places
    evidence: Numbers


class Tester:
    """Tests the columns of one version against its reference of so many rows."""

    def __init__(self, columns: list[Column], rows: float, rules: Rules) -> None:
        self.columns, self.rules = columns, rules
        widths = [len(column.shares) for column in columns]
        self.bins = sum(widths)
        self.starts: Places = np.cumsum([0, *widths[:-1]]).astype(np.int64)
        self.shares: Numbers = np.concatenate([column.shares for column in columns]) if columns else np.zeros(0)
        self.degrees: Numbers = np.array([max(0.0, (column.shares > 0).sum() - 1.0) for column in columns])
        self._rows = np.full(len(columns), float(rows))
        self._reference = self.shares * rows
        self._radius = evidence.ball_radius(rules.tolerated, self.degrees, self._rows)
        most = divergence.chi_square(0.99, self.degrees)
        # Rows whose noise is less than half of an effect; more than the reference has help little.
        self._enough = np.clip(most / max(rules.effect / 2, 1e-9), _ROWS, np.maximum(self._rows, _ROWS))

    def test(self, panes: Panes) -> Verdict:
        """The verdict now; `panes` has rows."""
        assert panes.newest is not None
        firsts, counts = panes.windows()
        rows = divergence.totals(counts, self.starts)
        psi = divergence.stability_index(counts, self._reference, self.starts)
        beyond = psi - divergence.noise(self.degrees, rows, self._rows)
        spans = panes.newest - firsts + 1
        large = (beyond >= self.rules.effect) & (rows >= _ROWS) & (spans[:, None] >= _SPAN)
        logs = np.full(psi.shape, -np.inf)
        if large.any():
            some = large.any(axis=1)
            found = evidence.log_evidence(counts[some], self.shares, self._radius, self.starts)
            logs[some] = np.where(large[some], found, -np.inf)
        sums = evidence.log_sum(logs)
        short = (rows < self._enough) | (spans[:, None] < _SPAN)
        recent = np.minimum(short.sum(axis=0), len(rows) - 1)
        still = np.take_along_axis(beyond, recent[None, :], axis=0)[0] >= self.rules.effect / 2
        changed = evidence.named(sums, self.rules.threshold) & still
        panes_shown = self.rules.window_seconds / self.rules.pane_seconds
        shown = np.full(len(self.columns), min(int((spans < panes_shown).sum()), len(spans) - 1))
        at = np.where(changed, logs.argmax(axis=0), shown)
        every = np.arange(len(self.columns))
        described = counts[divergence.spread(at, self.starts, self.bins).astype(np.int64), np.arange(self.bins)]
        return Verdict(
            counts=described,
            rows=rows[at, every],
            psi=psi[at, every],
            floor=divergence.noise_floor(self.degrees, rows[at, every], self._rows),
            js=divergence.jensen_shannon(described, self._reference, self.starts),
            changed=changed,
            since=firsts[at],
            evidence=sums,
        )

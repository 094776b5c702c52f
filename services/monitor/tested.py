"""The verdict on all columns of one version: a change is one that is large and no chance.

What varies by the hour, such as the time of day itself, is compared with the reference of whole days only beyond that
variation. Its validity (missing, foreign, absent, of another type) is tested beside it, for that does not vary so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.monitor import divergence, evidence
from services.monitor.divergence import Numbers, Places
from services.monitor.panes import Panes
from services.monitor.reference import FIRST, Column
from services.monitor.rules import Rules

_SPAN, _ROWS = 3, 100  # panes and rows of a window that may raise an alarm: a burst of one client is none
_VARIES, _BEYOND = 0.02, 1.5  # variation that counts, and how often it is allowed for
_DAY = 0.9 * 86_400  # seconds of a window that holds all hours


@dataclass(frozen=True, kw_only=True, eq=False)
class Verdict:
    """What `ColumnTests.test` found, one entry for each column.

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


class ColumnTests:
    """Tests the columns of one version against its reference of so many rows, where a column has none of its own."""

    def __init__(self, columns: list[Column], rows: float, rules: Rules) -> None:
        self.columns, self.rules = columns, rules
        widths = [len(column.shares) for column in columns]
        self.bins = sum(widths)
        self.starts: Places = np.cumsum([0, *widths[:-1]]).astype(np.int64)
        self._varying = [at for at, column in enumerate(columns) if max(column.varies) > _VARIES]
        self._owner = np.array([*range(len(columns)), *self._varying], dtype=np.int64)
        own = [column.shares for column in columns]
        valid = [_validity(columns[at].shares[None])[0] for at in self._varying]
        self._shares: Numbers = np.concatenate([*own, *valid]) if columns else np.zeros(0)
        self._all_starts: Places = np.cumsum([0, *widths, *([FIRST + 1] * len(valid))])[:-1].astype(np.int64)
        self._degrees: Numbers = np.array([max(0.0, (shares > 0).sum() - 1.0) for shares in [*own, *valid]])
        self._rows = np.array([float(columns[at].rows or rows) for at in self._owner])
        self._reference = self._shares * divergence.spread(self._rows, self._all_starts, len(self._shares))
        self._radius = evidence.ball_radius(rules.tolerated, self._degrees, self._rows)
        # A window within a day is within some hours, and within one day of the week.
        within = [max(column.varies) if max(column.varies) > _VARIES else 0.0 for column in columns]
        whole = [column.varies[1] if column.varies[1] > _VARIES else 0.0 for column in columns]
        nothing = [0.0] * len(valid)
        self._within_day, self._whole_days = np.array([*within, *nothing]), np.array([*whole, *nothing])
        most = divergence.chi_square(0.99, self._degrees)
        # Rows whose noise is less than half of an effect; more than the reference has help little.
        self._enough = np.clip(most / max(rules.effect / 2, 1e-9), _ROWS, np.maximum(self._rows, _ROWS))

    def test(self, panes: Panes) -> Verdict:
        """The verdict now; `panes` has rows."""
        assert panes.newest is not None
        firsts, own = panes.windows()
        valid = [_validity(own[:, self.starts[at] :][:, : len(self.columns[at].shares)]) for at in self._varying]
        counts = np.hstack([own, *valid])
        rows = divergence.totals(counts, self._all_starts)
        psi = divergence.stability_index(counts, self._reference, self._all_starts)
        beyond = psi - divergence.noise(self._degrees, rows, self._rows)
        spans = panes.newest - firsts + 1
        varies = np.where((spans * self.rules.pane_seconds < _DAY)[:, None], self._within_day, self._whole_days)
        effect = self.rules.effect + _BEYOND * varies
        large = (beyond >= effect) & (rows >= _ROWS) & (spans[:, None] >= _SPAN)
        logs = np.full(psi.shape, -np.inf)
        if large.any():
            some = large.any(axis=1)
            # A PSI is about twice the divergence of the ball.
            radius = self._radius + _BEYOND * varies[some] / 2
            found = evidence.log_evidence(counts[some], self._shares, radius, self._all_starts)
            logs[some] = np.where(large[some], found, -np.inf)
        sums = evidence.log_sum(logs)
        short = (rows < self._enough) | (spans[:, None] < _SPAN)
        recent = np.minimum(short.sum(axis=0), len(rows) - 1)[None, :]
        still = np.take_along_axis(beyond, recent, axis=0) >= np.take_along_axis(effect, recent, axis=0) / 2
        changed = evidence.named(sums, self.rules.threshold) & still[0]
        return self._described(firsts, own, psi, rows, logs, sums, changed)

    def _described(
        self,
        firsts: Places,
        own: Numbers,
        psi: Numbers,
        rows: Numbers,
        logs: Numbers,
        sums: Numbers,
        changed: NDArray[np.bool_],
    ) -> Verdict:
        """The window of each column: since it changed, by whichever of its tests, or the usual one."""
        every = np.arange(len(self.columns))
        spans = firsts[0] - firsts + 1
        usual = int((spans < self.rules.window_seconds / self.rules.pane_seconds).sum())
        at = np.full(len(self.columns), min(usual, len(firsts) - 1))
        strongest, found = sums[every].copy(), np.zeros(len(self.columns), dtype=bool)
        for test in reversed(range(len(self._owner))):  # the column's own test has the last word
            owner = self._owner[test]
            strongest[owner] = max(strongest[owner], sums[test])
            if changed[test]:
                found[owner], at[owner] = True, int(logs[:, test].argmax())
        described = own[divergence.spread(at, self.starts, self.bins).astype(np.int64), np.arange(self.bins)]
        reference = self._reference[: self.bins]
        degrees, reference_rows = self._degrees[every], self._rows[every]
        return Verdict(
            counts=described,
            rows=rows[at, every],
            psi=psi[at, every],
            floor=divergence.noise_floor(degrees, rows[at, every], reference_rows),
            js=divergence.jensen_shannon(described, reference, self.starts),
            changed=found,
            since=firsts[at],
            evidence=strongest,
        )


def _validity(counts: Numbers) -> Numbers:
    """Of the bins of one column those that are no value of it, and the sum of the others."""
    return np.hstack([counts[:, :FIRST], counts[:, FIRST:].sum(axis=1, keepdims=True)])

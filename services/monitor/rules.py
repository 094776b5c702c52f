"""What the monitor takes for a change, and how long it looks back."""

from __future__ import annotations

from pydantic import Field

from contracts.settings import Settings

_WEEK = 7 * 86_400


class Rules(Settings):
    """The rules of every model; the defaults are those that the benchmark proves."""

    pane_seconds: float = Field(10, gt=0, le=3600, description="rows are counted in panes of so much event time")
    horizon_seconds: float = Field(172_800, gt=0, description="the longest look back; older rows are not tested")
    window_seconds: float = Field(600, gt=0, description="what tables and metrics describe while nothing has changed")
    late_seconds: float = Field(60, ge=0, description="rows this far behind the newest count as late, in their pane")
    labels_seconds: float = Field(300, gt=0, description="time from one join of labels to the next; each reads days")
    groups_seconds: float = Field(3600, gt=0, description="time from one measure of groups to the next; reads days")
    groups_days: int = Field(30, ge=1, le=3660, description="of the log that groups are measured in, back from now")
    effect: float = Field(0.1, gt=0, description="PSI beyond that of chance, from which on a change is worth an alarm")
    tolerated: float = Field(0.01, ge=0, description="change that is none, as Kullback-Leibler divergence in nats")
    false_alarm_weeks: float = Field(4, gt=0, description="weeks of unchanged traffic to a false alarm, at least")
    first_rows: int = Field(200, ge=50, description="without a baseline: rows that the first day must have")
    first_seconds: float = Field(86_400, gt=0, description="without a baseline: how long the first day is")

    @property
    def panes(self) -> int:
        """Panes of the horizon."""
        return max(1, int(self.horizon_seconds / self.pane_seconds))

    @property
    def threshold(self) -> float:
        """Evidence that an input must reach, before the correction for all inputs: looks to a false alarm."""
        return max(1.0, self.false_alarm_weeks * _WEEK / self.pane_seconds)

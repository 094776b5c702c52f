"""The rules of the loop: what starts a new run of a task by itself, how often, and what follows when the gate passes.

A task declares them (``--set loop.*``), and they travel in the bundle: the policy of the version that is watched holds.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic import Field, field_validator

from contracts import cron
from contracts.document import Document
from contracts.errors import PlatformError

WEEK = timedelta(days=7)

_INTERVAL = re.compile(r"every ([1-9]\d{0,4}) ?(m|h|d)", re.ASCII)
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


class LoopPolicy(Document):
    """What starts a run, and what keeps it from starting. Nothing starts where nobody watches (``fairlead watch``)."""

    on_drift: bool = Field(True, description="when an input or the answer drifts")
    on_quality_drop: bool = Field(True, description="when a metric on labels has dropped")
    schedule: str = Field("", description="five cron fields, or: every 6h, every 30m, every 7d; empty: at no set time")
    zone: str = Field(
        "UTC", description="time zone of the cron fields; a time that its change of the clock skips comes after it"
    )
    on_new_data: bool = Field(False, description="when the source has changed since the last run")
    new_rows: int = Field(1, ge=0, description="rows that the source must have more for it; 0: any change counts")
    source: str = Field("", description="rows of the runs, as a path or s3://; empty: those of the version's own run")
    settings: dict[str, Any] = Field(
        {}, description="of the task for the runs, by dotted key, for example a data window: split.train_days"
    )
    wait_hours: float = Field(
        0, ge=0, description="a drift or drop must have lasted so long: until then its labels have not come"
    )
    cooldown_hours: float = Field(24, gt=0, description="between the starts of two runs")
    runs_per_week: int = Field(3, ge=1, description="at most so many in any seven days")
    approval: bool = Field(False, description="a person must approve each run: fairlead watch approve MODEL")
    max_failures: int = Field(3, ge=1, description="failed runs in a row after which the loop stops")
    silent_minutes: float = Field(60, gt=0, description="a report of the monitor that is older says nothing")
    rollout: Literal["canary", "shadow", "direct", "none"] = Field(
        "canary", description="what follows when the gate passes; none: the candidate is only named"
    )

    @field_validator("schedule")
    @classmethod
    def _known_times(cls, text: str) -> str:
        if text and not _INTERVAL.fullmatch(text):
            try:
                cron.parse(text)
            except PlatformError as err:
                raise ValueError(f"{err.headline}: {err.detail}; or write: every 6h") from None
        return text

    @field_validator("zone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            return cron.known_zone(name)
        except PlatformError as err:
            raise ValueError(err.headline) from None

    @property
    def wait(self) -> timedelta:
        """How long a change must have lasted before it starts a run."""
        return timedelta(hours=self.wait_hours)

    @property
    def cooldown(self) -> timedelta:
        """The least time between the starts of two runs."""
        return timedelta(hours=self.cooldown_hours)

    def next_time(self, after: datetime) -> datetime | None:
        """When the schedule fires next after a moment; None without one."""
        if not self.schedule:
            return None
        if interval := _INTERVAL.fullmatch(self.schedule):
            return after + timedelta(**{_UNITS[interval[2]]: int(interval[1])})
        return next(iter(cron.parse(self.schedule).next_times(self.zone, after, 1, once=True)), None)

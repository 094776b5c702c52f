"""Five cron fields in words, and in another zone."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from contracts.cron import Cron, Field, known_zone, parse

__all__ = ["Cron", "known_zone", "moved", "parse", "words"]

_SPOKEN = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")


def words(cron: Cron) -> str:
    """When it fires, as a person says it; what has no short form stays five fields."""
    every_day = cron.day.text in "*?" and cron.month.text in "*?"
    at = _at(cron)
    if every_day and cron.weekday.star and len(cron.weekday.values) == 7:
        return at
    if at.startswith("every day at") and cron.month.text in "*?":
        clock = at.removeprefix("every day")
        if cron.day.text in "*?":
            return f"{_days(cron.weekday)}{clock}"
        if cron.weekday.text in "*?" and cron.day.text.isdigit():
            return f"on day {cron.day.text} of the month{clock}"
    return str(cron)


def _at(cron: Cron) -> str:
    minute, hour = cron.minute.text, cron.hour.text
    if minute.isdigit() and hour.isdigit():
        return f"every day at {int(hour):02d}:{int(minute):02d}"
    if hour == "*" and minute.isdigit():
        return f"every hour, at minute {int(minute)}"
    if hour == "*" and minute == "*":
        return "every minute"
    if hour == "*" and minute.startswith("*/") and 60 % int(minute[2:]) == 0:
        return f"every {int(minute[2:])} minutes"
    if minute.isdigit() and hour.startswith("*/") and 24 % int(hour[2:]) == 0:
        return f"every {int(hour[2:])} hours, at minute {int(minute)}"
    return str(cron)


def _days(field: Field) -> str:
    values = sorted(field.values, key=lambda day: (day - 1) % 7)  # the week begins on Monday
    if values == [1, 2, 3, 4, 5]:
        return "Monday to Friday"
    return ", ".join(_SPOKEN[day] for day in values)


def moved(cron: Cron, zone: str, target: str) -> Cron | None:
    """The fields that say in zone `target` what `cron` says in `zone`; None where no five fields do, the whole year.

    Zones whose difference changes in the year have none.
    """
    if zone == target:
        return cron
    now = datetime.now(UTC)
    moments = [now + timedelta(days=days) for days in range(0, 730, 7)]
    shifts = {m.astimezone(ZoneInfo(target)).utcoffset() - m.astimezone(ZoneInfo(zone)).utcoffset() for m in moments}  # type: ignore[operator]
    if len(shifts) > 1:
        return None
    minutes = int(shifts.pop().total_seconds() // 60)
    if not minutes:
        return cron
    times = itertools.product(sorted(cron.hour.values), sorted(cron.minute.values))
    shifted = [divmod(hour * 60 + minute + minutes, 24 * 60) for hour, minute in times]
    days = {day for day, _ in shifted}
    at = {divmod(left, 60) for _, left in shifted}
    hours, mins = {hour for hour, _ in at}, {minute for _, minute in at}
    whole_day = cron.day.text in "*?" and cron.month.text in "*?"
    all_days = len(cron.weekday.values) == 7
    if len(at) != len(hours) * len(mins) or not whole_day or (len(days) > 1 and not all_days):
        return None
    weekday = cron.weekday
    if not all_days:
        (step,) = days
        weekday = _listed({(day + step) % 7 for day in weekday.values}, 7)
    return replace(cron, hour=_listed(hours, 24), minute=_listed(mins, 60), weekday=weekday)


def _listed(values: set[int], whole: int) -> Field:
    every = len(values) == whole
    return Field(values=frozenset(values), star=every, text="*" if every else ",".join(map(str, sorted(values))))

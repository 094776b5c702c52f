"""Five cron fields as Kubeflow's schedule controller reads them, and when they fire there and in the loop of ours."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from contracts.errors import PlatformError

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_YEARS = 5  # that the controller looks ahead before it gives up


@dataclass(frozen=True, kw_only=True)
class Field:
    """The values that one field admits; `star`: it begins with ``*`` or ``?``."""

    values: frozenset[int]
    star: bool
    text: str


@dataclass(frozen=True, kw_only=True)
class Cron:
    """Five parsed fields."""

    minute: Field
    hour: Field
    day: Field
    month: Field
    weekday: Field

    def __str__(self) -> str:
        return " ".join(part.text for part in (self.minute, self.hour, self.day, self.month, self.weekday))

    def on(self, date: datetime) -> bool:
        """Whether it fires on this day: both days must match, or either when neither field is a star."""
        weekday = (date.weekday() + 1) % 7
        matches = (date.day in self.day.values, weekday in self.weekday.values)
        days = all(matches) if self.day.star or self.weekday.star else any(matches)
        return days and date.month in self.month.values

    def next_times(self, zone: str, after: datetime, count: int = 3, *, once: bool = False) -> list[datetime]:
        """The next times in a zone, as it shows them.

        A time that a change of the clock skips does not come; one that it repeats comes twice: so does the controller.

        Args:
            once: A time that is skipped comes as much later as the clock was put forward; one that is repeated comes
                at its first. Of a schedule of every hour all hours come, as many as they are.
        """
        there, once = ZoneInfo(zone), once and not self.hour.star
        start = after.astimezone(there)
        midnight = start.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None, fold=0)
        found: list[datetime] = []
        for days in range(-1, 366 * _YEARS):
            date = midnight + timedelta(days=days)
            if not self.on(date):
                continue
            times = itertools.product(sorted(self.hour.values), sorted(self.minute.values))
            moments = {moment for hour, minute in times for moment in _moments(date, hour, minute, there, once)}
            found += [moment.astimezone(there) for moment in sorted(moments) if moment > after]
            if len(found) >= count:
                return found[:count]
        return found

    def expression(self) -> str:
        """Six fields for Kubeflow: the second first; its Sunday is 0 only."""
        fields = [self.minute.text, self.hour.text, self.day.text, self.month.text, _weekday(self.weekday)]
        return " ".join(["0", *fields])


def _moments(date: datetime, hour: int, minute: int, zone: ZoneInfo, once: bool) -> list[datetime]:
    """The moments at which clocks of `zone` show this time: one, at a change none or two; with `once` always one."""
    local = date.replace(hour=hour, minute=minute)
    moments = [local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)]
    if once:
        return moments[:1]  # of a time that is skipped: by the clock before the change
    return [moment for moment in moments if moment.astimezone(zone).replace(tzinfo=None) == local]


def _weekday(field: Field) -> str:
    if field.star or "7" not in field.text:
        return field.text
    return ",".join(map(str, sorted(field.values)))


def parse(text: str) -> Cron:
    """The five fields of `text`.

    Raises:
        PlatformError: ``code="bad_cron"``: not five fields, one out of bounds, or a time that never comes.
    """
    fields = text.split()
    if len(fields) != 5:
        raise _bad(text, f"{len(fields)} fields; accepted: minute hour day month weekday")
    bounds = ((0, 59, ()), (0, 23, ()), (1, 31, ()), (1, 12, _MONTHS), (0, 7, _DAYS))
    names = ("minute", "hour", "day", "month", "weekday")
    parsed = {}
    for name, given, (low, high, words) in zip(names, fields, bounds, strict=True):
        try:
            parsed[name] = _field(given, low, high, words)
        except ValueError as err:
            raise _bad(text, f"{name} {given!r}: {err}") from None
    cron = Cron(**parsed)
    if not cron.next_times("UTC", datetime.now(UTC), 1):
        raise _bad(text, "such a day never comes")
    return cron


def _bad(text: str, detail: str) -> PlatformError:
    return PlatformError(
        f"not a schedule: {text!r}", detail=detail, fix="write, for every day at three: --cron '0 3 * * *'",
        code="bad_cron",
    )  # fmt: skip


def _field(text: str, low: int, high: int, words: tuple[str, ...]) -> Field:
    values: set[int] = set()
    star = False
    for part in text.split(","):
        span, slash, step = part.partition("/")
        first, dash, last = span.partition("-")
        if first in ("*", "?"):
            star, start, end = True, low, 6 if high == 7 else high
        else:
            start = _number(first, low, words)
            end = _number(last, low, words) if dash else high if slash else start
        every = int(step) if slash and step.isdigit() else 0 if slash else 1
        if not every:
            raise ValueError("a step is a number above 0")
        if not low <= start <= end <= high:
            raise ValueError(f"from {low} to {high}, the smaller first")
        values |= set(range(start, end + 1, every))
    return Field(values=frozenset(value % 7 if high == 7 else value for value in values), star=star, text=text)


def _number(text: str, low: int, words: tuple[str, ...]) -> int:
    if text.lower() in words:
        return words.index(text.lower()) + low
    if not text.isdigit():
        raise ValueError("a number, a range, or * and a step")
    return int(text)


def known_zone(name: str) -> str:
    """`name`, when it is a time zone.

    Raises:
        PlatformError: ``code="bad_timezone"``.
    """
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as err:
        raise PlatformError(
            f"not a time zone: {name!r}",
            detail="accepted: names of the IANA database",
            fix="write, for example: --timezone Europe/Berlin",
            code="bad_timezone",
        ) from err
    return name

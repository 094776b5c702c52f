"""Cron fields: when they fire in a zone, in words, and moved to the zone of a cluster."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from contracts.errors import PlatformError
from deploy.cli.schedules import cron

AFTER = datetime(2026, 3, 27, 12, 0, tzinfo=UTC)


def times(text: str, zone: str = "UTC", count: int = 3, after: datetime = AFTER) -> list[str]:
    return [f"{when:%m-%d %H:%M}" for when in cron.parse(text).next_times(zone, after, count)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 3 * * *", ["03-28 03:00", "03-29 03:00", "03-30 03:00"]),
        ("*/20 12 * * *", ["03-27 12:20", "03-27 12:40", "03-28 12:00"]),
        ("30 6 1 * *", ["04-01 06:30", "05-01 06:30", "06-01 06:30"]),
        ("0 0 * * mon-wed", ["03-30 00:00", "03-31 00:00", "04-01 00:00"]),
        ("0 0 * * 7", ["03-29 00:00", "04-05 00:00", "04-12 00:00"]),
        ("0 0 13 * fri", ["04-03 00:00", "04-10 00:00", "04-13 00:00"]),  # either day, as neither is a star
        ("5/30 0 28 feb ?", ["02-28 00:05", "02-28 00:35", "02-28 00:05"]),
    ],
)
def test_next_times(text: str, expected: list[str]) -> None:
    assert times(text) == expected


def test_a_change_of_the_clock_skips_and_repeats_as_the_controller_does() -> None:
    assert times("30 2 * * *", "Europe/Berlin", 2) == ["03-28 02:30", "03-30 02:30"]
    autumn = datetime(2026, 10, 24, 12, 0, tzinfo=UTC)
    assert times("30 2 * * *", "Europe/Berlin", 3, autumn) == ["10-25 02:30", "10-25 02:30", "10-26 02:30"]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Santiago", "Australia/Lord_Howe", "Asia/Kolkata"])
@pytest.mark.parametrize("text", ["30 2 * * *", "15 0 * * *", "0,30 2,3 * * *", "45 1 * * sun"])
def test_a_time_of_the_day_comes_once_on_each_day_whatever_the_clock_does(text: str, zone: str) -> None:
    made, moment = cron.parse(text), datetime(2026, 1, 1, tzinfo=UTC)
    times = made.next_times(zone, moment, 2000, once=True)
    assert sorted(set(times)) == times
    days = [when.date() for when in times if when.year == 2026]
    a_day = len(made.hour.values) * len(made.minute.values)
    asked = [day for day in (datetime(2026, 1, 1) + timedelta(days=at) for at in range(1, 364)) if made.on(day)]
    assert asked
    for day in asked:  # of two times of which one is put where the other is, one is left
        assert a_day - 2 <= days.count(day.date()) <= a_day
        assert days.count(day.date()) >= 1


def test_a_time_that_is_skipped_comes_after_the_change_and_one_that_is_repeated_at_its_first() -> None:
    def once(text: str, after: datetime, count: int) -> list[str]:
        made = cron.parse(text).next_times("Europe/Berlin", after, count, once=True)
        return [f"{when:%m-%d %H:%M%z}" for when in made]

    assert once("30 2 * * *", AFTER, 3) == ["03-28 02:30+0100", "03-29 03:30+0200", "03-30 02:30+0200"]
    assert once("30 2,3 29 3 *", AFTER, 2) == ["03-29 03:30+0200", "03-29 02:30+0200"]  # that of the next year
    autumn = datetime(2026, 10, 24, 12, 0, tzinfo=UTC)
    assert once("30 2 * * *", autumn, 2) == ["10-25 02:30+0200", "10-26 02:30+0100"]
    assert once("*/30 * * * *", datetime(2026, 10, 25, 0, 0, tzinfo=UTC), 4) == [
        "10-25 02:30+0200",
        "10-25 02:00+0100",
        "10-25 02:30+0100",
        "10-25 03:00+0100",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 3 * * *", "every day at 03:00"),
        ("15 8 * * 1-5", "Monday to Friday at 08:15"),
        ("0 8 * * 0,sat", "Saturday, Sunday at 08:00"),
        ("0 0 1 * *", "on day 1 of the month at 00:00"),
        ("*/5 * * * *", "every 5 minutes"),
        ("7 * * * *", "every hour, at minute 7"),
        ("0 */6 * * *", "every 6 hours, at minute 0"),
        ("* * * * *", "every minute"),
        ("*/7 * * * *", "*/7 * * * *"),
        ("0 3 1 1 *", "0 3 1 1 *"),
    ],
)
def test_words(text: str, said: str) -> None:
    assert cron.words(cron.parse(text)) == said


@pytest.mark.parametrize(
    "text", ["daily", "0 0 3 * * *", "* * * *", "60 * * * *", "* * 0 * *", "*/0 * * * *", "5-1 * * * *", "0 0 31 2 *"]
)
def test_what_is_no_schedule_is_refused(text: str) -> None:
    with pytest.raises(PlatformError, match="not a schedule"):
        cron.parse(text)


def test_kubeflow_gets_seconds_and_its_own_sunday() -> None:
    assert cron.parse("0 3 * * 5-7").expression() == "0 0 3 * * 0,5,6"
    assert cron.parse("0 3 * * mon").expression() == "0 0 3 * * mon"


@pytest.mark.parametrize(
    ("text", "zone", "target", "expected"),
    [
        ("0 3 * * *", "Asia/Tokyo", "UTC", "0 18 * * *"),
        ("0 3 * * mon", "Asia/Tokyo", "UTC", "0 18 * * 0"),
        ("15 10 * * *", "Asia/Kolkata", "UTC", "45 4 * * *"),
        ("*/30 * * * 1-5", "UTC", "UTC", "*/30 * * * 1-5"),
        ("0 8 * * *", "Europe/Paris", "Europe/Berlin", "0 8 * * *"),
        ("0 3 * * *", "Europe/Berlin", "UTC", None),  # its distance changes twice a year
        ("0 3 1 * *", "Asia/Tokyo", "UTC", None),  # the last day of a month is no field
        ("0 3,12 * * mon", "Asia/Tokyo", "UTC", None),  # one is on Sunday there, the other on Monday
    ],
)
def test_fields_are_moved_to_another_zone_or_not_at_all(
    text: str, zone: str, target: str, expected: str | None
) -> None:
    made = cron.moved(cron.parse(text), zone, target)
    assert (str(made) if made else None) == expected
    if made:
        ours = cron.parse(text).next_times(zone, AFTER, 20)
        assert [t.astimezone(UTC) for t in made.next_times(target, AFTER, 20)] == [t.astimezone(UTC) for t in ours]


def test_a_zone_that_is_none_is_refused() -> None:
    assert cron.known_zone("Europe/Berlin") == "Europe/Berlin"
    with pytest.raises(PlatformError, match="not a time zone"):
        cron.known_zone("Mars/Base")

"""The rules of the loop: what is refused names its field, and when a schedule fires next."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from contracts.bundle import BundleDocument
from contracts.loop_policy import LoopPolicy

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("schedule", "each day", "2 fields; accepted: minute hour day month weekday; or write: every 6h"),
        ("schedule", "every 0h", "or write: every 6h"),
        ("zone", "Mars/Base", "not a time zone: 'Mars/Base'"),
        ("cooldown_hours", 0, "greater than 0"),
        ("runs_per_week", 0, "greater than or equal to 1"),
        ("max_failures", 0, "greater than or equal to 1"),
        ("rollout", "canari", "'canary', 'shadow', 'direct' or 'none'"),
        ("on_drfit", True, "Extra inputs are not permitted"),
    ],
)
def test_what_is_wrong_is_said_with_its_field(field: str, value: Any, said: str) -> None:
    with pytest.raises(ValidationError) as err:
        LoopPolicy.model_validate({field: value})
    assert err.value.errors()[0]["loc"] == (field,)
    assert said in str(err.value)


def test_a_schedule_is_an_interval_or_five_fields_in_a_zone() -> None:
    assert LoopPolicy().next_time(NOW) is None
    assert LoopPolicy(schedule="every 90m").next_time(NOW) == NOW + timedelta(minutes=90)
    daily = LoopPolicy(schedule="0 3 * * *", zone="Europe/Berlin")
    assert daily.next_time(NOW) == datetime(2026, 11, 30, 2, 0, tzinfo=UTC)


def test_a_bundle_carries_them_and_one_of_before_gets_the_defaults(make_bundle: Any) -> None:
    assert make_bundle(loop={"runs_per_week": 7}).document.loop.runs_per_week == 7
    before = {key: value for key, value in make_bundle().document.model_dump().items() if key != "loop"}
    assert BundleDocument.model_validate(before).loop == LoopPolicy()

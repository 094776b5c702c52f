"""The periods of the fraud task: what does not fit is refused, with lengths that do."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from datetime import date
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import PlatformError
from pipelines.data.left_out import of_split
from pipelines.settings import parse_setting
from pipelines.tasks import get_task, recipe_config
from pipelines.tasks.fraud.config import SplitConfig
from pipelines.tasks.fraud.data import Periods, periods

_DAYS = st.integers(0, 40)


def payments(days: int) -> pd.DataFrame:
    return pd.DataFrame({"event_time": pd.date_range("2026-01-01", periods=days, tz="UTC")})


def follow(frame: pd.DataFrame, plan: SplitConfig) -> tuple[Periods | None, list[str]]:
    """The periods after the cures of every error, or None where one proposes no setting; and those cures."""
    given: dict[str, Any] = {f"split.{key}": value for key, value in asdict(plan).items()}
    cures: list[str] = []
    while len(cures) < 4:
        try:
            config: Any = recipe_config(get_task("fraud"), None, given)
            return periods(frame, config.split), cures
        except PlatformError as err:
            words = shlex.split(err.fix.partition(": ")[2])
            if not words:
                return None, cures
            cures.append(err.fix)
            given |= dict(map(parse_setting, words[1::2]))
    raise AssertionError(cures)


@given(
    days=st.integers(1, 120),
    train=_DAYS,
    valid=st.integers(1, 40),
    delay=_DAYS,
    test=st.integers(1, 40),
    start=st.none() | st.dates(date(2025, 12, 1), date(2026, 3, 1)),
)
def test_a_split_that_does_not_fit_fits_when_its_cures_are_followed(
    days: int, train: int, valid: int, delay: int, test: int, start: date | None
) -> None:
    plan = SplitConfig(train_start=start, train_days=train, valid_days=valid, delay_days=delay, test_days=test)
    found, _ = follow(payments(days), plan)
    if found is None:
        assert days - 7 < 3  # no day is left to train, to validate and to test
    else:
        assert pd.Timestamp("2026-01-01", tz="UTC") <= found.train <= found.valid < found.wait < found.test < found.end
        assert found.end <= pd.Timestamp("2026-01-01", tz="UTC") + pd.Timedelta(days=days)


def test_periods_that_fit_are_left_alone() -> None:
    found, cures = follow(payments(40), SplitConfig())
    assert cures == []
    assert found is not None
    assert (found.end - found.train).days == 38


def test_shorter_data_name_the_lengths_to_use() -> None:
    _, cures = follow(payments(20), SplitConfig())
    lengths = "--set split.test_days=3 --set split.train_days=10 --set split.valid_days=2"
    assert cures == [f"give more days, or split those there are: {lengths}"]
    with pytest.raises(PlatformError) as caught:
        periods(payments(9), SplitConfig())
    assert caught.value.fix == "give more days"


def test_every_payment_that_is_in_no_part_has_a_reason() -> None:
    days = pd.date_range("2026-01-01", periods=40, tz="UTC")
    rows = pd.DataFrame({"event_time": days, "transaction_id": [str(at) for at in range(40)], "fraud": 0})
    rows["customer_id"] = "c"
    given = {"split.train_days": 20, "split.valid_days": 5, "split.delay_days": 7, "split.test_days": 7}
    task = get_task("fraud")
    config: Any = recipe_config(task, None, given)
    when = periods(rows, config.split)
    used = rows[(rows["event_time"] >= when.train) & (rows["event_time"] < when.wait)]
    test = rows[rows["event_time"] >= when.test][:-1]  # the last one stands for a card that was blocked
    frames = {"train": used[:15], "valid": used[15:], "test": test}
    frames = {name: part.assign(id=part["transaction_id"]) for name, part in frames.items()}
    found = of_split(task, rows, frames, config, None)
    assert [group["rows"] for group in found["groups"]] == [6, 7, 1]
    assert found["rows_left_out"] + sum(map(len, frames.values())) == found["rows_read"] == 40

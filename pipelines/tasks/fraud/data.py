"""Payments in time: train, wait for the labels, test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from contracts.bundle import Input
from contracts.errors import PlatformError
from feature_repo.transforms.fraud import PAYMENT_FEATURES
from pipelines.settings import setting
from pipelines.tasks.fraud.config import SplitConfig
from pipelines.tasks.fraud.simulator import LABEL_DELAY_DAYS

if TYPE_CHECKING:
    import pandas as pd

WINDOWS = (1, 7, 30)
ONLINE = (
    *(f"customer_payments_{days}d" for days in WINDOWS),
    *(f"customer_mean_{days}d" for days in WINDOWS),
    "customer_std_30d",
    *(f"customer_large_{days}d" for days in (3, 7, 14)),
    *(f"terminal_payments_{days}d" for days in WINDOWS),
    *(f"terminal_labelled_{days}d" for days in WINDOWS),
    *(f"terminal_risk_{days}d" for days in WINDOWS),
    *(f"terminal_risk_last_{last}" for last in (2, 3, 5)),
    "terminal_frauds_30d",
)
BANDS = (0.0, 20.0, 50.0, 100.0, 200.0, np.inf)


def model_inputs() -> list[Input]:
    """The amount of the request, the windows read online, and what is derived from both."""
    return [
        Input(name="amount", dtype="float64", source="request", minimum=0, description="in units of currency"),
        *(Input(name=name, dtype="float64", source="online") for name in ONLINE),
        *(Input(name=name, dtype="float64", source="on_demand") for name in PAYMENT_FEATURES),
    ]


@dataclass(frozen=True)
class Periods:
    """First moments of the periods: train, valid, wait (for labels), test, and the end of the test."""

    train: Any
    valid: Any
    wait: Any
    test: Any
    end: Any


def _shorter(plan: SplitConfig, days: int) -> str:
    """Periods that fit into `days`, as settings; nothing where labels would not be known within them."""
    delay = plan.delay_days if days - plan.delay_days >= 3 else LABEL_DELAY_DAYS
    rest = days - delay
    if rest < 3:
        return ""
    test = max(1, min(plan.test_days, rest // 4))
    train = min(max(plan.train_days, 2), rest - test)
    lengths = {"test_days": test, "train_days": train, "valid_days": max(1, min(plan.valid_days, train // 4))}
    wanted = {"train_start": None, "delay_days": delay, **lengths}
    words = [setting(f"split.{key}", value) for key, value in wanted.items() if getattr(plan, key) != value]
    return f", or split those there are: {' '.join(words)}"


def periods(frame: pd.DataFrame, plan: SplitConfig) -> Periods:
    """The periods of SplitConfig on the days that `frame` has.

    Raises:
        PlatformError: the data does not cover them, or labels would not be known in time.
    """
    import pandas as pd

    if plan.delay_days < LABEL_DELAY_DAYS:
        raise PlatformError(
            f"split.delay_days is {plan.delay_days}, but labels take {LABEL_DELAY_DAYS} days",
            detail="the features of terminals count a label when it has arrived",
            fix=f"use at least that: {setting('split.delay_days', LABEL_DELAY_DAYS)}",
            code="bad_config",
        )
    if plan.valid_days >= plan.train_days:
        longer = setting("split.train_days", 4 * max(plan.valid_days, 1))
        raise PlatformError(
            f"split.valid_days ({plan.valid_days}) leaves nothing of split.train_days ({plan.train_days})",
            detail="validation is the end of the training days",
            fix=f"train longer: {longer}",
            code="bad_config",
        )
    first, last = (moment.floor("D") for moment in (frame["event_time"].min(), frame["event_time"].max()))
    length = plan.train_days + plan.delay_days + plan.test_days
    start = last - timedelta(days=length - 1) if plan.train_start is None else pd.Timestamp(plan.train_start, tz="UTC")
    end = start + timedelta(days=length)
    if start < first or end > last + timedelta(days=1):
        raise PlatformError(
            f"the split needs payments from {start:%Y-%m-%d} to {end - timedelta(days=1):%Y-%m-%d}",
            detail=f"the data has {first:%Y-%m-%d} to {last:%Y-%m-%d}",
            fix=f"give more days{_shorter(plan, (last - first).days + 1)}",
            code="empty_split",
        )
    wait = start + timedelta(days=plan.train_days)
    return Periods(
        train=start,
        valid=wait - timedelta(days=plan.valid_days),
        wait=wait,
        test=wait + timedelta(days=plan.delay_days),
        end=end,
    )


def needed_rows(frame: pd.DataFrame, config: Any) -> pd.DataFrame:
    """The payments that the split looks at: from the first day of training to the last of the test."""
    when = periods(frame, config.split)
    needed: pd.DataFrame = frame[(frame["event_time"] >= when.train) & (frame["event_time"] < when.end)]
    return needed


def left_out(frame: pd.DataFrame, frames: Mapping[str, pd.DataFrame], config: Any) -> dict[str, Any]:
    """Why payments of `frame` are in no part: a mask by reason."""
    when, moment = periods(frame, config.split), frame["event_time"]
    used = {name for part in frames.values() for name in part["id"]}
    return {
        "outside the days of the split": (moment < when.train) | (moment >= when.end),
        "in the days that labels are waited for": (moment >= when.wait) & (moment < when.test),
        "a fraud of the customer was known before": ~frame["transaction_id"].astype(str).isin(used),
    }


def split_payments(frame: pd.DataFrame, config: Any) -> dict[str, pd.DataFrame]:
    """Train, valid and test by day; see SplitConfig. `frame` has the clean columns and all features."""
    plan = config.split
    when = periods(frame, plan)
    moment = frame["event_time"]
    test = frame[(moment >= when.test) & (moment < when.end)]
    if plan.drop_compromised:
        test = _without_compromised(frame, test, when.train, plan.delay_days)
    return {
        "train": _finished(frame[(moment >= when.train) & (moment < when.valid)]),
        "valid": _finished(frame[(moment >= when.valid) & (moment < when.wait)]),
        "test": _finished(test),
    }


def _without_compromised(frame: pd.DataFrame, test: pd.DataFrame, start: Any, delay: int) -> pd.DataFrame:
    """Leave out payments of customers of whom a fraud was known on the payment's day: their cards are blocked."""
    frauds = frame[(frame["fraud"] == 1) & (frame["event_time"] >= start)]
    first = frauds.groupby("customer_id")["event_time"].min().dt.floor("D") + timedelta(days=delay)
    known = test["customer_id"].map(first)
    left: pd.DataFrame = test[~(known < test["event_time"].dt.floor("D"))]
    return left


def _finished(rows: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    names = [item.name for item in model_inputs()]
    made = rows[names].astype("float64").reset_index(drop=True)
    made["id"] = rows["transaction_id"].astype(str).to_numpy()
    made["label"] = np.where(rows["fraud"].to_numpy() == 1, "fraud", "genuine")
    made["event_time"] = rows["event_time"].to_numpy()
    made["customer_id"], made["terminal_id"] = rows["customer_id"].to_numpy(), rows["terminal_id"].to_numpy()
    labels = [f"{low:g} to {high:g}" if high < np.inf else f"over {low:g}" for low, high in pairwise(BANDS)]
    made["slice_amount"] = pd.cut(made["amount"], list(BANDS), labels=labels, right=False).astype(str)
    made["slice_time"] = np.where(made["is_night"] == 1, "night", "day")
    made["slice_week"] = np.where(made["is_weekend"] == 1, "weekend", "working day")
    made["slice_customer"] = np.where(made["customer_mean_30d"].isna(), "new", "known")
    return made

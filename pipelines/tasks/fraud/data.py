"""Payments in time: train, wait for the labels, test."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from contracts.bundle import Input
from contracts.errors import PlatformError

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
ON_DEMAND = (
    "hour",
    "is_night",
    "is_weekend",
    *(f"amount_to_mean_{days}d" for days in WINDOWS),
    "amount_zscore_30d",
    "amount_to_mean_before_7d",
    "amount_to_mean_earlier",
    "amount_to_median",
    "mean_7d_to_before",
    "hours_since_payment",
    "days_since_first_fraud",
    "days_since_last_fraud",
)
BANDS = (0.0, 20.0, 50.0, 100.0, 200.0, np.inf)


def model_inputs() -> list[Input]:
    """The amount of the request, the windows read online, and what is derived from both."""
    return [
        Input(name="amount", dtype="float64", source="request", minimum=0, description="in units of currency"),
        *(Input(name=name, dtype="float64", source="online") for name in ONLINE),
        *(Input(name=name, dtype="float64", source="on_demand") for name in ON_DEMAND),
    ]


def split_payments(frame: pd.DataFrame, config: Any) -> dict[str, pd.DataFrame]:
    """Train, valid and test by day; see SplitConfig. `frame` has the clean columns and all features."""
    import pandas as pd

    plan = config.split
    day = frame["event_time"].dt.floor("D")
    length = plan.train_days + plan.delay_days + plan.test_days
    if plan.train_start is None:
        start = day.max() - timedelta(days=length - 1)
    else:
        start = pd.Timestamp(plan.train_start, tz="UTC")
    train_end = start + timedelta(days=plan.train_days)
    valid_start = train_end - timedelta(days=plan.valid_days)
    test_start = train_end + timedelta(days=plan.delay_days)
    test_end = test_start + timedelta(days=plan.test_days)
    if start < day.min() or test_end > day.max() + timedelta(days=1):
        raise PlatformError(
            f"the split needs payments from {start:%Y-%m-%d} to {test_end - timedelta(days=1):%Y-%m-%d}",
            detail=f"the data has {day.min():%Y-%m-%d} to {day.max():%Y-%m-%d}",
            fix="give more days, or set split.train_start, split.train_days, split.delay_days, split.test_days",
            code="empty_split",
        )
    test = frame[(day >= test_start) & (day < test_end)]
    if plan.drop_compromised:
        test = _without_compromised(frame, test, start, plan.delay_days)
    return {
        "train": _finished(frame[(day >= start) & (day < valid_start)]),
        "valid": _finished(frame[(day >= valid_start) & (day < train_end)]),
        "test": _finished(test),
    }


def _without_compromised(frame: pd.DataFrame, test: pd.DataFrame, start: Any, delay: int) -> pd.DataFrame:
    """Leave out payments of customers of whom a fraud was known on the payment's day: their cards are blocked."""
    frauds = frame[(frame["fraud"] == 1) & (frame["event_time"] >= start)]
    first = frauds.groupby("customer_id")["event_time"].min().dt.floor("D") + timedelta(days=delay)
    known = test["customer_id"].map(first)
    return test[~(known < test["event_time"].dt.floor("D"))]


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

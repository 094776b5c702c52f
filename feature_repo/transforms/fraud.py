"""What a payment looks like beside its customer's habits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# What `payment_request` gives, in the order of the model's inputs.
PAYMENT_FEATURES = (
    "hour",
    "is_night",
    "is_weekend",
    "amount_to_mean_1d",
    "amount_to_mean_7d",
    "amount_to_mean_30d",
    "amount_zscore_30d",
    "amount_to_mean_before_7d",
    "amount_to_mean_earlier",
    "amount_to_median",
    "mean_7d_to_before",
    "hours_since_payment",
    "days_since_first_fraud",
    "days_since_last_fraud",
)
_NIGHT_ENDS = 6.0  # o'clock


def payment_request(columns: Mapping[str, NDArray[Any]]) -> dict[str, Floats]:
    """Time of day (UTC) and the amount against the customer's past; NaN where the past is unknown.

    `columns`: amount, event_time (datetime64, UTC) and the features of customer and terminal, each of shape (rows,).
    """
    moment = np.asarray(columns["event_time"], dtype="datetime64[us]")
    second = np.where(np.isnat(moment), np.nan, moment.astype(np.int64) / 1e6)
    day = np.floor(second / 86_400)
    hour = (second - day * 86_400) / 3_600
    amount, mean, week = (_floats(columns, name) for name in ("amount", "customer_mean_30d", "customer_mean_7d"))
    before = _floats(columns, "customer_mean_before_7d")
    return {
        "hour": hour,
        "is_night": _flag(hour < _NIGHT_ENDS, hour),
        "is_weekend": _flag((day + 3) % 7 >= 5, day),  # 1970-01-01 was a Thursday
        "amount_to_mean_1d": _ratio(amount, _floats(columns, "customer_mean_1d")),
        "amount_to_mean_7d": _ratio(amount, week),
        "amount_to_mean_30d": _ratio(amount, mean),
        "amount_zscore_30d": _ratio(amount - mean, _floats(columns, "customer_std_30d")),
        "amount_to_mean_before_7d": _ratio(amount, before),
        "amount_to_mean_earlier": _ratio(amount, _floats(columns, "customer_mean_earlier")),
        "amount_to_median": _ratio(amount, _floats(columns, "customer_median")),
        "mean_7d_to_before": _ratio(week, before),
        "hours_since_payment": (second - _floats(columns, "customer_last_payment")) / 3_600,
        "days_since_first_fraud": (second - _floats(columns, "terminal_first_fraud")) / 86_400,
        "days_since_last_fraud": (second - _floats(columns, "terminal_last_fraud")) / 86_400,
    }


def _floats(columns: Mapping[str, NDArray[Any]], name: str) -> Floats:
    return np.asarray(columns[name], dtype=np.float64)


def _flag(condition: NDArray[np.bool_], known: Floats) -> Floats:
    flag: Floats = np.where(np.isnan(known), np.nan, condition.astype(np.float64))
    return flag


def _ratio(value: Floats, by: Floats) -> Floats:
    quotient: Floats = np.full(value.shape, np.nan)
    np.divide(value, by, out=quotient, where=by > 0)
    return quotient

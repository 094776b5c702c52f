"""What a payment looks like beside its customer's habits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_NIGHT_ENDS = 6.0  # o'clock


def payment_request(columns: Mapping[str, NDArray[Any]]) -> dict[str, Floats]:
    """Time of day (UTC) and the amount against the customer's past; NaN where the past is unknown.

    `columns`: amount, event_time (datetime64, UTC), customer_mean_{1,7,30}d, customer_std_30d and customer_last_payment
    (seconds since 1970), each of shape (rows,).
    """
    amount = np.asarray(columns["amount"], dtype=np.float64)
    moment = np.asarray(columns["event_time"], dtype="datetime64[us]")
    second = np.where(np.isnat(moment), np.nan, moment.astype(np.int64) / 1e6)
    day = np.floor(second / 86_400)
    hour = (second - day * 86_400) / 3_600
    made = {
        "hour": hour,
        "is_night": _flag(hour < _NIGHT_ENDS, hour),
        "is_weekend": _flag((day + 3) % 7 >= 5, day),  # 1970-01-01 was a Thursday
        "hours_since_payment": (second - np.asarray(columns["customer_last_payment"], dtype=np.float64)) / 3_600,
    }
    for days in (1, 7, 30):
        made[f"amount_to_mean_{days}d"] = _ratio(amount, columns[f"customer_mean_{days}d"])
    spread = columns["customer_std_30d"]
    made["amount_zscore_30d"] = _ratio(amount - np.asarray(columns["customer_mean_30d"], dtype=np.float64), spread)
    return made


def _flag(condition: NDArray[np.bool_], known: Floats) -> Floats:
    flag: Floats = np.where(np.isnan(known), np.nan, condition.astype(np.float64))
    return flag


def _ratio(value: Floats, by: NDArray[Any]) -> Floats:
    divisor = np.asarray(by, dtype=np.float64)
    quotient: Floats = np.full(value.shape, np.nan)
    np.divide(value, divisor, out=quotient, where=divisor > 0)
    return quotient

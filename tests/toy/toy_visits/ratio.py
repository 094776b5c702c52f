"""A bill against the bills before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def to_mean(columns: Mapping[str, Any]) -> dict[str, Any]:
    return {"amount_to_mean": columns["amount"] / columns["past_mean"]}

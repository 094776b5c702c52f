"""Numbers for people."""

from __future__ import annotations

from typing import Any


def number(value: Any) -> str:
    """A number for people: four significant digits, thousands separated, no trailing zeros."""
    if value is None:
        return "–"
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value)
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"

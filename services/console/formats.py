"""Numbers, times and names as pages show them."""

from __future__ import annotations

import math
from datetime import UTC, datetime

UNKNOWN = "–"


def number(value: float | None, digits: int = 4) -> str:
    """A number with thousands apart and at most `digits` significant digits behind the point."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size < 1e-4:
        return f"{value:.2g}"
    return f"{value:.{max(0, digits - max(0, math.floor(math.log10(size)) + 1))}f}"


def percent(value: float | None) -> str:
    """A share as a percentage; small ones keep their digits."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    shown = 100 * value
    if 0 < abs(shown) < 0.01:
        return "< 0.01 %" if shown > 0 else "> -0.01 %"
    return f"{shown:.2f} %" if 0 < abs(shown) < 1 else f"{shown:.1f} %" if shown != round(shown) else f"{shown:.0f} %"


def rate(value: float | None) -> str:
    """Requests per second."""
    return UNKNOWN if value is None else f"{value:,.2f}" if value < 10 else f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    """A duration in the unit that fits it."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    if seconds < 1:
        return f"{1000 * seconds:.1f} ms" if seconds < 0.1 else f"{1000 * seconds:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def moment(text: str) -> str:
    """An ISO 8601 time as ``2026-11-29 12:17``; what is no time stays."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return text or UNKNOWN
    return f"{found.astimezone(UTC) if found.tzinfo else found:%Y-%m-%d %H:%M}"


def short(digest: str) -> str:
    """The beginning of a hash."""
    return digest[:12]

"""Kubernetes' quantities: ``500m``, ``4``, ``64Mi``, ``2G`` as numbers, and numbers as people read them."""

from __future__ import annotations

import re
from typing import Any

_UNITS = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_UNITS |= {unit: 1024.0**power for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi"), start=1)}
_QUANTITY = re.compile(r"(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)([A-Za-z]*)")


def amount(quantity: Any) -> float:
    """A quantity as a number of cores, bytes or devices; what is none counts as 0."""
    found = _QUANTITY.fullmatch(str(quantity or "").strip())
    if found is None or found[2] not in _UNITS:
        return 0.0
    return float(found[1]) * _UNITS[found[2]]


def cores(number: float) -> str:
    """``1.5 cores``."""
    return f"{number:.2f}".rstrip("0").rstrip(".") + (" core" if number == 1 else " cores")


def memory(size: float) -> str:
    """Bytes as a quantity that Kubernetes takes too: ``64Mi``, ``1.5Gi``."""
    for unit in ("Gi", "Mi", "Ki"):
        if size >= _UNITS[unit]:
            return f"{size / _UNITS[unit]:.1f}".removesuffix(".0") + unit
    return f"{size:.0f}"

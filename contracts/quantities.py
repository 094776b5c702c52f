"""Quantities of Kubernetes: ``500m``, ``2Gi``, ``1e3``; read exactly, and written the shortest way."""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal

_BINARY = {name: Decimal(2) ** (10 * (power + 1)) for power, name in enumerate(["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"])}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_FORM = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|([numkMGTPE]|[KMGTPE]i)?)")


def parse(text: object) -> Decimal:
    """The amount that `text` says: cores, bytes, or a number of things.

    Raises:
        ValueError: it is no quantity.
    """
    found = _FORM.fullmatch(str(text).strip())
    if found is None:
        raise ValueError(f"not a quantity: {text!r}")
    number, exponent, unit = found.groups()
    if exponent:
        return Decimal(number + exponent)
    return Decimal(number) * (_BINARY[unit] if unit in _BINARY else Decimal(10) ** _DECIMAL[unit or ""])


def memory(size: Decimal | int) -> str:
    """Bytes as Kubernetes reads them, rounded up to whole Mi: ``512Mi``, ``8Gi``."""
    whole = int((Decimal(size) / _BINARY["Mi"]).to_integral_value(ROUND_CEILING))
    return f"{whole // 1024}Gi" if whole and whole % 1024 == 0 else f"{whole}Mi"


def cpu(cores: Decimal | int) -> str:
    """Cores as Kubernetes reads them, rounded up to thousandths: ``250m``, ``4``."""
    thousandths = int((Decimal(cores) * 1000).to_integral_value(ROUND_CEILING))
    return f"{thousandths // 1000}" if thousandths % 1000 == 0 else f"{thousandths}m"


def shown(size: Decimal | int, unit: str = "Gi") -> str:
    """Bytes for people: ``7.6Gi``; or a number of cores with `unit` "": ``1.5``."""
    amount = Decimal(size) / _BINARY.get(unit, Decimal(1))
    if amount < 1 and size and (smaller := {"Gi": "Mi", "Mi": "Ki"}.get(unit)):
        return shown(size, smaller)
    text = f"{amount:.0f}" if unit in ("Mi", "Ki") else f"{amount:.1f}"
    return text.removesuffix(".0") + unit

"""How numbers and moments are written in text, and the pattern of such a number."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from contracts.errors import PlatformError
from pipelines.task import DataConfig

if TYPE_CHECKING:
    import pandas as pd

# pandas ends the process at an exponent that is no number of 32 bits, such as that of 1e2147483648.
NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,5})?\s*$"


@dataclass(frozen=True, kw_only=True)
class ValueFormat:
    """How numbers and moments are written in text; see `DataConfig`."""

    decimal: str = "."
    thousands: str = ""
    times: Mapping[str, str] = field(default_factory=dict)
    zone: str = "UTC"


PLAIN = ValueFormat()


def as_numbers(values: pd.Series[Any]) -> pd.Series[Any]:
    """Numbers of a column of texts or numbers, NaN for what is none."""
    import pandas as pd

    if not pd.api.types.is_numeric_dtype(values):
        texts = values.astype("string")
        values = texts.where(texts.str.match(NUMBER)).astype(object)
    return pd.to_numeric(values, errors="coerce")


def value_format(data: DataConfig) -> ValueFormat:
    """The part of `data` that values are read by.

    Raises:
        PlatformError: one sign means two things, or the zone is unknown.
    """
    if data.decimal == data.thousands:
        raise PlatformError(
            f"data.decimal and data.thousands are both {data.decimal!r}",
            fix="set the other one too",
            code="bad_config",
        )
    try:
        ZoneInfo(data.zone)
    except (KeyError, ValueError, OSError):
        raise PlatformError(
            f"data.zone: {data.zone!r} is no time zone", fix="name one, for example Europe/Berlin", code="bad_config"
        ) from None
    return ValueFormat(**{item.name: getattr(data, item.name) for item in fields(ValueFormat)})


def number_pattern(decimal: str, thousands: str) -> tuple[str, str]:
    """Regular expressions of a number with these signs, and of the sign between thousands ("" for none)."""
    group = {" ": "[ \u00a0\u202f]", "'": "['\u2019]"}.get(thousands, re.escape(thousands))
    whole = rf"(\d{{1,3}}({group}\d{{3}})+|\d+)" if thousands else r"\d+"
    point = re.escape(decimal)
    return rf"^[+-]?({whole}({point}\d*)?|{point}\d+)([eE][+-]?\d+)?$", group

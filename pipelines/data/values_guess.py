"""What values that cannot be read look like, and the setting by which they could be."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime

from pipelines.data.value_format import ValueFormat, number_pattern
from pipelines.settings import setting
from pipelines.task import Column

_MOST = 0.8  # share of the values that a guess must explain
_SIGNS = ((",", ""), (",", "."), (".", ","), (",", " "), (".", " "), (".", "'"), (",", "'"))
_ISO = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?")
_DIGITS = re.compile(r"\d{9,19}(\.\d*)?")
_EXCEL = re.compile(r"[2-6]\d{4}(\.\d*)?")  # 1954 to 2091
_ORDER = re.compile(r"(\d{1,2})[./-](\d{1,2})[./-]\d{4}\b")
_DAYS = ("%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%d.%m.%y", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%Y年%m月%d日")
_CLOCKS = ("", " %H:%M:%S", " %H:%M", " %I:%M %p", " %I:%M:%S %p", "%H%M%S")
_FORMS = (
    *(day + clock for day in _DAYS for clock in _CLOCKS),
    *("%m/%d/%Y %I:%M %p", "%m/%d/%Y %I:%M:%S %p", "%a %b %d %H:%M:%S %Y"),
    *("%a, %d %b %Y %H:%M:%S %z", "%d/%b/%Y:%H:%M:%S %z"),
)


def guess_setting(column: Column, values: Sequence[str], form: ValueFormat) -> str:
    """The ``--set`` by which `values` of `column`, which cannot be read now, could be; "" when none is recognised."""
    values = [value.strip() for value in values if value.strip()]
    if not values:
        return ""
    if column.dtype == "timestamp":
        if form.times.get(column.name) and _explains(_ISO, values):
            return setting(f"data.times.{column.name}", "")
        how = _times(values)
        return setting(f"data.times.{column.name}", how) if how and how != form.times.get(column.name) else ""
    return _numbers(values, form) if column.dtype in ("float64", "int64") else ""


def _numbers(values: Sequence[str], form: ValueFormat) -> str:
    now = number_pattern(form.decimal, form.thousands)[0]
    strange = [value for value in values if not re.fullmatch(now, value)]
    if len(strange) < (1 - _MOST) * len(values):
        return ""  # they are numbers, and wrong for another reason
    for decimal, thousands in _SIGNS:
        pattern = number_pattern(decimal, thousands)[0]
        if (decimal, thousands) != (form.decimal, form.thousands) and _explains(pattern, values):
            said = [] if decimal == form.decimal else [setting("data.decimal", decimal)]
            said += [] if thousands == form.thousands else [setting("data.thousands", thousands)]
            return " ".join(said)
    return ""


def _times(values: Sequence[str]) -> str:
    if _explains(_DIGITS, values):
        whole = sorted(len(value.partition(".")[0]) for value in values)
        digits = whole[len(whole) // 2]
        return "s" if digits <= 10 else "ms" if digits <= 13 else "us" if digits <= 16 else "ns"
    if form := next((form for form in _FORMS if _share(_parses(value, form) for value in values) >= _MOST), ""):
        return form
    found = [match for value in values if (match := _ORDER.match(value))]
    if len(found) >= _MOST * len(values):
        # 13 and more cannot be a month; when nothing is, days come first nearly everywhere.
        return "monthfirst" if any(int(match[2]) > 12 for match in found) else "dayfirst"
    return "excel" if _explains(_EXCEL, values) else ""


def _parses(value: str, form: str) -> bool:
    try:
        datetime.strptime(value, form)
    except ValueError:
        return False
    return True


def _explains(pattern: str | re.Pattern[str], values: Sequence[str]) -> bool:
    return _share(re.fullmatch(pattern, value) is not None for value in values) >= _MOST


def _share(found: Iterable[bool]) -> float:
    each = list(found)
    return sum(each) / len(each)

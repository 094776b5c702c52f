"""The result of one check."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Finding:
    """`level` is fail when something needed is missing, warn when a part of the platform will not work."""

    check: str
    level: Literal["ok", "warn", "fail"]
    found: str
    fix: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def graded(check: str, found: str, fix: str, *, fail: bool = False, warn: bool = False) -> Finding:
    """A finding whose fix is only said when there is something to mend."""
    level: Literal["ok", "warn", "fail"] = "fail" if fail else "warn" if warn else "ok"
    return Finding(check=check, level=level, found=found, fix=fix if level != "ok" else "")

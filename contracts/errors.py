"""The one error type that people see: what failed, what was got, what to do."""

from __future__ import annotations

import json
from typing import Any


class PlatformError(Exception):
    """A failure with a cure.

    Args:
        headline: what failed, in one line.
        detail: what was got and what is accepted.
        fix: the command, key or file that mends it.
        code: a stable word for programs, for example ``bad_input``.
        context: the row, column, key or file concerned; must be JSON.
    """

    def __init__(self, headline: str, *, detail: str = "", fix: str = "", code: str = "error", **context: Any) -> None:
        super().__init__(headline)
        self.headline, self.detail, self.fix, self.code = headline, detail, fix, code
        self.context = context

    def __str__(self) -> str:
        lines = [self.headline]
        if self.detail:
            lines.append(f"  {self.detail}")
        if self.fix:
            lines.append(f"  Fix: {self.fix}")
        return "\n".join(lines)

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of a traceback: the cure, since the cell that asked stands above it."""
        return [f"{type(self).__name__}: {self}"]

    def as_dict(self) -> dict[str, Any]:
        """The error as JSON-ready data; `from_dict` is its inverse."""
        return {
            "code": self.code,
            "headline": self.headline,
            "detail": self.detail,
            "fix": self.fix,
            "context": json.loads(json.dumps(self.context, default=str)),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> PlatformError:
        """Rebuild an error that crossed a process border."""
        return cls(
            data["headline"],
            detail=data.get("detail", ""),
            fix=data.get("fix", ""),
            code=data.get("code", "error"),
            **data.get("context", {}),
        )

"""What a person does by a command is noted in the audit log of the profile."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError

if TYPE_CHECKING:
    from contracts.endpoints import Endpoints


def actor() -> str:
    """Who uses the command line: ``user:NAME``."""
    try:
        return f"user:{getpass.getuser()}"
    except (KeyError, OSError):  # a container's user may have no name
        return "user:unknown"


def note(
    endpoints: Endpoints, action: str, subject: str, *, reason: str = "", evidence: Mapping[str, Any] | None = None
) -> None:
    """Note what was done just now.

    Raises:
        PlatformError: ``code="not_audited"``: it is done, and the log could not be written.
    """
    from contracts.audit import AuditLog

    try:
        AuditLog.of(endpoints).append(
            actor=actor(), action=action, subject=subject, reason=reason, evidence=dict(evidence or {})
        )
    except (PlatformError, OSError) as err:
        raise PlatformError(
            f"{action} of {subject} is done, and is not in the audit log",
            detail=str(err),
            fix="mend the log, then note by hand what was done: fairlead audit verify",
            code="not_audited",
        ) from err

"""The error contract: every failure is answered as RFC 9457 ``application/problem+json``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from contracts.errors import PlatformError

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 20


class Problem(Exception):  # noqa: N818 - the RFC's word
    """A failure with an HTTP status; what it says never repeats the values that a client sent.

    Args:
        status: the HTTP status.
        code: a stable word for programs, the end of the problem's ``type``.
        title: what failed, in one line.
        detail: what was got and what is accepted.
        errors: (field, message) pairs of everything that is wrong, the first 20 are answered.
        headers: extra response headers.
    """

    def __init__(
        self,
        status: int,
        code: str,
        title: str,
        detail: str = "",
        *,
        errors: Sequence[tuple[str, str]] = (),
        fix: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(title)
        self.status, self.code, self.title, self.detail, self.fix = status, code, title, detail, fix
        self.errors, self.headers = errors, dict(headers or {})

    def body(self, *, oip: bool = False) -> bytes:
        """The JSON document; with `oip` it has the ``error`` text that the Open Inference Protocol wants."""
        document: dict[str, Any] = {
            "type": f"urn:fairlead:problem:{self.code}",
            "title": self.title,
            "status": self.status,
        }
        if self.detail:
            document["detail"] = self.detail
        if self.fix:
            document["fix"] = self.fix
        if self.errors:
            document["errors"] = [{"field": field, "message": text} for field, text in self.errors[:MAX_ERRORS]]
            if len(self.errors) > MAX_ERRORS:
                document["more_errors"] = len(self.errors) - MAX_ERRORS
        if oip:
            document["error"] = self.line
        return orjson.dumps(document)

    @property
    def line(self) -> str:
        """The failure in one line."""
        parts = [self.title, self.detail, *(f"{field}: {text}" for field, text in self.errors[:3])]
        return "; ".join(part for part in parts if part)


def openai_document(problem: Problem) -> dict[str, Any]:
    """A failure as OpenAI's clients read it: ``{"error": {"message", "type", "param", "code"}}``."""
    kind = "rate_limit_error" if problem.status == 429 else "server_error"
    if problem.status < 500 and problem.status != 429:
        kind = "invalid_request_error"
    param = problem.errors[0][0] if problem.errors else ""
    message = "; ".join(filter(None, (problem.line, problem.fix)))
    code = problem.code.replace("-", "_")
    return {"error": {"message": message, "type": kind, "param": param or None, "code": code}}


def openai_body(problem: Problem) -> bytes:
    """The same as JSON."""
    return orjson.dumps(openai_document(problem))


def invalid(errors: Sequence[tuple[str, str]]) -> Problem:
    """422: the request is JSON, and its content does not fit the model's signature."""
    return Problem(422, "invalid-input", "the request does not fit the model's signature", errors=errors)


def checked_members(document: Mapping[str, Any], checks: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
    """What each check makes of its member of a request, which is None where it is missing.

    Raises:
        Problem: 422, naming every member that is wrong or unknown; a check says so by ValueError.
    """
    accepted = ", ".join(checks)
    errors = [(name[:64], f"unknown member; accepted: {accepted}") for name in document if name not in checks]
    values: dict[str, Any] = {}
    for name, check in checks.items():
        try:
            values[name] = check(document.get(name))
        except ValueError as err:
            errors.append((name, str(err)))
    if errors:
        raise invalid(errors)
    return values


def unavailable(err: PlatformError) -> Problem:
    """503 from an error of the platform."""
    return Problem(503, err.code.replace("_", "-"), err.headline, err.detail, fix=err.fix, headers={"retry-after": "5"})


def deadline_exceeded() -> Problem:
    """504: the time that the client gave is over, and the model was not asked."""
    return Problem(
        504, "deadline-exceeded", "the request's deadline has passed", fix="allow more time, or send fewer at once"
    )

"""Cross-origin requests (CORS, https://fetch.spec.whatwg.org): which pages' scripts may ask this service."""

from __future__ import annotations

from collections.abc import Mapping

from services.errors import Problem
from services.settings import CorsSettings

# What a client may send: whatever a route reads. Authorization has to be named, a star does not mean it.
ALLOWED_HEADERS = (
    "accept, authorization, content-encoding, content-type, inference-header-content-length, x-api-key, "
    "x-request-deadline, x-request-priority, x-request-timeout-ms"
)
EXPOSED_HEADERS = "accept-encoding, inference-header-content-length, retry-after, www-authenticate"
Headers = tuple[tuple[str, str], ...]


class Cors:
    """The answers' headers for the origins of `settings`."""

    def __init__(self, settings: CorsSettings) -> None:
        self._every = "*" in settings.origins
        self._origins = frozenset(origin.encode() for origin in settings.origins)
        self._vary: Headers = () if self._every else (("vary", "origin"),)
        self._more: Headers = (("access-control-allow-credentials", "true"),) if settings.credentials else ()
        self._max_age = str(settings.max_age_seconds)

    def headers(self, request: Mapping[bytes, bytes]) -> Headers:
        """What every answer gets; a page of an origin that is not allowed cannot read it."""
        allowed = self._allowed(request.get(b"origin"))
        if not allowed:
            return self._vary
        return (*self._vary, *allowed, ("access-control-expose-headers", EXPOSED_HEADERS))

    def preflight(self, request: Mapping[bytes, bytes], methods: str) -> Headers:
        """What a browser is told before it sends a request to a path that accepts `methods`.

        Raises:
            Problem: 403 for an origin that is not allowed.
        """
        allowed = self._allowed(request.get(b"origin"))
        if not allowed:
            raise Problem(
                403,
                "origin-not-allowed",
                "pages of this origin may not ask this service",
                fix="add it to cors.origins in the service's settings",
            )
        return (
            ("access-control-allow-methods", methods),
            ("access-control-allow-headers", ALLOWED_HEADERS),
            ("access-control-max-age", self._max_age),
        )

    def allows(self, request: Mapping[bytes, bytes]) -> bool:
        """Whether a request comes from an origin that may ask."""
        return bool(self._allowed(request.get(b"origin")))

    def _allowed(self, origin: bytes | None) -> Headers:
        if origin is None:
            return ()
        if self._every:
            return (("access-control-allow-origin", "*"),)
        if origin.lower() not in self._origins:
            return ()
        return (("access-control-allow-origin", origin.decode("latin-1")), *self._more)


def is_preflight(method: str, request: Mapping[bytes, bytes]) -> bool:
    """Whether a browser asks what it may send, which it does without credentials."""
    return method == "OPTIONS" and b"origin" in request and b"access-control-request-method" in request

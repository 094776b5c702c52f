"""Who may look: keys of the API's own file, sessions of the login form, and requests that come from our own pages."""

from __future__ import annotations

import secrets
from urllib.parse import urlsplit

from itsdangerous import BadData, URLSafeTimedSerializer
from starlette.requests import Request
from starlette.responses import Response

from services.errors import Problem
from services.request_options import Holder
from services.server.auth import KeyRing, digest_of

COOKIE = "fairlead_session"
SECONDS = 12 * 3600
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
NOBODY = Holder(name="")

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# A bundle's own page has its style and plots in it. It may load nothing, run nothing and send nothing.
CARD_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; frame-ancestors 'none'"
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Access:
    """Who is behind a request.

    A session is a signed cookie that names a key by its hash, so any process with the same `secret` knows it. It ends
    after `SECONDS`, and once the key is no longer in the file.

    Args:
        secret: signs sessions; without one they end with this process.
    """

    def __init__(self, keys: KeyRing | None, secret: bytes = b"") -> None:
        self._keys = keys
        self._sessions = URLSafeTimedSerializer(secret or secrets.token_bytes(32), salt=COOKIE)

    @property
    def guarded(self) -> bool:
        """Whether a key is needed."""
        return self._keys is not None

    def who(self, request: Request) -> Holder | None:
        """The holder of the caller's key, `NOBODY` where none is needed, None for a stranger.

        Raises:
            Problem: 429 above the rate of the key in a header.
        """
        if self._keys is None:
            return NOBODY
        given = {name: value for name, value in request.headers.raw if name in (b"authorization", b"x-api-key")}
        if given:
            try:
                return self._keys.check(given)
            except Problem as problem:
                if problem.status == 401:
                    return None
                raise
        try:
            digest = self._sessions.loads(request.cookies.get(COOKIE, ""), max_age=SECONDS)
        except BadData:
            return None
        return self._keys.holder(digest) if isinstance(digest, str) else None

    def open(self, key: str, response: Response, *, secure: bool) -> bool:
        """Begin a session with a key, whose cookie goes with `response`; False for an unknown key."""
        digest = digest_of(key.strip().encode())
        if self._keys is None or self._keys.holder(digest) is None:
            return False
        token = self._sessions.dumps(digest)
        response.set_cookie(COOKIE, token, max_age=SECONDS, httponly=True, samesite="strict", secure=secure)
        return True

    def close(self, response: Response) -> None:
        """Take the caller's session away."""
        response.delete_cookie(COOKIE)

    def strange_host(self, request: Request) -> bool:
        """Whether the page was asked by a name that is not this machine's, without keys.

        A web page elsewhere can point a name of its own at 127.0.0.1, and would then read ours (DNS rebinding).
        """
        return not self.guarded and (request.url.hostname or "") not in _LOOPBACK


def from_elsewhere(request: Request) -> bool:
    """Whether a request that changes something was sent by a page of another origin."""
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    if origin is not None:
        return urlsplit(origin).netloc != request.headers.get("host")
    return site not in (None, "same-origin", "none")


def local_path(text: str) -> str:
    """A path of this site to go on to; the first page for anything else."""
    parts = urlsplit(text)
    safe = text.startswith("/") and text.isprintable() and not text.startswith("//") and "\\" not in text
    return text if safe and not parts.netloc and not parts.scheme else "/"

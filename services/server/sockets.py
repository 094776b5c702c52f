"""WebSockets (RFC 6455): connections over which messages go both ways; refused as requests are, with a problem."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import orjson

from services.errors import MEDIA_TYPE, Problem
from services.logs import NAME
from services.server.requests import Receive, Scope, Send

NORMAL, GOING_AWAY, POLICY, FAILED, TRY_LATER = 1000, 1001, 1008, 1011, 1013
_REASON_BYTES = 120  # a close frame has no more
logger = logging.getLogger(NAME)


class Socket:
    """One connection; messages are texts or bytes.

    Attributes:
        headers: of the request that asked for it, by name in lower case.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope, self._receive, self._send = scope, receive, send
        self.headers: Mapping[bytes, bytes] = dict(scope["headers"])
        self.accepted = self.closed = False

    async def accept(self) -> None:
        """Agree to talk."""
        await self._send({"type": "websocket.accept"})
        self.accepted = True

    async def receive(self) -> str | bytes | None:
        """The next message; None when the client has gone."""
        message = await self._receive()
        if message["type"] != "websocket.receive":
            self.closed = True
            return None
        text: str | None = message.get("text")
        return text if text is not None else message.get("bytes", b"")

    async def send(self, document: Any) -> None:
        """One JSON document; waits while the client does not read."""
        if not self.closed:
            text = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY).decode()
            await self._send({"type": "websocket.send", "text": text})

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """End the connection; more than once does nothing."""
        if not self.closed:
            self.closed = True
            short = reason.encode()[:_REASON_BYTES].decode(errors="ignore")
            await self._send({"type": "websocket.close", "code": code, "reason": short})

    async def refuse(self, problem: Problem) -> None:
        """Say what is wrong: as an answer to the request before it was accepted, else in a message, and close."""
        if self.closed:
            return
        if self.accepted:
            await self.send({"error": orjson.loads(problem.body())})
            code = {429: TRY_LATER, 503: TRY_LATER, 500: FAILED}.get(problem.status, POLICY)
            await self.close(code, problem.title)
            return
        self.closed = True
        if "websocket.http.response" not in self.scope.get("extensions", {}):
            await self._send({"type": "websocket.close", "code": POLICY})
            return
        headers = [(b"content-type", MEDIA_TYPE.encode())]
        headers += [(name.encode(), value.encode("latin-1")) for name, value in problem.headers.items()]
        await self._send({"type": "websocket.http.response.start", "status": problem.status, "headers": headers})
        await self._send({"type": "websocket.http.response.body", "body": problem.body()})


def check_origin(headers: Mapping[bytes, bytes], allowed: bool) -> None:
    """Refuse pages of other sites: browsers let them open connections without asking this service first.

    Raises:
        Problem: 403, unless the origin is this host's, or `allowed` by the settings.
    """
    origin = headers.get(b"origin")
    if origin is None or allowed or origin.lower().partition(b"://")[2] == headers.get(b"host", b"").lower():
        return
    raise Problem(
        403,
        "origin-not-allowed",
        "pages of this origin may not ask this service",
        fix="add it to cors.origins in the service's settings",
    )

"""Backends as the router sees them: a circuit that opens after failures, slots, and requests over kept connections."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from services.chat.admission import Admission
from services.metrics.service_metrics import ServiceMetrics
from services.router.settings import Backend, RouterSettings, Target

if TYPE_CHECKING:
    import aiohttp

_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_OURS = frozenset({401, 402, 403, 404, 405})  # wrong settings of ours: told by nothing that the backend said
_STALE = 4  # tries: a connection that was kept may have been closed by the other side meanwhile
_MOST_WAITING = 1 << 20  # tokens, estimated


class FailedError(Exception):
    """A backend gave no answer; `reason` is for the log and for clients, and never repeats what it said."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class RefusedError(Exception):
    """A backend says that the request is wrong; no other one would take it."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"status {status}")
        self.status, self.body = status, body


class Circuit:
    """Closed while a backend answers; open for a time after failures in a row; then one request tries it."""

    def __init__(self, failures: int, rest_seconds: float) -> None:
        self._most, self._rest = failures, rest_seconds
        self._failed, self._until, self._trying = 0, 0.0, False

    @property
    def open(self) -> bool:
        """Whether it is left alone now."""
        return self._failed >= self._most and (self._trying or time.monotonic() < self._until)

    def enter(self) -> bool:
        """Whether a request may try it; one that may has to tell how it went."""
        if self.open:
            return False
        self._trying = self._failed >= self._most
        return True

    def worked(self) -> None:
        """A request was answered."""
        self._failed, self._trying = 0, False

    def failed(self, rest_seconds: float = 0.0) -> None:
        """A request was not; the backend may have said for how long it wants to be left alone."""
        self._failed, self._trying = self._failed + 1, False
        if rest_seconds:
            self._failed = max(self._failed, self._most)
        if self._failed >= self._most:
            self._until = time.monotonic() + (rest_seconds or self._rest)

    def left(self) -> None:
        """The client went away before anybody could know."""
        self._trying = False


class Server:
    """One backend."""

    def __init__(self, name: str, settings: Backend, metrics: ServiceMetrics) -> None:
        self.name, self.settings = name, settings
        self.circuit = Circuit(settings.failures, settings.rest_seconds)
        self.busy = 0
        self.gate = Admission(settings.slots, _MOST_WAITING, metrics) if settings.slots else None
        secret = settings.secret()
        self._headers = {"content-type": "application/json", "accept-encoding": "identity"}
        self._headers |= {"authorization": f"Bearer {secret}"} if secret else {}

    async def ask(
        self, session: aiohttp.ClientSession, path: str, body: bytes, priority: str
    ) -> aiohttp.ClientResponse:
        """Send a request; what comes back has status 200.

        Raises:
            FailedError, RefusedError.
        """
        import aiohttp

        headers = self._headers if self.settings.outside or not priority else {
            **self._headers, "x-request-priority": priority}  # fmt: skip
        limits = self.settings
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=limits.connect_seconds, sock_read=limits.stall_seconds)
        try:
            async with asyncio.timeout(limits.first_token_seconds):
                for left in reversed(range(_STALE)):
                    try:
                        answer = await session.post(
                            limits.url + path, data=body, headers=headers, timeout=timeout, allow_redirects=False
                        )
                        break
                    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as err:
                        if not left or isinstance(err, aiohttp.ClientConnectorError):
                            raise
                if answer.status == 200:
                    return answer
                said = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as err:
            self.circuit.failed()
            raise FailedError(f"{self.name}: {type(err).__name__}") from err
        if answer.status in _RETRIED:
            self.circuit.failed(_seconds(answer.headers.get("retry-after", "")) if answer.status == 429 else 0.0)
            raise FailedError(f"{self.name}: status {answer.status}")
        if answer.status in _OURS or answer.status < 400 or answer.status >= 500:
            self.circuit.failed()
            raise FailedError(f"{self.name}: status {answer.status}, see the router's settings")
        self.circuit.worked()
        raise RefusedError(answer.status, said)


class Servers:
    """All backends, and the order in which those of a route are tried."""

    def __init__(self, settings: RouterSettings, metrics: ServiceMetrics) -> None:
        self.by_name = {name: Server(name, one, metrics) for name, one in settings.backends.items()}

    def order(self, targets: Sequence[Target], fallback: Sequence[Target]) -> list[tuple[Server, Target]]:
        """Targets with the least to do first, then the fallback as it stands."""
        first = [(self.by_name[one.backend], one) for one in targets]
        random.shuffle(first)  # of those with equally much to do not always the same
        first.sort(key=lambda pair: pair[0].busy)
        return [*first, *((self.by_name[one.backend], one) for one in fallback)]


def _seconds(text: str) -> float:
    return min(60.0, float(text)) if text.isdigit() else 0.0


def has_token(event: Any) -> bool:
    """Whether an event of a stream has something of the answer, or its end."""
    for one in event.get("choices") or ():
        delta = one.get("delta") or {}
        if one.get("text") or one.get("finish_reason") or any(delta.get(key) for key in delta if key != "role"):
            return True
    return False

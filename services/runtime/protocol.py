"""uvicorn's HTTP protocol, which gives a client only so long to send the headers of a request.

Without it a client that sends a byte now and then holds a connection for as long as it likes; bodies have the request's
own deadline.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


def impatient(header_seconds: float) -> type[HttpToolsProtocol]:
    """A protocol that closes a connection whose headers take longer."""

    class ImpatientProtocol(HttpToolsProtocol):
        _patience: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._patience = self.loop.call_later(header_seconds, transport.close)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            if self._patience is None:  # a later request of the connection; the first one's time runs already
                self._patience = self.loop.call_later(header_seconds, self.transport.close)

        def on_headers_complete(self) -> None:
            self._calm()
            super().on_headers_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._calm()
            super().connection_lost(exc)

        def _calm(self) -> None:
            if self._patience is not None:
                self._patience.cancel()
                self._patience = None

    return ImpatientProtocol

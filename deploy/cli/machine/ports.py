"""Ports of this machine."""

from __future__ import annotations

from contracts.errors import PlatformError

HOST = "127.0.0.1"


def is_free(port: int, host: str = HOST) -> bool:
    """Whether a server could listen on `port` now."""
    from services.server.addresses import listen

    try:
        for bound in listen(host, port):
            bound.close()
    except PlatformError:
        return False
    return True


def next_free(port: int) -> int:
    """A port near one that is taken."""
    from services.server.addresses import free_after

    return free_after(port, HOST)

"""Ports of this machine."""

from __future__ import annotations

import socket

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


def free_port(host: str = HOST) -> int:
    """A port that was free a moment ago."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
    return port

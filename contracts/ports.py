"""A port of this machine for a server that is started in a moment."""

from __future__ import annotations

import random
import socket

from contracts.errors import PlatformError

# Below the ports that systems give to connections (Linux: 32768 to 60999), which would be taken from under a server
# that needs seconds to start; and below those of Kubernetes' node ports (from 30000).
RANGE = range(20_000, 30_000)
_TRIES = 500
_KEPT = 256  # claims of one process: a server that was started so many ports ago listens, and needs none
_claims: list[socket.socket] = []


def free_port(host: str = "127.0.0.1") -> int:
    """A port that is free, and that nobody else who asks here is given (on Linux, for 256 asks or until our end)."""
    picks = random.SystemRandom()
    for _ in range(_TRIES):
        port = picks.choice(RANGE)
        if _free(host, port) and _claimed(port):
            return port
    raise PlatformError(
        f"no port between {RANGE.start} and {RANGE.stop - 1} is free on {host}",
        detail=f"{_TRIES} were tried",
        fix="end servers that nobody needs: ss -ltnp lists them",
        code="no_free_port",
    )


def _free(host: str, port: int) -> bool:
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
            probe.bind((host, port))
    except OSError:
        return False
    return True


def _claimed(port: int) -> bool:
    """A name of the network's namespace, unix(7) "abstract", which ends with us whatever happens."""
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0fairlead-port-{port}")
    except FileNotFoundError:  # a system without such names
        claim.close()
        return True
    except OSError:
        claim.close()
        return False
    _claims.append(claim)
    if len(_claims) > _KEPT:
        _claims.pop(0).close()
    return True

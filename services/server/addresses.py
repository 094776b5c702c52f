"""Addresses that a server listens on: names resolved, ``localhost`` and ``::`` in both families, and their URLs."""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address

from contracts.errors import PlatformError

_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_SELF = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets that are bound to every address of `host`, ``::`` to those of IPv4 too; the caller closes them.

    Raises:
        PlatformError: ``port_in_use``; ``bad_host`` when `host` is no address of this machine.
    """
    made: list[socket.socket] = []
    absent: OSError | None = None
    for family, address in _resolved(host):
        try:
            made.append(_bound(family, address, port))
        except OSError as err:
            if err.errno in _ABSENT:
                absent = err
                continue
            for one in made:
                one.close()
            raise _refused(host, port, err) from err
    if not made:
        raise _no_address(host, str(absent)) from absent
    return made


def addresses(host: str) -> list[str]:
    """The addresses that `host` means; of ``localhost`` those of both families that this machine has."""
    found = []
    for bound in listen(host, 0):
        found.append(_scoped(bound.getsockname()))
        bound.close()
    return found


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return all(ip_address(address.partition("%")[0]).is_loopback for _, address in _resolved(host))
    except PlatformError:
        return False


def url(host: str, port: int) -> str:
    """Where a server that listens on `host` is reached from this machine."""
    name = _SELF.get(host, host)
    return f"http://{f'[{name}]'.replace('%', '%25') if ':' in name else name}:{port}"


def _resolved(host: str) -> list[tuple[socket.AddressFamily, str]]:
    if host == "localhost":  # of both, RFC 6761, whatever the machine's own list says
        return [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
    if not host:
        raise _no_address(host, "it is empty")
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as err:
        raise _no_address(host, str(err)) from err
    pairs = dict.fromkeys((family, _scoped(address)) for family, _, _, _, address in found)
    return [pair for pair in pairs if pair[0] in (socket.AF_INET, socket.AF_INET6)]


def _scoped(address: tuple[object, ...]) -> str:
    name = str(address[0])
    scope = address[3] if len(address) > 3 else 0
    return f"{name}%{scope}" if scope and "%" not in name else name


def _bound(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        # As servers do: a port in TIME_WAIT counts as free.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address != "::"))
        made.bind(socket.getaddrinfo(address, port, family, socket.SOCK_STREAM)[0][4])
    except OSError:
        made.close()
        raise
    return made


def free_after(port: int, host: str) -> int:
    """A port near `port`, or near 3000, that a server could listen on now."""
    near: list[int] = [*range(port + 1, min(port + 100, 65_536)), *range(3000, 3100)]
    for other in near:
        try:
            for family, address in _resolved(host):
                _bound(family, address, other).close()
        except OSError:
            continue
        return other
    return port


def _refused(host: str, port: int, err: OSError) -> PlatformError:
    if err.errno == errno.EADDRINUSE:
        return PlatformError(
            f"port {port} is in use",
            detail=f"something answers or listens on {url(host, port)}",
            fix=f"end it, or take another: --port {free_after(port, host)}",
            code="port_in_use",
        )
    return PlatformError(
        f"cannot listen on {host}, port {port}", detail=str(err), fix="take another: --port 3000", code="bad_host"
    )


def _no_address(host: str, detail: str) -> PlatformError:
    return PlatformError(
        f"{host!r} is no address of this machine",
        detail=detail,
        fix="listen on this machine only (--host 127.0.0.1 or ::1), or on all its addresses (--host 0.0.0.0 or ::)",
        code="bad_host",
    )

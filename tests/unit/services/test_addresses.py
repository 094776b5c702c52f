"""Which sockets an address means, and how it is written in a URL."""

from __future__ import annotations

import contextlib
import socket

import pytest

from contracts.errors import PlatformError
from contracts.ports import free_port
from deploy.cli.machine.ports import is_free
from services.server.addresses import is_loopback, listen, url


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("127.0.0.1", ["127.0.0.1"]),
        ("0.0.0.0", ["127.0.0.1"]),
        pytest.param("::1", ["::1"], marks=ipv6),
        pytest.param("::", ["::1", "127.0.0.1"], marks=ipv6),
        pytest.param("localhost", ["::1", "127.0.0.1"], marks=ipv6),
    ],
)
def test_a_server_is_reached_in_every_family_that_its_address_means(host: str, reached: list[str]) -> None:
    port = free_port()
    with contextlib.ExitStack() as stack:
        for bound in listen(host, port):
            stack.enter_context(bound).listen()
        answering = []
        for address in ("::1", "127.0.0.1"):
            with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=2):
                answering.append(address)
        assert answering == reached
        assert not is_free(port, host)
        with pytest.raises(PlatformError) as caught:
            listen(host, port)
        assert caught.value.code == "port_in_use"
        text, _, other = caught.value.fix.rpartition(" ")
        assert text == "end it, or take another: --port"
        for bound in listen(host, int(other)):
            bound.close()
    assert is_free(port, host)


@pytest.mark.parametrize("host", ["", "192.0.2.1", "2001:db8::1", "no such host", "host.invalid", "a" * 300])
def test_what_is_no_address_of_this_machine_is_named(host: str) -> None:
    with pytest.raises(PlatformError) as caught:
        listen(host, 0)
    assert caught.value.code == "bad_host"
    assert repr(host) in caught.value.headline


def test_addresses_as_a_url_says_them() -> None:
    said = {host: url(host, 3000) for host in ("127.0.0.1", "0.0.0.0", "::1", "::", "fe80::1%eth0", "box.example")}
    assert said == {
        "127.0.0.1": "http://127.0.0.1:3000",
        "0.0.0.0": "http://127.0.0.1:3000",
        "::1": "http://[::1]:3000",
        "::": "http://[::1]:3000",
        "fe80::1%eth0": "http://[fe80::1%25eth0]:3000",
        "box.example": "http://box.example:3000",
    }


def test_who_reaches_an_address() -> None:
    for host in ("127.0.0.1", "127.3.2.1", "::1", "localhost"):
        assert is_loopback(host)
    for host in ("0.0.0.0", "::", "192.0.2.1", "host.invalid"):
        assert not is_loopback(host)

"""Ports for servers that are started in a moment."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from contracts import ports
from contracts.errors import PlatformError
from contracts.ports import free_port


def test_nobody_else_is_given_a_port_while_who_asked_for_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    base = free_port()
    monkeypatch.setattr(ports, "RANGE", range(base, base + 1))
    with pytest.raises(PlatformError, match="no port between") as caught:
        free_port()
    assert caught.value.code == "no_free_port"
    ask = f"from contracts import ports; ports.RANGE = range({base}, {base + 1}); print(ports.free_port())"
    other = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=False)
    assert "no port between" in other.stderr
    ports._claims.pop().close()
    asked = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert int(asked.stdout) == base
    assert free_port() == base, "it was not given back at the end of a process"


def test_a_port_with_a_server_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        taken = server.getsockname()[1]
        monkeypatch.setattr(ports, "RANGE", range(taken, taken + 1))
        with pytest.raises(PlatformError, match="is free on 127"):
            free_port()


def test_a_process_that_asks_often_does_not_run_out_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_KEPT", 3)
    monkeypatch.setattr(ports, "_claims", [])
    given = [free_port() for _ in range(9)]
    assert [claim.getsockname() for claim in ports._claims] == [
        f"\0fairlead-port-{port}".encode() for port in given[-3:]
    ]

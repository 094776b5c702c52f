"""A network with loopback and nothing else, in which Linux counts what goes elsewhere.

Whatever language it is written in, a connection, a datagram or a question of a name to another address finds no route
there, and the counters of the namespace say so. An audit hook in every Python process beside them says who it was.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.shell import ROOT

_RESOLVER = "nameserver 192.0.2.53\noptions timeout:1 attempts:1\n"
"""Of the addresses kept for examples: a resolver of this machine on loopback would hide a question."""
_KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "COVERAGE_PROCESS_START")
"""Of the environment: what switches telemetry off for tests or on build servers is not what people have."""
_HOOK = """
import os, sys

def _watch(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        place = arguments[1] if event in ("socket.connect", "socket.sendto") else arguments[0]
        host = place[0] if isinstance(place, tuple) else None if event in ("socket.connect", "socket.sendto") else place
        host = host.decode() if isinstance(host, bytes) else host
        if host and host not in ("localhost", "0.0.0.0", "::1", "::") and not host.startswith("127."):
            frame, way = sys._getframe(1), []
            while frame is not None and len(way) < 8:
                way.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
                frame = frame.f_back
            file = os.open(os.environ["CALLS_OUTSIDE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            os.write(file, f"{event} {host} by {' < '.join(way)}\\n".encode())
            os.close(file)

sys.addaudithook(_watch)
"""


@dataclass(frozen=True)
class Closed:
    """What happened in there."""

    result: Any
    """What the function gave."""
    unrouted: int | None
    """Attempts to reach another address, counted by Linux; None where it could not be closed."""
    calls: tuple[str, ...]
    """Those that Python code made, with the way to it."""


@cache
def why_not() -> str:
    """Why such a network cannot be made here; empty if it can."""
    done = subprocess.run(_unshare(Path("/dev/null"), "true"), capture_output=True, text=True)
    return done.stderr.strip() if done.returncode else ""


def run_closed(function: str, folder: Path, path: str, **arguments: str) -> Closed:
    """Call `function` ("module:name") with texts in such a network, with `path` as PYTHONPATH.

    Where it cannot be made the function runs in the network that there is, and nothing is counted.

    Raises:
        AssertionError: the function failed.
    """
    folder.mkdir(parents=True)
    (folder / "resolv.conf").write_text(_RESOLVER)
    (folder / "sitecustomize.py").write_text(_HOOK)
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ} | {
        "PYTHONPATH": os.pathsep.join([str(folder), path, str(ROOT)]),
        "CALLS_OUTSIDE": str(folder / "calls"),
        "OMP_NUM_THREADS": "1",
    }
    kind = "open" if why_not() else "closed"
    place = str(folder / "said.json")
    asked = [sys.executable, "-m", "tests.closed_network", kind, place, function, json.dumps(arguments)]
    command = asked if kind == "open" else _unshare(folder / "resolv.conf", *asked)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    said = json.loads((folder / "said.json").read_text())
    calls = (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []
    return Closed(said["result"], said["unrouted"] if kind == "closed" else None, tuple(calls))


def _unshare(resolver: Path, *command: str) -> list[str]:
    """The command in namespaces of its own, whose resolver is `resolver`."""
    within = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
    return ["unshare", "--map-root-user", "--net", "--mount", "sh", "-c", within, str(resolver), *command]


def _loopback_up() -> None:
    """SIOCSIFFLAGS with IFF_UP, for machines without ``ip``."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asks:
        fcntl.ioctl(asks, 0x8914, struct.pack("16sh14x", b"lo", 1))


def _unrouted() -> int:
    """What found no route in this namespace until now, by IPv4 and IPv6."""
    names, values = (line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Ip:"))
    six: Mapping[str, str] = {}
    if (file := Path("/proc/net/snmp6")).exists():
        six = dict(line.split() for line in file.read_text().splitlines())
    return int(dict(zip(names, values, strict=True))["OutNoRoutes"]) + int(six.get("Ip6OutNoRoutes", 0))


def _main(kind: str, report: str, function: str, arguments: str) -> None:
    if kind == "closed":
        _loopback_up()
    module, name = function.split(":")
    before = _unrouted()
    result = getattr(import_module(module), name)(**json.loads(arguments))
    Path(report).write_text(json.dumps({"result": result, "unrouted": _unrouted() - before}))


if __name__ == "__main__":
    _main(*sys.argv[1:])

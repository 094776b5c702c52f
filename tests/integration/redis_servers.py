"""Redis servers of Debian's package for tests: one alone, with TLS and password, or a cluster of three."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port if port < 55_000 else free_port()  # a cluster uses port + 10,000 too


class Server:
    """One redis-server; `stop` and `start` keep its port."""

    def __init__(self, folder: Path, *options: str, port: int = 0) -> None:
        if shutil.which("redis-server") is None:
            pytest.skip("redis-server is not installed (apt-get install redis-server)")
        self.port, self.folder, self.options = port or free_port(), folder, options
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        base = ["--dir", str(self.folder), "--save", "", "--appendonly", "no", "--bind", "127.0.0.1"]
        port = [] if "--tls-port" in self.options else ["--port", str(self.port)]
        command = ["redis-server", *port, *base, *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.05)
        raise AssertionError("redis-server did not start")

    @property
    def address(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)
            self.process = None


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[list[Server]]:
    """Three masters that share the slots."""
    nodes = [Server(folder / str(at), "--cluster-enabled", "yes", "--cluster-node-timeout", "2000") for at in range(3)]
    try:
        places = [f"127.0.0.1:{node.port}" for node in nodes]
        subprocess.run(["redis-cli", "--cluster", "create", *places, "--cluster-yes"], check=True, capture_output=True)
        for node in nodes:
            for _ in range(100):
                if node.client.cluster("INFO").get("cluster_state") == "ok":
                    break
                time.sleep(0.1)
        yield nodes
    finally:
        for node in nodes:
            node.stop()

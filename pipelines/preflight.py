"""What can be known before the first step of a run and would make it fail after its costly steps."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from contracts import storage
from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from contracts.tracking import check_experiment
from feature_repo.stores.redis_address import parse_address
from pipelines.io.events import from_os_error
from pipelines.tasks import get_task

_PATIENCE = 0.5  # seconds that a server may take to accept a connection
_ROOM = 256 << 20  # bytes that must be free where a run writes
_PORTS = {"http": 80, "https": 443}
_PLACES = ("runs", "cache", "data", "artifacts")


def preflight(workflow: str, task: str, where: Endpoints) -> None:
    """Refuse, within a second, a run that could not be finished.

    Raises:
        PlatformError: a server that the run needs does not answer, the run could not be recorded, or a folder that it
            writes to is closed or full.
    """
    for name in _PLACES:
        if not storage.is_remote(where.uri(name)):
            _writable(where.path(name))
    if workflow == "batch_scoring":
        return
    for what, fix, hosts in _servers(task, where):
        _reachable(what, fix, hosts)
    if workflow in ("full", "training"):
        check_experiment(where, task)


def _writable(folder: Path) -> None:
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise from_os_error(PermissionError(errno.EACCES, "this user may not write there", str(there)), "the run")
    if (free := shutil.disk_usage(there).free) < _ROOM:
        raise PlatformError(
            f"little space is left on the disk of {there}: {free / 1e6:,.0f} MB",
            detail=f"a run needs at least {_ROOM / 1e6:,.0f} MB",
            fix="free some space, or set another folder in the profile",
            code="disk_full",
        )


def _servers(task: str, where: Endpoints) -> Iterator[tuple[str, str, list[tuple[str, int]]]]:
    """(what it is, the cure, hosts of which one must answer) of each server that a run of `task` writes to."""
    online = where.uri("online")
    if get_task(task).feature_service and online.startswith(("redis://", "rediss://")):
        store = parse_address(online)
        fix = "start it, or correct `online` of the profile (FAIRLEAD_ONLINE)"
        yield f"the online store {store.place}", fix, store.hosts
    address = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    parts = urlsplit(address)
    remote = any(storage.is_remote(where.uri(name)) for name in ("data", "artifacts", "features"))
    if remote and parts.hostname and not urllib.request.getproxies():
        yield (
            f"the object storage {address}",
            "start it, or correct AWS_ENDPOINT_URL",
            [(parts.hostname, parts.port or _PORTS.get(parts.scheme, 443))],
        )


def _reachable(what: str, fix: str, hosts: list[tuple[str, int]]) -> None:
    reasons = []
    for host, port in hosts:
        try:
            socket.create_connection((host, port), timeout=_PATIENCE).close()
            return
        except OSError as err:
            reasons.append(f"{host}:{port}: {err}")
    raise PlatformError(f"{what} does not answer", detail="; ".join(reasons), fix=fix, code="unreachable")

"""Addresses of a cluster's services on this machine: by ``kubectl port-forward``, for as long as the command runs."""

from __future__ import annotations

import atexit
import base64
import contextlib
import os
import re
import select
import shutil
import socket
import subprocess
import threading
import time
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from contracts.errors import PlatformError
from deploy.cli.cluster.kube import Kube

if TYPE_CHECKING:
    from deploy.cli.cluster.cluster_settings import Cluster, Profile, SecretRef

_PATIENCE = 20.0  # seconds until a forwarded port must be there


def reached(profile: Profile) -> Profile:
    """The same profile with the tracking server reachable from here, and S3 for this process.

    Inside the cluster, where names of services resolve, nothing is forwarded.
    """
    cluster = profile.cluster
    if cluster is None:
        return profile
    if any(value.startswith("s3://") for value in profile.model_dump().values() if isinstance(value, str)):
        use_storage(cluster)
    return profile.model_copy(update={"tracking": reach(profile.tracking, cluster)})


def use_storage(cluster: Cluster) -> None:
    """Set the AWS_* variables that are not set, from the profile and its Secret."""
    storage = cluster.storage
    if storage.endpoint and "AWS_ENDPOINT_URL" not in os.environ:
        os.environ["AWS_ENDPOINT_URL"] = reach(storage.endpoint, cluster)
    os.environ.setdefault("AWS_REGION", storage.region)
    if storage.secret.name and "AWS_ACCESS_KEY_ID" not in os.environ:
        user, password = read_secret(cluster, storage.secret)
        os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"] = user, password


def read_secret(cluster: Cluster, ref: SecretRef) -> tuple[str, str]:
    """User and password of a Secret.

    Raises:
        PlatformError: ``code="no_secret"``: there is none of that name, or it has not these keys.
    """
    found = Kube(cluster.namespace, cluster.context).get("secret", ref.name)
    data: dict[str, str] = (found or {}).get("data", {})
    if absent := [key for key in (ref.user_key, ref.password_key) if key not in data]:
        raise PlatformError(
            f"Secret {ref.name} of namespace {cluster.namespace} "
            + (f"has no key {absent[0]!r}" if found else "is not there"),
            detail=f"its keys: {', '.join(sorted(data)) or 'none'}",
            fix="correct cluster.storage.secret of the profile, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            code="no_secret",
        )
    return tuple(base64.b64decode(data[key]).decode() for key in (ref.user_key, ref.password_key))  # type: ignore[return-value]


def reach(url: str, cluster: Cluster) -> str:
    """An address of this machine for a service's; the same one when it can be reached as it is."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or resolves(parts.hostname):
        return url
    if "KUBERNETES_SERVICE_HOST" in os.environ and not shutil.which("kubectl"):
        return url  # in a pod, which network policies let ask for names a moment after its start
    service, _, rest = parts.hostname.partition(".")
    namespace = rest.partition(".")[0] or cluster.namespace
    port = _forward(cluster.context, namespace, service, parts.port or (443 if parts.scheme == "https" else 80))
    return f"{parts.scheme}://127.0.0.1:{port}"


def resolves(host: str) -> bool:
    """Whether a name has an address here, as those of services have in a pod."""
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return False
    return True


@lru_cache
def _forward(context: str, namespace: str, service: str, port: int) -> int:
    """A port of this machine that leads to the service's until this process ends."""
    command = Kube(namespace, context).command("port-forward", f"service/{service}")
    forward = _Forward([*command, f":{port}"])
    lines: list[str] = []
    end = time.monotonic() + _PATIENCE
    while select.select([forward.said], [], [], max(0.0, end - time.monotonic()))[0]:
        line = forward.said.readline()
        if found := re.search(r"127\.0\.0\.1:(\d+)", line):
            again = [*command, f"{found[1]}:{port}"]
            threading.Thread(target=forward.keep, args=(again,), daemon=True).start()
            return int(found[1])
        if not line:
            break
        lines.append(line)
    forward.close()
    raise PlatformError(
        f"cannot reach service {service} of namespace {namespace}",
        detail="".join(lines).strip() or f"no answer within {_PATIENCE:.0f} s",
        fix="is it installed and ready? see: fairlead doctor --cluster",
        code="unreachable",
    )


class _Forward:
    """A running kubectl, which is started again when it ends: it does when one connection breaks or the pod moves."""

    def __init__(self, command: list[str]) -> None:
        self._lock, self._closed = threading.Lock(), False
        self._start(command)
        atexit.register(self.close)

    def keep(self, command: list[str]) -> None:
        """Start `command` whenever the one before has ended, until this process ends."""
        pause = 0.1
        while not self._closed:
            began = time.monotonic()
            for _ in self.said:  # a line per connection; unread they would fill the pipe and stop it
                pass
            self._child.wait()
            pause = 0.1 if time.monotonic() - began > 10 else min(2 * pause, 5.0)
            time.sleep(pause)
            with self._lock, contextlib.suppress(OSError):  # kubectl itself may be replaced meanwhile
                if not self._closed:
                    self._start(command)

    def close(self) -> None:
        """End it for good."""
        with self._lock:
            self._closed = True
            self._child.kill()

    def _start(self, command: list[str]) -> None:
        self._child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self._child.stdout is not None
        self.said = self._child.stdout

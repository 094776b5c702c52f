"""`helm test` of connections: from a pod with the labels of a part to all that the part has to reach.

EDGES is a list of {name, scheme, host, port, needed} as JSON, FROM the part's name. What is tried is what a client says
first: a connection shows that a network policy lets it through, the answer that the right server is behind it.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import sys
import time
from collections.abc import Callable

SECONDS = 5
PATIENCE = 60  # policies take a moment to know a new pod, and servers to start
_HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_SETTINGS = 4
FAILED = "FAILED"


def grpc(host: str, port: int) -> None:
    """The server begins a connection of HTTP/2, which gRPC runs over."""
    with socket.create_connection((host, port), SECONDS) as connection:
        connection.sendall(_HTTP2)
        frame = connection.recv(9)
        if len(frame) < 4 or frame[3] != _SETTINGS:
            raise ValueError(f"it does not speak HTTP/2, but says {frame!r}")


def get(path: str, *accepted: int) -> Callable[[str, int], None]:
    """A probe: GET of `path` has one of the statuses; without any, each that is no server's error."""

    def probe(host: str, port: int) -> None:
        connection = http.client.HTTPConnection(host, port, timeout=SECONDS)
        try:
            connection.request("GET", path)
            _accept(connection.getresponse(), accepted or range(200, 500))
        finally:
            connection.close()

    return probe


def web(host: str, port: int) -> None:
    """The proxy of the web page brings a call to the metadata store, and its answer back."""
    connection = http.client.HTTPConnection(host, port, timeout=SECONDS)
    try:
        path = "/ml_metadata.MetadataStoreService/GetArtifactTypes"
        headers = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}
        connection.request("POST", path, bytes(5), headers)
        answer = connection.getresponse()
        if answer.status == http.client.SERVICE_UNAVAILABLE:
            raise ValueError("the proxy is there, and reaches no metadata store. Fix: see that metadata-grpc is Ready")
        body = _accept(answer, (200,))
        if answer.getheader("grpc-status", "0") != "0" or b"grpc-status:0" not in body.replace(b" ", b""):
            raise ValueError(f"the metadata store does not answer: {answer.getheader('grpc-message') or body[-200:]!r}")
    finally:
        connection.close()


def redis(host: str, port: int) -> None:
    """Redis answers, if only that a password is needed."""
    with socket.create_connection((host, port), SECONDS) as connection:
        connection.sendall(b"PING\r\n")
        said = connection.recv(64)
        if said[:1] not in (b"+", b"-"):
            raise ValueError(f"it does not speak Redis' protocol, but says {said!r}")


def sql(host: str, port: int) -> None:
    """MariaDB and MySQL greet with their protocol and version."""
    with socket.create_connection((host, port), SECONDS) as connection:
        said = connection.recv(64)
        if len(said) < 5 or said[4] not in (10, 255):
            raise ValueError(f"it does not speak MySQL's protocol, but says {said!r}")


def tls(host: str, port: int) -> None:
    """The Kubernetes API is there."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # who it is matters to its clients, not here
    with socket.create_connection((host, port), SECONDS) as connection, context.wrap_socket(connection):
        pass


PROBES: dict[str, Callable[[str, int], None]] = {
    "sql:3306": sql,
    "redis:6379": redis,
    "s3:9000": get("/"),
    "mlflow:5000": get("/health", 200),
    "prometheus:9090": get("/-/ready", 200),
    "pipelines:8888": get("/apis/v2beta1/healthz", 200),
    "pipelines:8887": grpc,
    "metadata:8080": grpc,
    "metadata-web:9090": web,
    "pipelines-ui:3000": get("/apis/v1beta1/healthz", 200),
    "console:8600": get("/healthz", 200),
    "rollouts:9110": get("/metrics", 200),
    "kubernetes": tls,
}


def _accept(answer: http.client.HTTPResponse, accepted: range | tuple[int, ...]) -> bytes:
    body = answer.read()
    if answer.status not in accepted:
        raise ValueError(f"it answers {answer.status} {answer.reason}: {body[:200]!r}")
    return body


def explain(error: Exception) -> str:
    """What an error of a connection means here, and what to look at."""
    if isinstance(error, socket.gaierror):
        return "its name is not known. Fix: see that its part is installed: kubectl get services"
    if isinstance(error, TimeoutError):
        return (
            "no answer, as when a network policy drops what is sent. Fix: kubectl get networkpolicies, for one that is "
            "not of this release, and see that its pod is Ready"
        )
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens. Fix: kubectl get pods, and the logs of the one that is not Ready"
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def attempt(edge: dict[str, str], until: float) -> str:
    """Try one connection until it works, and say what came of it."""
    began = time.monotonic()
    probe = tls if edge["scheme"] == "https" else PROBES[edge["name"]]
    while True:
        try:
            probe(edge["host"], int(edge["port"]))
        except (OSError, ValueError, http.client.HTTPException) as err:
            if not edge["needed"] and isinstance(err, socket.gaierror) and err.errno == socket.EAI_NONAME:
                return "ok, it is not installed"
            if time.monotonic() > until:
                return f"{FAILED}, {explain(err)}"
        else:
            return f"ok in {time.monotonic() - began:.1f} s"
        time.sleep(1)


def run() -> int:
    """Try every edge and report each in one line; returns how many failed."""
    until, failed = time.monotonic() + PATIENCE, 0
    for edge in json.loads(os.environ["EDGES"]):
        said = attempt(edge, until)
        failed += said.startswith(FAILED)
        sys.stdout.write(f"{os.environ['FROM']} -> {edge['host']}:{edge['port']}: {said}\n")
        sys.stdout.flush()
    return failed


if __name__ == "__main__":
    raise SystemExit(min(run(), 1))

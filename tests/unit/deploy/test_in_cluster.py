"""The Kubernetes API as a pod asks it: over TLS, by the token of its ServiceAccount."""

from __future__ import annotations

import datetime
import ipaddress
import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from contracts.errors import PlatformError
from deploy.cli.cluster.in_cluster import InCluster
from services.rollout.kubernetes import Kubernetes

PODS = [{"metadata": {"name": f"pod-{n}", "labels": {"pipeline/runid": "r-1"}}} for n in range(3)]


@dataclass
class Served:
    """An API server, with what it was asked."""

    kube: Any = None
    keeper: Any = None
    changed: list[tuple[str, str, bytes]] = field(default_factory=list)
    asked: list[tuple[str, dict[str, list[str]], str]] = field(default_factory=list)

    def answer(self, path: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        if path.endswith("/log"):
            return 200, "one\ntwo\n"
        if path == "/api/v1/nodes":
            return 403, {"kind": "Status", "message": 'nodes is forbidden: User "x" cannot list resource "nodes"'}
        if path == "/api/v1/namespaces/fairlead/pods":
            first = "continue" not in query
            metadata = {"continue": "next"} if first else {}
            items = PODS[:2] if first else PODS[2:]
            return 200, {"apiVersion": "v1", "kind": "PodList", "metadata": metadata, "items": items}
        items = [{"metadata": {"name": "full-x"}, "status": {"phase": "Failed"}}]
        return 200, {"apiVersion": "argoproj.io/v1alpha1", "kind": "WorkflowList", "metadata": {}, "items": items}


def certificate(folder: Path) -> ssl.SSLContext:
    """A certificate of 127.0.0.1, kept as the authority that pods trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
    now = datetime.datetime.now(datetime.UTC)
    hosts = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(hosts, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "server.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.crt", folder / "server.key")
    return context


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = parse_qs(parts.query)
            made.asked.append((parts.path, query, self.headers["Authorization"]))
            status, body = made.answer(parts.path, query)
            data = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_PATCH(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            made.changed.append((self.path, self.headers["content-type"], body))
            gone = self.path.endswith("/gone")
            data = b'{"message": "no such map"}' if gone else b'{"metadata": {"resourceVersion": "2"}}'
            self.send_response(404 if gone else 200)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = certificate(tmp_path).wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    (tmp_path / "token").write_text("t-1\n")
    environ = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server.server_port)}
    made.kube, made.keeper = InCluster("fairlead", tmp_path, environ), Kubernetes("fairlead", tmp_path, environ)
    yield made
    server.shutdown()
    server.server_close()


def test_objects_of_several_kinds_are_listed_page_by_page_as_kubectl_shows_them(served: Served, tmp_path: Path) -> None:
    found = served.kube.items("workflows.argoproj.io,pods", "-l", "pipeline/runid=r-1", "--request-timeout=15s")
    assert [item["kind"] for item in found] == ["Workflow", "Pod", "Pod", "Pod"]
    assert [item["metadata"]["name"] for item in found] == ["full-x", "pod-0", "pod-1", "pod-2"]
    assert served.asked[0][0] == "/apis/argoproj.io/v1alpha1/namespaces/fairlead/workflows"
    assert {query["labelSelector"][0] for _, query, _ in served.asked} == {"pipeline/runid=r-1"}
    assert served.asked[0][2] == "Bearer t-1"
    (tmp_path / "token").write_text("t-2\n")  # the kubelet renews it
    assert served.kube.log("pod-0", "main") == "one\ntwo\n"
    assert served.asked[-1][0] == "/api/v1/namespaces/fairlead/pods/pod-0/log"
    assert served.asked[-1][1:] == ({"container": ["main"]}, "Bearer t-2")


def test_what_it_may_not_do_and_an_api_that_is_away_are_said(served: Served, tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="Kubernetes refused /api/v1/nodes") as refused:
        served.kube.items("nodes", "--request-timeout=10s")
    assert (refused.value.code, "nodes is forbidden" in refused.value.detail) == ("kubernetes", True)
    away = InCluster("fairlead", tmp_path, {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "1"})
    with pytest.raises(PlatformError, match="Kubernetes does not answer") as silent:
        away.items("pods")
    assert silent.value.code == "kubernetes"


def test_the_keeper_of_rollouts_merges_a_change_into_one_object(served: Served) -> None:
    assert served.keeper.patch("configmaps", "toy", {"data": {"a": "b"}})["metadata"]["resourceVersion"] == "2"
    path = "/api/v1/namespaces/fairlead/configmaps/toy"
    assert served.changed == [(path, "application/merge-patch+json", b'{"data": {"a": "b"}}')]
    with pytest.raises(PlatformError) as refused:
        served.keeper.patch("configmaps", "gone", {})
    assert (refused.value.code, refused.value.detail) == ("not_found", "no such map")

"""Stands where a server of Kubeflow or Argo stands, or Alertmanager: listens on its ports, and says that it is there.

The ports are of the program that is asked for, as a chart starts it; an image that is started without a command is that
of the web page, or of a controller that listens nowhere and has room for one more port. `listener PORT…` listens there.
"""

from __future__ import annotations

import http.server
import json
import os
import signal
import socketserver
import sys
import threading

PORTS = {"apiserver": (8888, 8887), "workflow-controller": (9090, 6060), "alertmanager": (9093,)}
ANSWERS = {
    "/metrics": "fairlead_listener 1\n",
    "/apis/v2beta1/healthz": json.dumps({"multi_user": False}),
    "/apis/v2beta1/pipelines": json.dumps({"pipelines": [{"display_name": "fairlead-full"}]}),
}
_SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


class Web(http.server.BaseHTTPRequestHandler):
    """Says that all is well."""

    def do_GET(self) -> None:
        """Answer every path."""
        body = ANSWERS.get(self.path.partition("?")[0], "ok\n").encode()
        self.send_response(200)
        self.send_header("content-type", "text/plain; version=0.0.4")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep still about probes."""


class Rpc(socketserver.BaseRequestHandler):
    """Begins a connection of HTTP/2 as a gRPC server does, and goes no further."""

    def handle(self) -> None:
        """Send the settings once the client has said what it speaks."""
        if self.request.recv(24).startswith(b"PRI"):
            self.request.sendall(_SETTINGS)
            self.request.recv(1024)


class Server(socketserver.ThreadingTCPServer):
    """Listens for many at once."""

    allow_reuse_address = daemon_threads = True


def main() -> None:
    """Listen until the pod is to end."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    ports = PORTS.get(os.path.basename(sys.argv[0])) or tuple(map(int, sys.argv[1:])) or (3000,)
    for port in ports:
        server = Server(("0.0.0.0", port), Rpc if port == 8887 else Web)
        threading.Thread(target=server.serve_forever).start()


if __name__ == "__main__":
    main()

"""Versions that misbehave on purpose, behind the real router: a small server, and what looks after two of them.

``python tests/rollout_stand_in.py serve PORT VERSION BEHAVIOUR`` is a version; BEHAVIOUR is JSON: share of `errors`,
`seconds` of an answer, how far its scores are `shifted`, and the share that is `wrong` by its labels, kept in `log`.
``python tests/rollout_stand_in.py keep FOLDER PORT`` looks after version 1 and what is asked for.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from deploy.cli.serving.endpoint import Endpoint
from deploy.cli.serving.fleet import LocalFleet
from services.metrics.series import Histogram
from services.metrics.service_metrics import ServiceMetrics
from services.rollout.envoy import Address
from services.rollout.keeper import Keeper
from services.rollout.observation import Labelled
from services.rollout.store import Served, Store
from services.server.launch import ServeCommand

MODEL, LOOK = "toy", 0.25
Labels = Callable[[], Mapping[str, Labelled]]


class StandIn(Endpoint):
    """An `Endpoint` that starts the small server."""

    def __init__(self, folder: Path, version: str, port: int) -> None:
        self.name, self.version, self.host, self.port = MODEL, version, "127.0.0.1", port
        self.url, self.log = f"http://127.0.0.1:{port}", folder / f"{version}.log"
        bundle: Any = SimpleNamespace(path=folder / "bundles" / version)
        self.bundle = bundle
        behaviour = (bundle.path / "bundle.json").read_text()
        argv = (sys.executable, __file__, "serve", str(port), version, behaviour)
        self._command, self._child = ServeCommand(argv=argv, env={}), None


def fleet_of(folder: Path, port: int, promoted: list[str], labels: Labels = dict) -> LocalFleet:
    """The versions whose behaviour is in ``bundles/VERSION/bundle.json``."""

    def make(version: str, at: int, grpc: int) -> Endpoint:
        return StandIn(folder, version, at)

    listen = (Address("127.0.0.1", port),)
    return LocalFleet(folder, listen, make, lambda version, reason: promoted.append(version), time.monotonic, labels)


def keeper_of(folder: Path, port: int, promoted: list[str], labels: Labels = dict) -> tuple[Keeper, LocalFleet]:
    """What looks after the model, going on where another one ended."""
    store, fleet = Store(folder / "state"), fleet_of(folder, port, promoted, labels)
    served = store.read(MODEL) or Served(model=MODEL, version="1")
    return Keeper(store, fleet, lambda rollout, transition: None, served), fleet


def keep(folder: Path, port: int) -> None:
    """Look again and again, until somebody ends it."""
    keeper, _ = keeper_of(folder, port, [])
    while True:
        keeper.tick(time.time())
        time.sleep(LOOK)


def serve(
    port: int,
    version: str,
    errors: float = 0,
    seconds: float = 0,
    shifted: float = 0,
    wrong: float = 0,
    log: str = "",
) -> None:
    """Answer /predict, /readyz and /metrics."""
    metrics, numbers = ServiceMetrics(MODEL, version, ("/predict",)), random.Random(version)
    scores = Histogram("fairlead_prediction_score", "-", ("model", "version"), (0.2, 0.4, 0.6, 0.8), metrics.registry)
    metrics.predicting(["yes", "no"], (), None)
    observed = scores.labels(MODEL, version)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            start = time.perf_counter()
            self.rfile.read(int(self.headers.get("content-length", 0)))
            time.sleep(seconds)
            failed, score = numbers.random() < errors, min(1.0, numbers.random() * 0.5 + shifted)
            if not failed:
                metrics.labels["yes" if score > 0.5 else "no"].inc()
                observed.observe(score)
                if log:
                    _note(log, version, score > 0.5, numbers.random() < wrong)
            self._send(500 if failed else 200, version.encode())
            metrics.answered("/predict", 500 if failed else 200, time.perf_counter() - start)

        def do_GET(self) -> None:
            self._send(200, metrics.render()[0] if self.path == "/metrics" else version.encode())

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads, request_queue_size = True, 100

    Server(("127.0.0.1", port), Handler).serve_forever()


def _note(log: str, version: str, yes: bool, wrong: bool) -> None:
    """Log an answer and what turned out to be true of it."""
    from services.feedback import layout
    from services.feedback.line_file import append
    from services.feedback.records import SCHEMA, Label, Prediction, line_of
    from services.feedback.writing import write_labels

    words, now = ("no", "yes"), datetime.now(UTC)
    one = Prediction(
        id=f"{time.time_ns() // 1_000_000:012x}{random.getrandbits(80):020x}", time=now, model=MODEL, version=version,
        digest="", answer={"label": words[yes]}, inputs={}, entities={}, flags=(), latency_ms=None, schema=SCHEMA,
    )  # fmt: skip
    append(layout.own_file(layout.home(log, MODEL)), line_of(one))
    write_labels(log, MODEL, [Label(id=one.id, label=words[yes != wrong], time=now)])


if __name__ == "__main__":
    if sys.argv[1] == "keep":
        keep(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        serve(int(sys.argv[2]), sys.argv[3], **json.loads(sys.argv[4]))

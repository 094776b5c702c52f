"""A command line to call, a home of its own, and a stand-in for the workflow process."""

from __future__ import annotations

import functools
import http.server
import json
import re
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from contracts import storage
from contracts.endpoints import Endpoints
from tests.kfp_stand_in import StandIn, kfp_stand_in
from tests.kubectl_stand_in import node
from tests.s3_folder import FolderClient


@dataclass(frozen=True)
class Said:
    """What a command printed and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home that every command of the test uses."""
    folder = tmp_path / "home"
    monkeypatch.setenv("FAIRLEAD_HOME", str(folder))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))  # homes of other tests are not known here
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def endpoints(home: Path) -> Endpoints:
    return Endpoints(home=str(home)).resolved()


@pytest.fixture
def fairlead(home: Path, call: Callable[..., Said]) -> Callable[..., Said]:
    """`call` with a home: ``fairlead("runs", "--json")``."""
    return call


# Typer reads the signature of every command again at each call.
_command = functools.cache(typer.main.get_command)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """Call the command line in this process, in whatever home the current folder has."""

    def call(*arguments: str, stdin: str = "") -> Said:
        from deploy.cli.app import app

        monkeypatch.setattr("sys.argv", ["fairlead", *arguments])
        monkeypatch.setattr("typer.testing._get_command", _command)
        result = CliRunner().invoke(app, list(arguments), input=stdin)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Said(result.exit_code, result.stdout, result.stderr)

    return call


@pytest.fixture
def write_run(endpoints: Endpoints) -> Callable[..., Path]:
    """Write a run.json as the runner does; keyword arguments replace its fields."""

    def write(run_id: str, **changes: Any) -> Path:
        folder = endpoints.path("runs") / run_id
        folder.mkdir(parents=True)
        document = {
            "run_id": run_id,
            "status": "failed",
            "task": "fraud",
            "recipe": "lightgbm",
            "config": {"recipe": "lightgbm"},
            "source": "",
            "started": "2026-01-02T03:04:05+00:00",
            "finished": "2026-01-02T03:05:05+00:00",
            "seconds": 60.0,
            "steps": {"ingest": {"status": "finished", "seconds": 1.5}},
            **changes,
        }
        (folder / "run.json").write_text(json.dumps(document))
        return folder

    return write


@pytest.fixture
def workflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Replace ``python -m pipelines run`` by the given Python source; its sys.argv has the run's arguments."""

    def replace(source: str) -> None:
        script = tmp_path / "workflow.py"
        script.write_text(source)
        monkeypatch.setattr("deploy.cli.runs.workflow_process.COMMAND", (sys.executable, str(script)))

    return replace


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderClient:
    """The store of a cluster: S3, in a folder."""
    client = FolderClient(tmp_path / "s3")
    monkeypatch.setattr(storage, "_client", lambda: client)
    for name, value in (("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), ("AWS_ENDPOINT_URL", "http://x")):
        monkeypatch.setenv(name, value)
    return client


@pytest.fixture
def kubeflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lake: FolderClient) -> Iterator[StandIn]:
    """Kubeflow Pipelines and the cluster below it, twenty times as fast and looked at more often.

    Its time waits for whoever looks: a machine may be slow.
    """
    monkeypatch.setattr("deploy.cli.cluster_runs.follow._POLL", 0.1)
    monkeypatch.setattr("deploy.cli.cluster_runs.follow._UNSEEN", 0.5)
    monkeypatch.setattr("deploy.cli.cluster_runs.follow._SETTLING", 30.0)  # of a machine that has much else to do
    with kfp_stand_in(speed=20.0, lead=0.25) as made:
        made.put_on_path(tmp_path, monkeypatch)
        made.kubectl.objects = [node(cpu="16", memory="64Gi", **{"nvidia.com/gpu": "8"})]
        yield made


@pytest.fixture
def cluster_profile(kubeflow: StandIn, home: Path) -> str:
    """The profile of that cluster."""
    places = {name: f"s3://lake/{name}" for name in ("data", "artifacts", "features", "predictions")}
    cluster = {"kfp": kubeflow.url, "storage": {"endpoint": "http://127.0.0.1:9"}, "image": "registry/pipelines:1"}
    file = home.parent / "profile.yaml"
    document = {**places, "tracking": "http://127.0.0.1:1", "online": "redis://127.0.0.1:1/0", "cluster": cluster}
    file.write_text(yaml.safe_dump(document))
    return str(file)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replace kubectl and helm by scripts; returns a function from name and shell source to nothing."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def write(name: str, source: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{source}\n")
        (folder / name).chmod(0o755)

    write.folder = folder  # type: ignore[attr-defined]
    return write


@pytest.fixture
def serve() -> Iterator[Callable[[dict[str, object]], str]]:
    """A server that answers paths, by patterns, with documents or texts; its address."""
    servers = []

    def start(answers: dict[str, object]) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = urllib.parse.unquote_plus(self.path)
                found = next((answer for form, answer in answers.items() if re.search(form, path)), None)
                self.send_response(200 if found is not None else 404)
                self.end_headers()
                self.wfile.write((found if isinstance(found, str) else json.dumps(found)).encode())

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                self.do_GET()

            def log_message(self, *args: object) -> None:
                return

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()

"""``fairlead ui``: the MLflow page of a profile."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request

from contracts.errors import PlatformError
from deploy.cli.machine.ports import HOST, is_free, next_free
from deploy.cli.machine.subprocesses import stop_group
from deploy.cli.profiles.loading import load_endpoints
from deploy.cli.terminal.output import console, write_json

_PATIENCE = 90.0  # seconds; the first start creates the database


def run_ui(profile: str, port: int, as_json: bool) -> None:
    """Serve the page until Ctrl-C; with a tracking server in the profile, only say where it is."""
    endpoints = load_endpoints(profile)
    if endpoints.tracking.startswith("http"):
        _say(as_json, endpoints.tracking, "MLflow is already served")
        return
    if not is_free(port):
        raise PlatformError(
            f"port {port} is in use",
            fix=f"see what is there: http://{HOST}:{port}, or take another: --port {next_free(port)}",
            code="port_in_use",
        )
    endpoints.path("home").mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", endpoints.tracking]
    command += ["--host", HOST, "--port", str(port), "--workers", "1"]
    quiet = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # two more processes, for what nobody asks for here
        "GIT_PYTHON_REFRESH": "quiet",
    }
    child = subprocess.Popen(
        command, env=os.environ | quiet, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        _wait(child, port)
        _say(as_json, f"http://{HOST}:{port}", "MLflow is up; Ctrl-C ends it")
        assert child.stderr is not None
        for _ in child.stderr:  # keep its pipe empty
            pass
        child.wait()
    except KeyboardInterrupt:
        if not as_json:
            console().print("\nStopped.")
    finally:
        stop_group(child)


def _wait(child: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if child.poll() is not None:
            assert child.stderr is not None
            text = child.stderr.read().decode(errors="replace").strip()[-600:]
            missing = "No module named" in text
            fix = "pip install 'fairlead[pipelines]'" if missing else "fairlead doctor"
            raise PlatformError("MLflow did not start", detail=text, fix=fix)
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise PlatformError("MLflow did not start", detail=f"no answer within {_PATIENCE:.0f} s", fix="fairlead doctor")


def _say(as_json: bool, url: str, what: str) -> None:
    if as_json:
        write_json({"mlflow_url": url})
    else:
        console().print(f"{what}: [bold]{url}[/]")

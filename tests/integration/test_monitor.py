"""The monitor as a process: it is killed, started again, and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.ports import free_port
from tests.monitor_log import Log

pytestmark = pytest.mark.integration
ROWS = 'fairlead_monitor_rows_total{model="m",version="1"}'


@contextlib.contextmanager
def _started(log: Log, port: int) -> Iterator[subprocess.Popen[bytes]]:
    given = {"PREDICTIONS": log.folder, "ARTIFACTS": log.artifacts, "PORT": port, "EVERY_SECONDS": 0.2}
    env = {**os.environ, **{f"FAIRLEAD_MONITOR_{name}": str(value) for name, value in given.items()}}
    process = subprocess.Popen([sys.executable, "-m", "services.monitor"], env=env, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _metric(port: int, name: str, wanted: str) -> str:
    """The value of a series, once it is the wanted one; else what it was last."""
    found, deadline = "", time.monotonic() + 60
    while found != wanted and time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                lines = answer.read().decode().splitlines()
            found = next((line.rpartition(" ")[2] for line in lines if line.startswith(name)), found)
        time.sleep(0.1)
    return found


def test_a_killed_monitor_goes_on_and_counts_each_record_once(tmp_path: Path) -> None:
    log, port = Log(tmp_path), free_port()
    log.now()
    log.write(20)
    with _started(log, port) as process:
        assert _metric(port, ROWS, "1000.0") == "1000.0"
        process.send_signal(signal.SIGKILL)
    log.write(30, colour="grey")
    with _started(log, port) as process:
        assert _metric(port, ROWS, "2500.0") == "2500.0"
        drift = 'fairlead_monitor_drift_detected{input="colour",model="m",version="1"}'
        assert _metric(port, drift, "1.0") == "1.0"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_wrong_settings_are_one_line_and_a_status(tmp_path: Path) -> None:
    env = {**os.environ, "FAIRLEAD_MONITOR_PREDICTION": str(tmp_path)}
    done = subprocess.run([sys.executable, "-m", "services.monitor"], env=env, capture_output=True, text=True)
    assert done.returncode == 2
    assert '"code":"bad_settings"' in done.stderr
    assert "prediction" in done.stderr

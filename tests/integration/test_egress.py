"""Nothing calls outside when it runs: a training and a service where there is nothing but loopback."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.cli.machine.ports import free_port
from tests.closed_network import run_closed, why_not
from tests.packages import install_visits, write_visits
from tests.shell import Shell, documents

pytestmark = pytest.mark.integration


needs_namespaces = pytest.mark.skipif(bool(why_not()), reason=f"no network of one's own here: {why_not()}")


def train_and_serve(home: str) -> Any:
    """The gate of a run, and what the endpoint of its model answers."""
    shell = Shell(Path(home))
    shell.environment["PYTHONPATH"] = os.environ["PYTHONPATH"]
    report = shell.json("run", "visits", "--source", "visits.csv")
    given = [{"guest": "G1", "amount": 40.0}, {"guest": "G29", "amount": 300.0}]
    process = shell.start("serve", "visits", "--port", str(free_port()), "--json")
    try:
        request = urllib.request.Request(
            f"{documents(process)['url']}/predict",
            json.dumps({"instances": given}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as response:
            answers = json.load(response)["predictions"]
        return {"champion": report["result"]["champion"], "gate": report["gate"], "predictions": answers}
    finally:
        process.send_signal(signal.SIGTERM)  # some send what they have counted at the end
        process.communicate(timeout=60)


def call_out(way: str) -> None:
    """Something that calls outside, and says nothing when it cannot."""
    with contextlib.suppress(OSError):
        if way == "name":
            socket.getaddrinfo("telemetry.example.com", 443)
        elif way == "other language":
            subprocess.run(["bash", "-c", "echo > /dev/tcp/192.0.2.1/443"], stderr=subprocess.DEVNULL)
        elif way == "datagram":
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
                one.sendto(b"x", ("192.0.2.1", 8125))
        else:
            socket.create_connection(("2001:db8::1" if way == "IPv6" else "192.0.2.1", 443), timeout=1)


@needs_namespaces
@pytest.mark.parametrize("way", ["name", "IPv4", "IPv6", "datagram", "other language"])
def test_a_call_that_hides_its_failure_is_counted(tmp_path: Path, way: str) -> None:
    found = run_closed("tests.integration.test_egress:call_out", tmp_path / "closed", "", way=way)
    assert found.unrouted >= 1
    assert [call for call in found.calls if __file__ in call] or way == "other language"


def test_a_task_of_a_package_with_features_runs_and_is_served_and_nothing_calls_outside(
    tmp_path: Path, with_tables: Callable[[Path], Path]
) -> None:
    install_visits(tmp_path / "site")
    home = with_tables(tmp_path / "home")
    write_visits(tmp_path / "visits.csv")
    story = "tests.integration.test_egress:train_and_serve"
    found = run_closed(story, tmp_path / "closed", str(tmp_path / "site"), home=str(home))
    assert found.result["champion"] is True, found.result["gate"]
    assert [answer["label"] for answer in found.result["predictions"]] == ["yes", "no"]
    assert [answer["flags"] for answer in found.result["predictions"]] == [[], []]
    assert found.calls == ()
    if found.unrouted is None:
        pytest.skip(f"it ran, but only calls of Python were counted: {why_not()}")
    assert found.unrouted == 0

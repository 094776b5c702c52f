"""Nothing calls outside when it runs, where there is nothing but loopback; an extra is installed from wheels alone."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.ports import free_port
from tests.closed_network import run_closed, why_not
from tests.packages import install_visits, write_visits
from tests.shell import ROOT, Shell, documents

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
    assert found.unrouted is not None
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


def write_wheel(folder: Path, name: str, *needs: str) -> None:
    """A wheel with one module of its name."""
    info = f"{name}-1.0.dist-info"
    metadata = [
        f"Name: {name}",
        "Version: 1.0",
        "Provides-Extra: services",
        *(f"Requires-Dist: {one}" for one in needs),
    ]
    files = {
        f"{name}.py": "",
        f"{info}/METADATA": "\n".join(["Metadata-Version: 2.1", *metadata, ""]),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)


def test_what_the_recipe_of_wheels_says_installs_an_extra_without_an_index(tmp_path: Path) -> None:
    """The recipe with a stand-in for what downloads; what it prints, with pip itself."""
    made, stale = tmp_path / "made", tmp_path / "build" / "wheels"
    for folder in (made, stale, tmp_path / "build" / "lib", tmp_path / ".venv" / "bin"):
        folder.mkdir(parents=True)
    write_wheel(made, "fairlead", "leaf ; extra == 'services'")
    write_wheel(made, "leaf")
    (stale / "old-1.0-py3-none-any.whl").touch()
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > said\nmkdir build/wheels && cp made/*.whl build/wheels\n')
    python.chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    command = ["make", "-s", "wheels", "EXTRA=services", "RUN_ENV="]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    asked = (tmp_path / "said").read_text().splitlines()
    assert asked[:3] == ["-m", "pip", "wheel"]
    assert asked[-5:] == ["--wheel-dir", "build/wheels", "-c", "constraints.txt", ".[services]"]
    assert not (tmp_path / "build" / "lib").exists()
    told = done.stdout.strip().removeprefix("There: ")
    program = f"{shlex.quote(sys.executable)} -m pip --disable-pip-version-check"
    install = told.replace("&& pip install", f"&& {program} install --quiet --target {tmp_path / 'there'}")
    assert install.count("--no-index") == 1
    plain = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PIP_CONFIG_FILE": os.devnull,
    }  # no other place of wheels
    given: dict[str, Any] = {"cwd": tmp_path / "build" / "wheels", "env": plain, "capture_output": True}
    subprocess.run(["sh", "-c", install], check=True, **given)
    assert {one.stem for one in (tmp_path / "there").glob("*.py")} == {"fairlead", "leaf"}
    with (tmp_path / "build" / "wheels" / "leaf-1.0-py3-none-any.whl").open("ab") as wheel:
        wheel.write(b"x")
    assert subprocess.run(["sh", "-c", install], **given).returncode != 0

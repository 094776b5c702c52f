"""How a service is started, and with which settings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from contracts.errors import PlatformError
from contracts.settings import Settings
from services.server.launch import main, serve_command
from services.settings import ServiceSettings, load_settings


def test_the_command_carries_everything_in_its_environment() -> None:
    command = serve_command(
        "tabular",
        "/b",
        port=4000,
        version="1e5",
        name="fraud",
        online="/o.db",
        predictions="/p",
        settings={"threads": 2, "predictions.sample": 0.5},
        environ={"PATH": "/bin", "PROMETHEUS_MULTIPROC_DIR": "/x"},
    )
    assert command.argv == (
        sys.executable, "-m", "services.server.launch", "tabular", "--host", "127.0.0.1", "--port", "4000",
    )  # fmt: skip
    settings = load_settings(command.env)
    assert (settings.bundle, settings.version, settings.name, settings.threads) == ("/b", "1e5", "fraud", 2)
    assert (settings.online, settings.predictions.folder, settings.predictions.sample) == ("/o.db", "/p", 0.5)
    assert command.env["BENTOML_DO_NOT_TRACK"] == "true"
    assert "PROMETHEUS_MULTIPROC_DIR" not in command.env
    assert command.env["PATH"] == "/bin"


def test_an_unknown_modality_is_refused() -> None:
    with pytest.raises(PlatformError, match="unknown modality 'video'"):
        serve_command("video", "/b", port=1)


def test_an_unknown_setting_stops_the_process_with_a_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAIRLEAD_SERVICE_BUNDEL", "/b")
    assert main(["tabular"]) == 2
    line = json.loads(capsys.readouterr().err)
    assert line["event"] == "bad_settings"
    assert "bundel" in line["detail"]


def test_no_bundle_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PlatformError, match="no bundle to serve"):
        load_settings({})


def test_what_kubernetes_sets_beside_a_service_called_fairlead_is_not_ours() -> None:
    injected = {"FAIRLEAD_SERVICE_HOST": "10.0.0.1", "FAIRLEAD_SERVICE_PORT": "80", "FAIRLEAD_SERVICE_PORT_HTTP": "80"}
    assert load_settings({"FAIRLEAD_SERVICE_BUNDLE": "/b", **injected}).bundle == "/b"


def test_every_setting_has_a_description() -> None:
    for name, field in ServiceSettings.model_fields.items():
        group = isinstance(field.annotation, type) and issubclass(field.annotation, Settings)
        assert field.description or group, name


def test_the_bento_has_the_packages_of_the_serving_extra() -> None:
    root = Path(__file__).parents[3]
    script = [sys.executable, "deploy/images/requirements.py", "services"]
    packages = subprocess.run(script, cwd=root, capture_output=True, text=True, check=True).stdout.splitlines()
    command_line = ("typer", "rich")
    bento = yaml.safe_load((root / "services" / "bentofile.yaml").read_text())
    assert sorted(bento["python"]["packages"]) == [one for one in packages if not one.startswith(command_line)]


def test_a_setting_may_say_what_an_argument_leaves_out() -> None:
    command = serve_command("text", "/b", port=1, settings={"predictions.folder": "/p"}, environ={})
    assert load_settings(command.env).predictions.folder == "/p"

"""What the doctor finds, and what it says to do."""

from __future__ import annotations

import http.server
import socket
import sqlite3
import threading
from pathlib import Path

import pytest

from deploy.cli.project.checks.extras import PURPOSES, check_packages, extra_packages
from deploy.cli.project.checks.machine import disk, memory, python_version
from deploy.cli.project.checks.places import home as check_home
from deploy.cli.project.checks.places import leftovers, newest_schema, ports, registry


def test_only_python_3_11_will_do() -> None:
    assert python_version((3, 11)).level == "ok"
    assert python_version((3, 12)).level == "fail"
    assert "3.11" in python_version((3, 12)).fix


@pytest.mark.parametrize(("available", "level"), [(1 << 29, "fail"), (3 << 29, "warn"), (1 << 33, "ok"), (None, "ok")])
def test_memory_is_graded(available, level) -> None:
    assert memory(available).level == level


def test_a_full_disk_fails(tmp_path, monkeypatch) -> None:
    usage = type("Usage", (), {"free": 1 << 20})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    assert disk(tmp_path).level == "fail"
    assert "FAIRLEAD_HOME" in disk(tmp_path).fix


def test_every_extra_is_read_from_our_metadata() -> None:
    assert set(PURPOSES) < set(extra_packages())
    assert "kfp" in extra_packages()["pipelines"]


def test_a_missing_package_names_its_extra_and_how_to_get_it(monkeypatch) -> None:
    monkeypatch.setattr("deploy.cli.project.checks.extras.installed", lambda name: name not in ("kfp", "torch"))
    found = {finding.check: finding for finding in check_packages()}
    assert found["extra pipelines"].level == "fail"
    assert found["extra pipelines"].found == "missing: kfp"
    assert ".[pipelines]" in found["extra pipelines"].fix
    assert found["extra torch"].level == "warn"
    assert found["extra services"].level == "ok"


def test_a_home_that_is_a_file_fails(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    assert check_home(tmp_path / "file" / "home").level == "fail"
    assert check_home(tmp_path / "new").level == "ok"


def test_the_schema_of_the_installed_mlflow_is_one_migration() -> None:
    assert len(newest_schema()) == 1


@pytest.mark.parametrize(("version", "level"), [("", "fail"), ("0001", "fail"), (None, "ok")])
def test_a_database_of_another_mlflow_fails(tmp_path, version, level) -> None:
    version = next(iter(newest_schema())) if version is None else version
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("create table alembic_version (version_num text)")
        database.execute("insert into alembic_version values (?)", [version])
    assert registry(f"sqlite:///{tmp_path}/mlflow.db").level == level


def test_a_file_that_is_no_database_fails(tmp_path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database, but long enough to be read as one" * 40)
    found = registry(f"sqlite:///{tmp_path}/mlflow.db")
    assert found.level == "fail"
    assert "not a database" in found.found


def test_a_database_that_does_not_exist_yet_is_fine_and_not_created(tmp_path) -> None:
    assert registry(f"sqlite:///{tmp_path}/mlflow.db").level == "ok"
    assert list(tmp_path.iterdir()) == []


def test_a_tracking_server_is_asked() -> None:
    class Healthy(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Healthy) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert registry(address).level == "ok"
        server.shutdown()
    assert registry(address).level == "fail"


def test_a_port_in_use_names_the_model_that_wants_it(tmp_path) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        (tmp_path / "mine.yaml").write_text("home: x\n")
        (tmp_path / "models").mkdir()
        (tmp_path / "models" / "churn.yaml").write_text(f"port: {busy.getsockname()[1]}\n")
        found = list(ports(str(tmp_path / "mine.yaml")))
    assert [(each.check, each.level) for each in found] == [("port of churn", "warn")]


def test_dead_runs_and_half_written_folders_are_found(endpoints, write_run) -> None:
    assert leftovers(endpoints, "local").level == "ok"
    write_run("fraud-1", status="running", pid=None)
    (Path(endpoints.data) / "fraud" / ".staging-x").mkdir(parents=True)
    found = leftovers(endpoints, "local")
    assert found.level == "warn"
    assert found.found == "1 dead runs, 1 half-written folders"
    assert "--resume fraud-1" in found.fix


def test_doctor_exits_with_1_when_something_fails(fairlead, monkeypatch) -> None:
    said = fairlead("doctor", "--json")
    assert {"check", "level", "found", "fix"} == set(said.json["checks"][0])
    assert said.code == (0 if said.json["ok"] else 1)
    monkeypatch.setattr("deploy.cli.project.checks.extras.installed", lambda name: False)
    said = fairlead("doctor")
    assert said.code == 1
    assert "to mend" in said.out
    assert max(map(len, said.out.splitlines())) <= 100

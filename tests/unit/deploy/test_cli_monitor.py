"""fairlead monitor, over a log on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from deploy.cli.app import app
from services.feedback.label_writing import write_labels
from services.feedback.records import Label
from tests.monitor_log import NOON, Log


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Log:
    made = Log(tmp_path, metrics={"accuracy": 0.6})
    monkeypatch.setenv("FAIRLEAD_HOME", str(tmp_path))
    monkeypatch.setenv("FAIRLEAD_PREDICTIONS", str(made.folder))
    monkeypatch.setenv("FAIRLEAD_ARTIFACTS", str(made.artifacts))
    monkeypatch.setenv("COLUMNS", "140")
    return made


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["monitor", *arguments])


def test_a_pass_shows_each_input_and_what_it_was_compared_with(log: Log) -> None:
    log.write(20, rate=20)
    found = _run("m", "--once")
    assert "m:1  400 rows until 2026-03-02T12:00:20+00:00, against the bundle's baseline (4,000 rows)" in found.output
    assert "no traffic since" in found.output
    for name in ("size", "colour", "(answer)", "(label)"):
        assert name in found.output
    assert found.exit_code == 0


def test_a_change_is_named_and_is_the_exit_code(log: Log) -> None:
    log.now()
    log.write(40, rate=20, colour={"chars": 5})
    found = _run("--all", "--once", "--json")
    assert found.exit_code == 3
    report = json.loads(found.stdout)["models"]["m"]
    assert report["drifted"] == ["colour"]
    again = _run("m", "--once")
    assert again.exit_code == 3
    assert "changed 20" in again.output
    assert "100% new categories" in again.output


def test_a_model_without_a_log_is_an_error_and_nothing_is_written(log: Log) -> None:
    found = _run("nobody", "--once")
    assert found.exit_code == 1
    assert "no predictions of nobody are logged" in found.output
    assert not (log.folder / "nobody").exists()


@pytest.mark.parametrize("arguments", [["--once"], ["m", "--all", "--once"]])
def test_it_wants_one_model_or_all(log: Log, arguments: list[str]) -> None:
    found = _run(*arguments)
    assert found.exit_code == 1
    assert "--all" in found.output


def test_quality_is_shown_beside_the_bundles_and_a_drop_is_the_exit_code(log: Log) -> None:
    log.write(20, rate=20)
    records = [json.loads(line) for line in next((log.folder / "m").glob("*.jsonl")).read_text().splitlines()]
    wrong = {"yes": "no", "no": "yes"}
    write_labels(str(log.folder), "m", [Label(id=one["id"], label=wrong[one["label"]], time=NOON) for one in records])
    found = _run("m", "--once")
    assert found.exit_code == 3
    assert "dropped" in found.output
    assert "To be expected of 400 answers of 2026-03-02" in found.output

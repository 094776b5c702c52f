"""fairlead monitor, over a log on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from deploy.cli.app import app
from services.feedback.records import Label
from services.feedback.writing import write_labels
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


def test_groups_that_are_further_apart_than_the_gate_allows_are_told_and_are_the_exit_code(
    log: Log, tmp_path: Path
) -> None:
    (tmp_path / "other" / "source").mkdir(parents=True)
    known = {"rows": 4_000, "fairness": {"good": "yes", "least": 20}}
    (tmp_path / "other" / "source" / "evaluation.json").write_text(json.dumps(known))
    limit = {"metric": "sex:selection_ratio", "rule": "at least", "value": 0.9, "limit": 0.8, "passed": True}
    made = Log(tmp_path / "other", gate={"passed": True, "checks": [limit]})
    log.digest = made.digest
    made.artifacts.joinpath("m").rename(log.artifacts / "fair")
    log.now()
    log.write(20, rate=20)
    (file,) = (log.folder / "m").glob("*.jsonl")
    file.rename(file.with_name(f"{log.at:%Y-%m-%d}.a.jsonl"))
    (file,) = (log.folder / "m").glob("*.jsonl")
    records = [json.loads(line) for line in file.read_text().splitlines()]
    lines = [f"{one['id']},{'m' if one['label'] == 'yes' or at % 4 == 0 else 'w'}" for at, one in enumerate(records)]
    folder = tmp_path / "groups"
    folder.mkdir()
    (folder / "m.csv").write_text("\n".join(["id,sex", *lines]))
    found = _run("m", "--once", "--groups", str(folder))
    assert found.exit_code == 3
    assert "Groups: sex:selection_ratio is 0" in found.output
    (folder / "m.csv").write_text("sex\nw\n")
    broken = _run("m", "--once", "--groups", str(folder))
    assert broken.exit_code == 0
    assert "Groups are not measured: m.csv has no column id" in broken.output

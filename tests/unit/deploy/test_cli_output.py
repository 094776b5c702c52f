"""Errors, JSON and numbers on the way to people and programs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from contracts.errors import PlatformError
from deploy.cli.app import app
from deploy.cli.terminal.advice import completed
from deploy.cli.terminal.output import guarded, number, seconds, write_json

COMMANDS = {
    *("deploy", "status", "diagnose", "audit", "watch", "labels", "predictions", "rollouts", "console", "monitor"),
    *(
        "demo",
        "tasks",
        "run",
        "runs",
        "plan",
        "search",
        "federate",
        "federation",
        "cost",
        "models",
        "adapters",
        "compare",
        "evaluate",
        "prompts",
        "promote",
        "rollback",
        "privacy",
    ),
    *(
        "chat",
        "fairness",
        "serve",
        "predict",
        "score",
        "doctor",
        "ui",
        "images",
        "new-task",
        "features",
        "data",
        "redact",
        "forget",
        "sources",
        "schedules",
        "pipelines",
    ),
}
GROUPS = {
    "adapters",
    "prompts",
    "federation",
    "audit",
    "predictions",
    "rollouts",
    "features",
    "data",
    "schedules",
    "pipelines",
}


def test_every_command_is_there_and_its_help_has_an_example(fairlead) -> None:
    command: Any = typer.main.get_command(app)
    commands = command.commands
    assert set(commands) == COMMANDS
    inner = [f"{group} {part}" for group in sorted(GROUPS) for part in getattr(commands[group], "commands", {})]
    for name in [*(COMMANDS - GROUPS), *inner]:
        said = fairlead(*name.split(), "--help")
        assert said.code == 0
        assert f"fairlead {name}" in said.out.split("Examples")[1], name
        assert "--json" in said.out, name


def test_importing_the_command_line_imports_no_heavy_library() -> None:
    heavy = ("pandas", "mlflow", "kfp", "numpy", "pydantic", "rich")
    code = f"import sys, deploy.cli.app; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_error_has_headline_detail_and_fix_on_stderr(fairlead) -> None:
    said = fairlead("runs", "nothing-like-it")
    assert said.code == 1
    assert said.out == ""
    assert "Error: no run 'nothing-like-it'" in said.err
    assert "runs: none" in said.err
    assert "Fix: fairlead runs" in said.err


def test_error_is_one_json_document_on_stdout_with_json(fairlead) -> None:
    said = fairlead("runs", "nothing-like-it", "--json")
    assert said.code == 1
    assert said.json["error"]["code"] == "unknown_run"
    assert said.json["error"]["fix"] == "fairlead runs"


def test_a_refusal_of_the_gate_has_an_exit_code_of_its_own() -> None:
    @guarded
    def refuse() -> None:
        raise PlatformError("the gate refused it", code="gate")

    with pytest.raises(typer.Exit) as stop:
        refuse()
    assert stop.value.exit_code == 3


def test_json_has_no_nan(capsys) -> None:
    write_json({"a": [float("nan"), float("inf"), 1.5], "b": Path("x")})
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {"a": [None, None, 1.5], "b": "x"}


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (float("nan"), "-"), (0.12345, "0.1235"), (3, "3"), ("x", "x")]
)
def test_number_for_a_table(value, text) -> None:
    assert number(value) == text


@pytest.mark.parametrize(("value", "text"), [(None, "-"), (0.44, "0.4 s"), (125.0, "2 min 05 s")])
def test_seconds_for_a_table(value, text) -> None:
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("fix", "completed_fix"),
    [
        ("take another: --port 3001", "take another: fairlead serve 'my model' --port 3001"),
        ("--set a=1 --set 'b=x y'", "fairlead serve 'my model' --set a=1 --set 'b=x y'"),
        ("pick one of them with --recipe", "pick one of them with --recipe"),
        ("start it: fairlead serve MODEL, or correct --url", "start it: fairlead serve MODEL, or correct --url"),
        ("helm upgrade x --set a=1", "helm upgrade x --set a=1"),
        ("", ""),
    ],
)
def test_an_option_that_cures_is_printed_with_the_command_that_was_typed(fix, completed_fix) -> None:
    assert completed(fix, ["serve", "my model"], "local") == completed_fix


@pytest.mark.parametrize(
    ("fix", "completed_fix"),
    [
        ("fairlead models", "fairlead models --profile mine"),
        ("see: fairlead models, or wait", "see: fairlead models --profile mine, or wait"),
        ("fairlead features materialise fraud", "fairlead features materialise --profile mine fraud"),
        (
            "fairlead run x --profile other; fairlead runs",
            "fairlead run x --profile other; fairlead runs --profile mine",
        ),
        ("fairlead deploy x --env other", "fairlead deploy x --env other"),
        ("fairlead tasks", "fairlead tasks"),
        ("the project fairlead is new", "the project fairlead is new"),
    ],
)
def test_a_command_that_cures_is_of_the_profile_that_was_used(fix, completed_fix) -> None:
    assert completed(fix, [], "mine") == completed_fix


def test_a_printed_cure_is_of_the_command_that_failed(fairlead, tmp_path) -> None:
    (tmp_path / "a folder").mkdir()
    said = fairlead("score", "fraud", "--source", "rows of mine.csv", "--out", "a folder")
    assert said.code == 1
    assert said.err.rstrip().endswith("fairlead score fraud --source 'rows of mine.csv' --out FOLDER")


def test_an_option_that_counts_once_is_replaced_and_settings_are_kept() -> None:
    typed = ["run", "x", "--port=1", "--set", "a=1", "--no-cache", "--port", "2", "--json"]
    replaced = completed("so: --port 3 --no-cache --set b=2", typed, "local")
    assert replaced == "so: fairlead run x --set a=1 --json --port 3 --no-cache --set b=2"


@pytest.mark.parametrize("command", [("models",), ("serve",), ("rollback",)])
def test_a_model_that_is_not_there_is_trained_only_where_a_task_makes_it(fairlead, command) -> None:
    assert fairlead(*command, "fraud").err.rstrip().endswith("Fix: fairlead run fraud")
    assert "fairlead run" not in fairlead(*command, "nothing").err
    assert "fairlead tasks" in fairlead(*command, "nothing").err

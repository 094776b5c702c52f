"""Where a command looks, and what it says and leaves behind when there is nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.cli.profiles.homes import known_homes, remember
from deploy.cli.profiles.loading import load_endpoints

COMMANDS = [
    ("models", "fraud"),
    ("runs", "nothing"),
    ("predict", "fraud", "--input", "{}"),
    ("promote", "fraud:1"),
    ("rollback", "fraud"),
    ("score", "fraud", "--source", "rows.csv"),
    ("run", "--resume", "nothing"),
]


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, no FAIRLEAD_HOME, a list of homes of its own, and one home in it."""
    monkeypatch.delenv("FAIRLEAD_HOME", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "100")
    here = tmp_path / "here"
    here.mkdir()
    (here / "rows.csv").write_text("a\n1\n")
    monkeypatch.chdir(here)
    other = tmp_path / "project" / ".fairlead"
    other.mkdir(parents=True)
    remember(other)
    return other


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_what_finds_nothing_says_where_it_looked_and_makes_nothing(
    elsewhere: Path, call: Callable[..., Any], command: tuple[str, ...]
) -> None:
    said = call(*command)
    assert said.code == 1
    assert str(Path.cwd() / ".fairlead") in said.err
    assert f"export FAIRLEAD_HOME={elsewhere}" in said.err
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["rows.csv"]


@pytest.mark.parametrize("command", ["models", "runs"])
def test_an_empty_list_says_which_home_it_is_of(elsewhere: Path, call: Callable[..., Any], command: str) -> None:
    said = call(command)
    assert said.code == 0
    assert str(Path.cwd() / ".fairlead") in said.out
    assert str(elsewhere) in said.out


def test_the_nearest_home_above_is_used(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = elsewhere.parent / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert load_endpoints("local").home == str(elsewhere)
    (below / ".fairlead").mkdir()
    assert load_endpoints("local").home == str(below / ".fairlead")


def test_the_environment_comes_before_any_folder(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(elsewhere.parent)
    monkeypatch.setenv("FAIRLEAD_HOME", "mine")
    assert load_endpoints("local").home == str(elsewhere.parent / "mine")


def test_a_home_of_another_user_is_not_taken(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(elsewhere.parent)
    monkeypatch.setattr(os, "getuid", lambda: elsewhere.stat().st_uid + 1)
    below = elsewhere.parent / "c"
    below.mkdir()
    monkeypatch.chdir(below)
    assert load_endpoints("local").home == str(below / ".fairlead")


def test_homes_that_are_gone_are_forgotten(elsewhere: Path) -> None:
    assert known_homes() == [elsewhere]
    elsewhere.rmdir()
    assert known_homes() == []


def test_a_user_who_cannot_write_has_no_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    remember(tmp_path)
    assert known_homes() == []

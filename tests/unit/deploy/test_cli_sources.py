"""``fairlead sources``: what a register says, and whether a source may be learned from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.data.register import FILE

REGISTER = """\
purpose: credit
sources:
  applications:
    where: applications/*.csv
    origin: the bank
    licence: internal
    purposes: credit
    personal: false
    contact: dpo@bank.example
  old:
    where: old/*.csv
    origin: the bank
    licence: internal
    purposes: credit
    personal: true
    consent: {basis: contract, until: 2020-01-31}
    collected: 2020-01-01
    retention_days: 36500
    contact: dpo@bank.example
"""


@pytest.fixture
def register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("deploy.cli.privacy.sources.task_folder", lambda name: tmp_path / name)
    (tmp_path / "credit").mkdir()
    (tmp_path / "credit" / FILE).write_text(REGISTER)
    return tmp_path


def test_a_register_is_shown_with_what_must_not_be_used(fairlead: Callable[..., Any], register: Path) -> None:
    said = fairlead("sources", "credit", "--json")
    assert said.code == 3
    rows = json.loads(said.out)["sources"]
    assert [(row["name"], row["state"]) for row in rows] == [
        ("applications", "usable"),
        ("old", "consent ended on 2020-01-31"),
    ]
    assert "applications" in fairlead("sources").out


def test_one_source_is_asked_about(fairlead: Callable[..., Any], register: Path) -> None:
    allowed = fairlead("sources", "credit", "--source", "applications/a.csv")
    assert (allowed.code, "licence internal" in allowed.out) == (0, True)
    for source, reason in (("b.csv", "is not registered"), ("old/a.csv", "consent ended on 2020-01-31")):
        refused = fairlead("sources", "credit", "--source", source, "--json")
        assert refused.code == 3
        assert json.loads(refused.out)["allowed"] is False
        assert reason in json.loads(refused.out)["reason"]


def test_a_task_without_a_register_takes_every_source(fairlead: Callable[..., Any], register: Path) -> None:
    assert "task news has no register" in fairlead("sources", "news").out
    assert "every source is taken" in fairlead("sources", "news", "--source", "a.csv").out
    assert "for which task?" in fairlead("sources", "--source", "a.csv").err


def test_a_register_with_a_mistake_is_an_error(fairlead: Callable[..., Any], register: Path) -> None:
    file = register / "credit" / FILE
    file.write_text(REGISTER.replace("licence", "lisence"))
    said = fairlead("sources", "credit", "--source", "applications/a.csv")
    assert said.code == 1
    assert "licence is meant?" in said.err

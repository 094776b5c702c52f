"""audit, audit verify and audit export; and which commands of people are noted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.audit import AuditLog
from contracts.endpoints import Endpoints
from tests.unit.deploy.test_cli_promotion import FakeRegistry


@pytest.fixture
def log(endpoints: Endpoints) -> AuditLog:
    made = AuditLog.of(endpoints)
    made.append(actor="controller", action="start_run", subject="fraud", reason="amount drifts", evidence={"psi": 0.4})
    made.append(actor="user:ada", action="promote", subject="news:2", evidence={"gate_passed": True})
    return made


def test_entries_are_shown_with_who_what_and_why(fairlead: Callable[..., Any], log: AuditLog) -> None:
    said = fairlead("audit")
    assert [row.split()[0] for row in said.out.splitlines() if row[:4].strip().isdigit()] == ["1", "2"]
    assert "amount drifts" in said.out
    assert [e["subject"] for e in fairlead("audit", "--model", "news", "--json").json] == ["news:2"]
    assert fairlead("audit", "--since", "2999-01-01", "--json").json == []
    assert len(fairlead("audit", "--since", "2h", "--json").json) == 2
    assert "not a moment: 'soon'" in fairlead("audit", "--since", "soon").err


def test_export_is_one_line_each_that_hashes_as_the_log_says(fairlead: Callable[..., Any], log: AuditLog) -> None:
    lines = [json.loads(line) for line in fairlead("audit", "export", "--model", "fraud").out.splitlines()]
    assert [line["evidence"] for line in lines] == [{"psi": 0.4}]
    assert lines[0]["hash"] == log.read()[0].hash


def test_verify_exits_with_1_and_names_the_entry_when_one_was_changed(
    fairlead: Callable[..., Any], log: AuditLog
) -> None:
    said = fairlead("audit", "verify")
    assert (said.code, "whole: 2 entries" in said.out) == (0, True)
    file = Path(log.place) / "audit.jsonl"
    file.write_text(file.read_text().replace("amount drifts", "amounts drift"))
    said = fairlead("audit", "verify")
    assert (said.code, "entry 1: it was changed" in said.out) == (1, True)
    assert fairlead("audit", "verify", "--json").json["broken"] == 1


def test_profile_before_the_command_is_refused(fairlead: Callable[..., Any], home: Path) -> None:
    assert "fairlead audit verify --profile local" in fairlead("audit", "--profile", "local", "verify").err


def test_promotions_and_rollbacks_are_noted_with_their_reason(
    fairlead: Callable[..., Any], endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("contracts.registry.Registry", FakeRegistry)
    assert fairlead("promote", "fraud:3").code == 3
    fairlead("promote", "fraud:3", "--override", "the labels are late")
    fairlead("rollback", "fraud")
    noted = AuditLog.of(endpoints).read()
    assert [(e.action, e.subject, e.reason) for e in noted] == [
        ("promote", "fraud:3", "the labels are late"),
        ("rollback", "fraud:1", ""),
    ]
    assert noted[0].actor.startswith("user:")
    assert (noted[0].evidence["champion_before"], noted[0].evidence["gate_passed"]) == ("2", False)


def test_an_action_that_could_not_be_noted_says_that_it_is_done(
    fairlead: Callable[..., Any], endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("contracts.registry.Registry", FakeRegistry)
    folder = Path(AuditLog.of(endpoints).place)
    folder.parent.mkdir(parents=True)
    folder.write_text("a file, where the folder should be")
    said = fairlead("rollback", "fraud")
    assert (said.code, "is done, and is not in the audit log" in said.err) == (1, True)

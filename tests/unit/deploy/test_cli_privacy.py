"""privacy: what trainings have cost each version of a data set."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.privacy_ledger import Charge, PrivacyLedger, Release


def charge(version: str, moment: int, task: str = "credit") -> Charge:
    releases = (Release(noise=4.0, share=1.0, steps=1),)
    about = {"delta": 1e-5, "epsilon": 0.96, "releases": releases, "time": f"2026-01-0{moment}T10:00:00Z"}
    return Charge(data_version=version, task=task, recipe="network", id=str(moment), **about)  # type: ignore[arg-type]


def test_an_empty_ledger_says_how_to_begin(fairlead) -> None:
    said = fairlead("privacy")
    assert said.code == 0
    assert "--set privacy.epsilon=1" in said.out
    assert fairlead("privacy", "--json").json == []


def test_trainings_of_a_version_are_one_line_with_what_they_cost_together(
    fairlead: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [charge("aaaa", 2), charge("bbbb", 1), charge("aaaa", 1), charge("cccc", 1, "images")]
    monkeypatch.setattr(PrivacyLedger, "charges", lambda self, version="": made)
    found = fairlead("privacy", "credit", "--json").json
    assert [one["data_version"] for one in found] == ["aaaa", "bbbb"]
    assert [len(one["charges"]) for one in found] == [2, 1]
    assert found[1]["epsilon"] == pytest.approx(0.96, abs=0.05)
    assert found[1]["epsilon"] < found[0]["epsilon"] < 2 * found[1]["epsilon"]
    assert found[0]["budget"] == 8.0
    shown = fairlead("privacy").out
    assert all(word in shown for word in ("aaaa", "bbbb", "cccc", "images", "2026-01-02 10:00"))

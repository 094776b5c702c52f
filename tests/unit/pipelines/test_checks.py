"""Checks of the gate that other packages add: they refuse as ours do, and take the place of none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.bundle import GateDecision
from contracts.errors import PlatformError
from pipelines.steps.gate import gate
from tests import packages


@pytest.fixture
def decide(
    candidate: Path, toy_config: Callable[..., str], endpoints: str, tmp_path: Path
) -> Callable[..., GateDecision]:
    def run(**limits: Any) -> GateDecision:
        out = tmp_path / "gate.json"
        given = (str(candidate / "dataset"), str(candidate / "candidate"), endpoints, str(out))
        gate("toy", toy_config(gate=limits), *given)
        return GateDecision.model_validate_json(out.read_text())

    return run


_FAIR = """
from contracts.bundle import Check
from pipelines.checks.base import Finding


class Fair:
    name, order = "{name}", 5

    def find(self, candidate):
        rows = candidate.evaluation["rows"]
        check = Check(metric="rows", rule="at least", value=rows, limit=10**6, passed=False)
        return Finding(checks=[check] if {refuses} else [], notes=["looked at " + str(rows) + " rows"])


CHECK = Fair()
"""


def test_a_check_of_another_package_refuses_too_and_comes_in_its_order(
    decide: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = decide()
    code = {"fair_check.py": _FAIR.format(name="fair", refuses=True)}
    packages.install(tmp_path / "other", "fair", code, {"checks": "fair = fair_check:CHECK"})
    monkeypatch.syspath_prepend(str(tmp_path / "other"))
    decision = decide()
    assert ours.passed
    assert not decision.passed
    assert decision.checks == [decision.checks[0], *ours.checks]
    assert decision.reasons == ["rows is 120, must be at least 1e+06", "looked at 120 rows"]


def test_no_package_takes_the_place_of_a_check_of_ours(
    decide: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = {"lax_check.py": _FAIR.format(name="thresholds", refuses=False)}
    packages.install(tmp_path / "other", "lax", code, {"checks": "thresholds = lax_check:CHECK"})
    monkeypatch.syspath_prepend(str(tmp_path / "other"))
    decision = decide(thresholds=[{"metric": "roc_auc", "minimum": 2.0}])
    assert not decision.passed
    assert decision.reasons[0].startswith("roc_auc is")


def test_a_check_that_cannot_be_loaded_stops_the_gate(
    decide: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    packages.install(tmp_path / "other", "gone", {}, {"checks": "gone = gone_check:CHECK"})
    monkeypatch.syspath_prepend(str(tmp_path / "other"))
    with pytest.raises(PlatformError, match="check 'gone' of package gone cannot be loaded"):
        decide()

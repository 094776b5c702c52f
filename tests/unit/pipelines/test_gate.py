"""The gate: every limit with its reason, and the champion scored on the same data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.bundle import Bundle, GateDecision
from contracts.errors import PlatformError
from pipelines.steps import gate as step
from pipelines.steps.scoring import provisional


@pytest.fixture
def decide(
    candidate: Path, toy_config: Callable[..., str], endpoints: str, tmp_path: Path
) -> Callable[..., GateDecision]:
    def run(folder: Path | None = None, **limits: Any) -> GateDecision:
        out = tmp_path / "gate.json"
        source = folder or candidate / "candidate"
        passed = step.gate("toy", toy_config(gate=limits), str(candidate / "dataset"), str(source), endpoints, str(out))
        decision = GateDecision.model_validate_json(out.read_text())
        assert decision.passed == passed
        return decision

    return run


@pytest.fixture
def champion(candidate: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that makes the candidate itself the champion, with changed document fields."""

    def make(**changes: Any) -> None:
        folder = candidate / "candidate"
        fields = json.loads((folder / "candidate.json").read_text())
        fields["signature"] |= changes.pop("signature", {})
        bundle: Bundle = provisional(folder, fields | changes)
        monkeypatch.setattr(step, "_champion", lambda *_: ("toy:3", bundle))

    return make


def test_a_good_candidate_passes_every_check(decide: Any) -> None:
    decision = decide()
    assert decision.passed
    assert [c.metric for c in decision.checks] == ["roc_auc", "kind:box:recall", "latency_ms", "bundle_mb"]
    assert decision.champion is None
    assert decision.reasons == []


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"thresholds": [{"metric": "roc_auc", "minimum": 0.99}]}, "roc_auc is 0.8"),
        ({"thresholds": [{"metric": "brier", "maximum": 0.01}]}, "brier is 0.1"),
        ({"thresholds": [{"metric": "kind:box:recall", "minimum": 1.1}]}, "kind:box:recall is"),
        ({"thresholds": [{"metric": "beauty", "minimum": 0}]}, "beauty was not measured, and must be at least 0"),
        ({"max_latency_ms": 1e-6}, "latency_ms is"),
        ({"max_bundle_mb": 1e-6}, "bundle_mb is"),
    ],
)
def test_each_limit_refuses_with_its_reason(decide: Any, limits: Any, reason: str) -> None:
    decision = decide(**limits)
    assert not decision.passed
    assert len(decision.reasons) == 1
    assert decision.reasons[0].startswith(reason)


def test_the_champion_is_scored_on_the_same_rows(decide: Any, champion: Any) -> None:
    champion(metrics={"average_precision": 0.01})  # what is recorded must not matter
    decision = decide(champion_tolerance=0.0)
    check = decision.checks[-1]
    assert decision.passed
    assert (decision.champion, check.against) == ("toy:3", "toy:3")
    assert check.value == check.limit


def test_a_candidate_behind_the_champion_is_refused(
    decide: Any, champion: Any, candidate: Path, tmp_path: Path
) -> None:
    champion()
    worse = tmp_path / "worse"
    shutil.copytree(candidate / "candidate", worse)
    evaluation = json.loads((worse / "evaluation.json").read_text())
    evaluation["metrics"]["average_precision"] -= 0.02
    (worse / "evaluation.json").write_text(json.dumps(evaluation))
    assert decide(worse, champion_tolerance=0.03).passed
    decision = decide(worse, champion_tolerance=0.01)
    assert not decision.passed
    assert "(champion toy:3 with tolerance)" in decision.reasons[0]


def test_lower_is_better_is_compared_the_other_way_round(decide: Any, champion: Any) -> None:
    champion()
    check = decide(primary="brier", champion_tolerance=0.01).checks[-1]
    assert check.rule == "at most"
    assert check.passed
    assert check.limit == pytest.approx(check.value + 0.01)


def test_a_champion_with_other_inputs_is_compared_by_its_record_and_said_so(decide: Any, champion: Any) -> None:
    champion(signature={"inputs": [{"name": "colour", "dtype": "string"}]}, metrics={"average_precision": 0.9})
    decision = decide()
    assert not decision.passed
    assert "its input 'colour' is not in the data" in decision.reasons[-1]
    assert decision.checks[-1].limit == pytest.approx(0.89)


def test_a_champion_without_the_metric_does_not_block(decide: Any, champion: Any) -> None:
    champion(signature={"inputs": [{"name": "colour", "dtype": "string"}]}, metrics={})
    decision = decide()
    assert decision.passed
    assert "has no average_precision to compare with" in decision.reasons[0]


def test_a_primary_metric_that_is_not_measured_is_an_error(decide: Any) -> None:
    with pytest.raises(PlatformError, match=r"gate.primary 'accuracy' is not measured") as caught:
        decide(primary="accuracy")
    assert "average_precision" in caught.value.detail


def test_a_rule_needs_exactly_one_side(decide: Any) -> None:
    with pytest.raises(PlatformError, match="either a minimum or a maximum"):
        decide(thresholds=[{"metric": "roc_auc"}])


def test_without_a_registry_there_is_no_champion(endpoints: str) -> None:
    assert step._champion("toy", endpoints) is None


def test_slice_metrics_are_found_by_name() -> None:
    evaluation = {"metrics": {"f1:a": 0.1}, "slices": {"hour:12:00": {"f1": 0.2}, "hour:1": {"f1:a": 0.3}}}
    assert step.lookup("f1:a", evaluation) == 0.1
    assert step.lookup("hour:12:00:f1", evaluation) == 0.2
    assert step.lookup("hour:1:f1:a", evaluation) == 0.3
    assert step.lookup("hour:1:f1", evaluation) is None

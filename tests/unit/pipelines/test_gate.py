"""The gate: every limit with its reason, and the champion scored on the same data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from contracts.bundle import Bundle, Check, GateDecision
from contracts.endpoints import Endpoints
from contracts.engines import load_engine
from contracts.errors import PlatformError
from pipelines.checks import champion as champion_check
from pipelines.checks.base import lookup
from pipelines.data.seen import Seen, row_hashes
from pipelines.evaluation import comparison
from pipelines.evaluation.scoring import ANSWERS, provisional
from pipelines.steps import gate as step
from pipelines.task import GateConfig


@pytest.fixture
def decide(
    candidate: Path, toy_config: Callable[..., str], endpoints: str, tmp_path: Path
) -> Callable[..., GateDecision]:
    def run(folder: Path | None = None, dataset: Path | None = None, **limits: Any) -> GateDecision:
        out = tmp_path / "gate.json"
        source, data = folder or candidate / "candidate", dataset or candidate / "dataset"
        passed = step.gate("toy", toy_config(gate=limits), str(data), str(source), endpoints, str(out))
        decision = GateDecision.model_validate_json(out.read_text())
        assert decision.passed == passed
        return decision

    return run


@pytest.fixture
def champion(candidate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A function that makes a copy of the candidate, with changed document fields, the champion; gives its folder."""

    def make(**changes: Any) -> Path:
        folder = tmp_path / "champion"
        shutil.copytree(candidate / "candidate", folder)
        fields = json.loads((folder / "candidate.json").read_text())
        fields["signature"] |= changes.pop("signature", {})
        bundle: Bundle = provisional(folder, fields | changes)
        monkeypatch.setattr(champion_check, "find_champion", lambda *_: ("toy:3", bundle))
        return folder

    return make


@pytest.fixture
def answering(candidate: Path, tmp_path: Path) -> Callable[..., Path]:
    """A function from the probability of "yes" of each test row to a candidate that answers so."""

    def make(yes: NDArray[np.float64]) -> Path:
        folder = tmp_path / "answering"
        shutil.copytree(candidate / "candidate", folder, dirs_exist_ok=True)
        np.save(folder / ANSWERS, np.column_stack([1 - yes, yes]))
        return folder

    return make


class Memory:
    """An engine that has learned some rows by heart, told by their distance, and answers others as `inner` does."""

    def __init__(self, inner: Any, rows: pd.DataFrame) -> None:
        self.inner, self.known = inner, dict(zip(rows["distance"], rows["label"] == "yes", strict=True))

    def predict(self, columns: Any) -> NDArray[np.float64]:
        answers: NDArray[np.float64] = self.inner.predict(columns).copy()
        for at, distance in enumerate(columns["distance"]):
            if distance in self.known:
                answers[at] = [0.0, 1.0] if self.known[distance] else [1.0, 0.0]
        return answers


def rows_of(candidate: Path) -> pd.DataFrame:
    return pd.read_parquet(candidate / "dataset" / "test.parquet")


def remember(champion: Path, candidate: Path, rows: int) -> None:
    """Note the first `rows` of the test in what the champion has learned from."""
    frames = [pd.read_parquet(candidate / "dataset" / f"{name}.parquet") for name in ("train", "valid")]
    keys = [*frames[0]["row_key"], *frames[1]["row_key"], *rows_of(candidate)["row_key"][:rows]]
    Seen.of(row_hashes(keys)).write(champion)


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


@pytest.mark.parametrize("unsure", ["pass", "refuse"])
@pytest.mark.parametrize("primary", ["average_precision", "brier"])
def test_an_identical_model_passes_on_the_same_rows(decide: Any, champion: Any, primary: str, unsure: str) -> None:
    champion(metrics={"average_precision": 0.01, "brier": 0.9})  # what is recorded must not matter
    decision = decide(champion_tolerance=0.0, primary=primary, unsure=unsure)
    check = decision.checks[-1]
    assert decision.passed
    assert (decision.champion, check.against) == ("toy:3", "toy:3")
    assert (check.difference, check.interval) == (0, (0, 0))
    assert (check.rows_compared, check.rows_left_out) == (120, 0)
    assert check.value == check.limit
    assert "shown not to be worse by more than 0" in decision.reasons[0]
    assert "on 120 rows, none left out" in decision.reasons[0]


@pytest.mark.parametrize("primary", ["average_precision", "brier"])
def test_a_model_that_is_shown_to_be_worse_is_refused(decide: Any, champion: Any, answering: Any, primary: str) -> None:
    champion()
    guessing = answering(np.random.default_rng(1).random(120))
    decision = decide(guessing, primary=primary)
    assert not decision.passed
    assert [check.metric for check in decision.checks if not check.passed] == [primary]
    low, high = decision.checks[-1].interval
    assert (high < 0) if primary == "average_precision" else (low > 0)
    assert "shown to be worse by more than 0.01" in decision.reasons[0]


@given(
    champion=st.floats(0, 1),
    gain=st.floats(-1, 1),
    reach=st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)),
    tolerance=st.floats(0, 0.2),
    rows=st.one_of(st.none(), st.integers(2, 10**6)),
)
def test_the_rule_refuses_only_what_is_shown_and_mirrors_when_lower_is_better(
    champion: float, gain: float, reach: tuple[float, float], tolerance: float, rows: int | None
) -> None:
    def check(sign: float, unsure: Literal["pass", "refuse"]) -> Check:
        ends = sorted(sign * end for end in (gain - reach[0], gain + reach[1]))
        pair = comparison.Pair(champion + sign * gain, champion, (ends[0], ends[1]), rows, 0)
        metric = "accuracy" if sign > 0 else "brier"
        config = GateConfig(primary=metric, champion_tolerance=tolerance, unsure=unsure)
        return comparison.check_pair(pair, "toy:3", metric, config, sign > 0)

    near = min(abs(gain + tolerance), abs(gain - reach[0] + tolerance), abs(gain + reach[1])) < 1e-9
    for sign in (1.0, -1.0):
        lenient, strict = check(sign, "pass"), check(sign, "refuse")
        if not near:  # else rounding of floats decides
            assert lenient.passed == (gain >= -tolerance or gain + reach[1] >= 0)
            assert strict.passed == (lenient.passed and gain - reach[0] >= -tolerance)
        assert lenient.passed or not strict.passed
        for made in (lenient, strict):
            words = comparison.describe(made)
            assert ("shown to be worse" in words) == (not lenient.passed)
            assert ("shown not to be worse" in words) == strict.passed


def test_what_the_rows_do_not_decide_passes_and_says_so_or_is_refused_by_choice(
    decide: Any, champion: Any, answering: Any, candidate: Path
) -> None:
    champion()
    answers = np.load(candidate / "candidate" / ANSWERS)[:, 1]
    noisy = answering(np.clip(answers + np.random.default_rng(4).normal(0, 0.08, 120), 0, 1))
    lenient = decide(noisy, champion_tolerance=0.005)
    check = lenient.checks[-1]
    assert check.difference < -0.005
    assert check.interval[0] < -0.005 < 0 < check.interval[1]
    assert check.rule == "not shown below"
    assert lenient.passed
    assert "does not show whether it is worse" in lenient.reasons[0]
    strict = decide(noisy, champion_tolerance=0.005, unsure="refuse")
    assert not strict.passed
    assert "does not show whether it is worse" in strict.reasons[0]
    assert decide(noisy, champion_tolerance=0.3, unsure="refuse").passed


def test_rows_that_the_champion_has_learned_from_do_not_count(
    decide: Any, champion: Any, candidate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rows, real = champion(), rows_of(candidate), load_engine
    monkeypatch.setattr(comparison, "load_engine", lambda *a, **k: Memory(real(*a, **k), rows[:80]))
    unfair = decide()  # the champion does not tell that it knows 80 of the rows
    assert not unfair.passed
    assert unfair.checks[-1].rows_compared == 120
    remember(folder, candidate, 80)
    fair = decide()
    check = fair.checks[-1]
    assert fair.passed
    assert (check.rows_compared, check.rows_left_out, check.difference) == (40, 80, 0)
    assert "on 40 rows, 80 left out that one of them has learned from" in fair.reasons[0]


def test_rows_that_the_candidate_has_learned_from_do_not_count_either(
    decide: Any, champion: Any, answering: Any, candidate: Path
) -> None:
    champion()
    folder = answering((rows_of(candidate)["label"] == "yes").to_numpy(float))
    remember(folder, candidate, 70)
    assert decide(folder).checks[-1].rows_compared == 50


@pytest.mark.parametrize(("left", "least"), [(0, 20), (19, 20), (40, 41)])
def test_with_too_few_rows_left_the_recorded_value_is_compared_and_it_says_so(
    decide: Any, champion: Any, candidate: Path, left: int, least: int
) -> None:
    folder = champion()
    remember(folder, candidate, 120 - left)
    decision = decide(min_compared_rows=least)
    check = decision.checks[-1]
    recorded = json.loads((folder / "evaluation.json").read_text())
    assert (check.rows_compared, check.rows_left_out) == (None, 120 - left)
    assert check.value - check.difference == pytest.approx(recorded["metrics"]["average_precision"])
    low, high = recorded["intervals"]["average_precision"]
    assert check.interval[1] - check.interval[0] > high - low  # two values, each with its own error
    assert decision.passed
    assert f"{left} of 120 test rows, copies not counted, are new to both models" in decision.reasons[1]
    assert f"at least {least} are needed" in decision.reasons[1]
    assert "recorded average_precision, which is of other rows" in decision.reasons[1]


def test_copies_of_a_row_are_one_row(decide: Any, champion: Any, candidate: Path, tmp_path: Path) -> None:
    champion()
    dataset = tmp_path / "copies"
    shutil.copytree(candidate / "dataset", dataset)
    rows_of(candidate).assign(row_key=[f"text {at % 15}" for at in range(120)]).to_parquet(dataset / "test.parquet")
    decision = decide(dataset=dataset)
    assert decision.checks[-1].rows_compared is None
    assert "15 of 120 test rows, copies not counted, are new to both models" in decision.reasons[1]


def test_rows_without_the_metric_are_compared_by_the_record(decide: Any, champion: Any, candidate: Path) -> None:
    folder, rows = champion(), rows_of(candidate)
    Seen.of(row_hashes(rows["row_key"][rows["label"] == "yes"])).write(folder)
    decision = decide()
    assert decision.checks[-1].rows_compared is None
    assert "average_precision is not defined on the" in decision.reasons[1]


def test_a_champion_that_does_not_tell_what_it_has_seen_is_named(decide: Any, champion: Any) -> None:
    (champion() / "seen.bin").unlink()
    decision = decide()
    assert decision.passed
    assert decision.checks[-1].rows_compared == 120
    assert "champion toy:3 does not record which rows it has learned from: it may have seen" in decision.reasons[1]


def test_rows_beyond_a_full_record_are_left_out(decide: Any, champion: Any, candidate: Path) -> None:
    folder, hashes = champion(), row_hashes(rows_of(candidate)["row_key"])
    bound = int(np.sort(hashes)[59])
    Seen.of(np.zeros(0, dtype=np.uint64), bound).write(folder)
    decision = decide()
    assert (decision.checks[-1].rows_compared, decision.checks[-1].rows_left_out) == (60, 60)
    assert "60 rows that it does not tell about are left out" in decision.reasons[1]


def test_a_champion_with_other_inputs_is_compared_by_its_record_and_said_so(decide: Any, champion: Any) -> None:
    folder = champion(
        signature={"inputs": [{"name": "colour", "dtype": "string"}]}, metrics={"average_precision": 0.99}
    )
    record = json.loads((folder / "evaluation.json").read_text())
    record["intervals"]["average_precision"] = [0.98, 1.0]
    (folder / "evaluation.json").write_text(json.dumps(record))
    decision = decide()
    assert not decision.passed
    assert "its input 'colour' is not in the data" in decision.reasons[-1]
    assert decision.checks[-1].limit == pytest.approx(0.98)
    assert decision.checks[-1].interval[1] < 0
    (folder / "evaluation.json").unlink()  # as in a bundle of before: two bare numbers are all there is
    bare = decide()
    assert (bare.passed, bare.checks[-1].interval, bare.checks[-1].rule) == (False, None, "at least")
    assert "(no interval)" in bare.reasons[0]
    assert bare.reasons[0].endswith("worse by more than 0.01, by the two numbers alone")


def test_a_champion_without_the_metric_does_not_block(decide: Any, champion: Any) -> None:
    champion(signature={"inputs": [{"name": "colour", "dtype": "string"}]}, metrics={})
    decision = decide()
    assert decision.passed
    assert "has no average_precision to compare with" in decision.reasons[0]
    assert decision.checks[-1].metric == "bundle_mb"


def test_a_primary_metric_that_is_not_measured_is_an_error(decide: Any) -> None:
    with pytest.raises(PlatformError, match=r"gate.primary 'f1:maybe' is not measured") as caught:
        decide(primary="f1:maybe")
    assert "average_precision" in caught.value.detail


def test_without_a_registry_there_is_no_champion(endpoints: str) -> None:
    assert champion_check.find_champion("toy", Endpoints.model_validate_json(endpoints)) is None


def test_slice_metrics_are_found_by_name() -> None:
    evaluation = {"metrics": {"f1:a": 0.1}, "slices": {"hour:12:00": {"f1": 0.2}, "hour:1": {"f1:a": 0.3}}}
    assert lookup("f1:a", evaluation) == 0.1
    assert lookup("hour:12:00:f1", evaluation) == 0.2
    assert lookup("hour:1:f1:a", evaluation) == 0.3
    assert lookup("hour:1:f1", evaluation) is None
